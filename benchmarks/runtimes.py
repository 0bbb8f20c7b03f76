"""Agreement and speed of the ONNX files in several runtimes.

    python -m benchmarks.runtimes [--models models/onnx] [--images 20] [--node DIRECTORY]

Predicts test images in every installed runtime, on one thread: ONNX Runtime, OpenVINO, OpenCV,
tract (the packages `onnxruntime`, `openvino`, `opencv-python-headless`, `tract`), and in Node ONNX
Runtime and its WebAssembly form for browsers (`npm install onnxruntime-node onnxruntime-web` in
DIRECTORY). Each runtime has its own process, as some crash on files that they do not support.

Prints the fraction of pixels with the same label as float32 in ONNX Runtime, the mean IoU, and the
shortest milliseconds of an image.
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.machine import machine
from cocoseg.export.onnx import ExportImages
from cocoseg.inference.backends import open_onnx
from cocoseg.inference.confusion import count_confusion, mean_of_defined_ious
from cocoseg.inference.dataset import read_samples

Feeds = dict[str, NDArray[Any]]
Session = Callable[[Feeds], NDArray[Any]]

_SECONDS = 600
"""The limit of each runtime for one file."""


def _onnxruntime(path: str) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    return lambda feeds: session.run(None, feeds)[0]


def _openvino(path: str) -> Session:
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda feeds: model(feeds)[0]


def _opencv(path: str) -> Session:
    import cv2

    cv2.setNumThreads(1)
    network = cv2.dnn.readNetFromONNX(path)

    def run(feeds: Feeds) -> NDArray[Any]:
        for name, value in feeds.items():
            network.setInput(value, name)
        return network.forward()

    return run


def _tract(path: str) -> Session:
    import tract

    model = tract.onnx().load(path).into_model().into_runnable()
    return lambda feeds: model.run(list(feeds.values()))[0].to_numpy()


PYTHON = {"onnxruntime": _onnxruntime, "openvino": _openvino, "cv2": _opencv, "tract": _tract}
NODE = ["onnxruntime-node", "onnxruntime-web"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("models/onnx"))
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--node", type=Path, help="a directory with node_modules")
    parser.add_argument("--child", nargs=3, metavar=("RUNTIME", "FILE", "DIRECTORY"))
    options = parser.parse_args()
    if options.child:
        try:
            _predict(*options.child)
        except Exception as error:  # the message of tract ends with a stack trace
            message = " ".join(str(error).partition("Stack backtrace")[0].split())
            raise SystemExit(f"Error: {message}") from None
        return
    print(machine("onnxruntime"))
    commands = {}
    for name in PYTHON:
        if importlib.util.find_spec(name):
            commands[name] = [sys.executable, "-m", "benchmarks.runtimes", "--child", name]
        else:
            print(f"{name} is not installed")
    for name in NODE:
        if (
            options.node
            and shutil.which("node")
            and (options.node / "node_modules" / name).exists()
        ):
            modules = (options.node / "node_modules" / name).resolve()
            commands[name] = ["node", str(Path(__file__).with_suffix(".mjs")), str(modules)]
        else:
            print(f"{name} is not installed")
    with tempfile.TemporaryDirectory() as directory:
        _compare(commands, options.models, options.images, Path(directory))


def _compare(commands: dict[str, list[str]], models: Path, count: int, directory: Path) -> None:
    network = open_onnx(models / "float32.onnx", threads=1)
    shape = onnx.load(models / "float32.onnx").graph.input[0].type.tensor_type.shape
    fixed_size = None if "size" in network.inputs else [dim.dim_value for dim in shape.dim[2:]]
    samples = read_samples(Path("data/splits/test.txt"), Path("data/images"), Path("data/masks"))
    images = ExportImages(samples[:count], network.card.size, fixed_size)
    inputs, ground_truths, expected = [], [], []
    for index in range(len(images.samples)):
        image, ground_truth = images[index]
        (directory / f"{index}.bin").write_bytes(image.contiguous().numpy().tobytes())
        size = [*ground_truth.shape]
        inputs.append({"shape": [1, *image.shape], "size": None if fixed_size else size})
        ground_truths.append(ground_truth.numpy())
        labels = network.labels(image[None], (size[0], size[1]))
        expected.append(labels.numpy()[0])
    (directory / "inputs.json").write_text(json.dumps(inputs))
    for path in sorted(models.glob("*.onnx")):
        for name, command in commands.items():
            result = directory / "times.json"
            result.unlink(missing_ok=True)
            problem = _run(command, path, directory)
            if not result.exists():
                print(f"{path.stem:8}  {name:16}  fails: {problem}", flush=True)
                continue
            found = [
                np.fromfile(directory / f"{index}.labels", np.uint8).reshape(labels.shape)
                for index, labels in enumerate(expected)
            ]
            same = np.mean([np.mean(a == b) for a, b in zip(found, expected, strict=True)])
            classes = len(network.card.classes)
            confusion = sum(
                count_confusion(a, b, classes) for a, b in zip(ground_truths, found, strict=True)
            )
            taken = min(json.loads(result.read_text())[1:])
            miou = mean_of_defined_ious(confusion)
            print(f"{path.stem:8}  {name:16}  {same:.4f}  {miou:.3f}  {taken:7.1f} ms", flush=True)


def _run(command: list[str], path: Path, directory: Path) -> str:
    """Run a runtime, and return the last message on standard error that says `Error`."""
    try:
        done = subprocess.run(
            [*command, str(path), str(directory)],
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"more than {_SECONDS} s"
    lines = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
    return lines[-1][:200] if lines else f"exit status {done.returncode}"


def _predict(runtime: str, file: str, directory: str) -> None:
    """Write the labels of all images, and `times.json` with their milliseconds."""
    session, times = PYTHON[runtime](file), []
    for index, entry in enumerate(json.loads(Path(directory, "inputs.json").read_text())):
        image = np.fromfile(Path(directory, f"{index}.bin"), np.uint8).reshape(entry["shape"])
        feeds = {"images": image}
        if entry["size"]:
            feeds["size"] = np.array(entry["size"])
        started = time.perf_counter()
        output = session(feeds)
        times.append((time.perf_counter() - started) * 1000)
        labels = output if output.ndim == 3 else output.argmax(axis=1)
        labels.astype(np.uint8).tofile(Path(directory, f"{index}.labels"))
    Path(directory, "times.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main()
