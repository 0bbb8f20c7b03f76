"""Time and peak memory of labels that the ONNX graph computes, compared with those from its logits.

A process labels one image with LR-ASPP (random weights) as in docs/deployment.md.

    python -m benchmarks.label_output [--image 3000 4000] [--classes 121]
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.machine import machine, run_module

ARCHITECTURE = "lraspp_mobilenet_v3_large"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--image", nargs=2, type=int, default=[3000, 4000])
    parser.add_argument("--classes", type=int, default=121)
    parser.add_argument("--child", type=Path)
    options = parser.parse_args()
    if options.child:
        label(options.child, options.image)
        return
    import torch  # not in the measured process

    from cocoseg.export.label_output import add_labels
    from cocoseg.export.onnx import write_onnx
    from cocoseg.models.networks import ModelCard, build_model

    print(machine("onnxruntime"), flush=True)
    with tempfile.TemporaryDirectory() as name:
        logits, labels = Path(name, "logits.onnx"), Path(name, "labels.onnx")
        torch.manual_seed(0)
        classes = tuple(map(str, range(options.classes)))
        model = build_model(ARCHITECTURE, len(classes)).eval()
        write_onnx(logits, model, ModelCard(ARCHITECTURE, classes, 520), opset=18)
        shutil.copy(logits, labels)
        add_labels(labels, keep_logits=False)
        for path in (logits, labels):
            arguments = ["--child", path, "--image", *options.image]
            seconds, cpu, peak = run_module("benchmarks.label_output", arguments)
            print(f"{path.stem}: {seconds:.0f} s, CPU {cpu:.0f} s, peak {peak:,} MiB", flush=True)


def label(path: Path, size: list[int]) -> None:
    session = onnxruntime.InferenceSession(path)
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 520, 693)).astype(np.uint8)
    (output,) = session.run(None, {"images": image, "size": np.array(size)})
    if output.ndim == 4:
        output.argmax(axis=1)


if __name__ == "__main__":
    main()
