"""Images per second in training and evaluation, compared with a plain loop.

Both use the same network, batch, crop, device and precision on random images, in turns. The plain
loop uses torchvision's network with contiguous tensors and its reference's SGD and loss. In
evaluation it upsamples logits to the network's input, then to the image, as torchvision and most
scripts do.

    python -m benchmarks.training --crop 480 --batch-size 4 --rounds 5
    python -m benchmarks.training --aux-weight 0 --profile deeplabv3plus_mobilenet_v3_large

The second command prints the time of a training step by operation.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch.autograd import DeviceType
from torch.nn import functional
from torch.profiler import profile

from benchmarks.machine import machine
from benchmarks.reference import build_reference, reference_loss
from cocoseg.core.stage import shared_directory
from cocoseg.models.devices import set_up_device
from cocoseg.models.networks import IMAGENET_MEAN, IMAGENET_STD, ModelCard
from cocoseg.params.reader import load_params
from cocoseg.params.train import TrainParams
from cocoseg.training.trainer import Trainer

CLASSES = ("background", "person", "bicycle", "car", "motorcycle", "airplane")

KINDS = {
    "gradients of convolutions": ("convolution_backward", "slow_conv2d_backward"),
    "convolutions": ("mkldnn_convolution", "slow_conv2d_forward", "cudnn_conv", "conv_depthwise2d"),
    "batch norms, both ways": ("batch_norm",),
    "activations, both ways": ("hardswish", "hardsigmoid", "threshold", "clamp_min"),
    "AdamW": ("adamw",),
}
"""torch's names of the operations of a step; the rest is the loss, resizing and copies."""


def seconds(run: Callable[[], object], times: int = 1) -> float:
    """Time `times` consecutive calls, including the work of the GPU."""
    started = time.perf_counter()
    for _ in range(times):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def by_default(run: Callable[[], object]) -> Callable[[], None]:
    """The call without deterministic algorithms: the plain loss has none on CUDA, and
    `set_up_device` allows no others."""

    def run_once() -> None:
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        run()
        torch.use_deterministic_algorithms(deterministic)

    return run_once


def compare(
    name: str,
    images: int,
    rounds: int,
    ours: Callable[[], object],
    plain: Callable[[], object],
    times: int = 1,
) -> float:
    """Time both in turns and print images per second and the median ratio.

    Both run once before; on a GPU this prints the peak memory as well.

    Args:
        name: the label of the printed row.
        images: the number of images that one call processes.
        rounds: the number of measurements.
        ours: the implementation of this project.
        plain: the implementation that it is compared with.
        times: the number of consecutive calls per measurement.

    Returns:
        Our images per second.
    """
    memory = ""
    for run in (ours, plain):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        run()
        if torch.cuda.is_available():
            memory += f" {torch.cuda.max_memory_allocated() / 2**20:7.0f} MiB"
    timings = [(seconds(ours, times), seconds(plain, times)) for _ in range(rounds)]
    ratio = median(slow / fast for fast, slow in timings)
    rates = [images * times / median(column) for column in zip(*timings, strict=True)]
    print(f"{name:<14} {rates[0]:8.2f} {rates[1]:8.2f} {ratio:8.2f}x{memory}", flush=True)
    return rates[0]


def print_profile(step: Callable[[], object], steps: int = 5) -> None:
    """Print the time of a step by operation."""
    step()
    with profile() as recorded:
        taken = seconds(step, steps) / steps
    spent: Counter[str] = Counter()
    on_gpu = torch.cuda.is_available()
    for row in recorded.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in row.key for n in names)), "rest")
        if row.device_type == DeviceType.CPU:  # GPU rows repeat the time of these
            spent[kind] += row.self_device_time_total if on_gpu else row.self_cpu_time_total
    print(f"{taken:.2f} s per step")
    for kind, microseconds in spent.most_common():
        print(f"{kind:<26} {microseconds / spent.total():4.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crop", type=int, default=480)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--aux-weight", type=float, default=0.5, help="0: no auxiliary head, as in the preset"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--compile", action="store_true", help="compile our step, as train.compile does"
    )
    parser.add_argument("--steps", type=int, default=1, help="consecutive steps per measurement")
    parser.add_argument("--profile", metavar="ARCHITECTURE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    preset = Path(__file__).resolve().parents[1] / "presets/coco_val2014.yaml"
    params = load_params(preset)[TrainParams]
    changes = {"weights": "none", "aux_weight": options.aux_weight}
    changes |= {"precision": options.precision, "compile": options.compile}
    params = params.model_copy(update=changes)
    device = set_up_device(options.device, shared_directory("devices"))
    architecture = options.profile or params.architecture
    trainer = Trainer(ModelCard(architecture, CLASSES, options.crop), params, device)
    shape = options.batch_size, 3, options.crop, options.crop
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    labels = torch.randint(0, 6, (shape[0], *shape[2:]), dtype=torch.uint8)

    def our_step() -> None:
        trainer.model.train()
        trainer.optimize(images, labels)

    print(machine("torch", "torchvision"), f"{options.threads} threads", sep=", ")
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))
    print(f"{options.precision}{', compiled' * options.compile}")
    if options.profile:
        print(f"{architecture}, crop {options.crop}, batch {options.batch_size}")
        print_profile(our_step)
        return
    reference = build_reference(len(CLASSES)).to(device)
    reference.load_state_dict(trainer.model.state_dict(), strict=False)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    mean, std = (
        torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    reduced = options.precision == "bfloat16"

    @by_default
    def plain_step() -> None:
        reference.train()
        inputs, targets = (images.to(device) / 255 - mean) / std, labels.to(device).long()
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            loss = reference_loss(reference(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    evaluated = torch.randint(0, 256, (options.batch_size, 3, 520, 693), dtype=torch.uint8)
    height, width = 480, 640

    @by_default
    @torch.inference_mode()
    def plain_evaluation() -> None:
        reference.eval()
        for image in evaluated:
            logits = reference((image[None].to(device) / 255 - mean) / std)["out"]
            size = (height, width)
            functional.interpolate(logits, size, mode="bilinear").argmax(dim=1).cpu()

    network = trainer.network()

    def our_evaluation() -> None:
        for image in evaluated:
            network(image[None], (height, width)).max(dim=1).indices.cpu()

    print(f"crop {options.crop}, batch {options.batch_size}; evaluation of single 640x480 images")
    print(f"{'images/s':<14} {'ours':>8} {'plain':>8} {'ratio':>9}")
    sizes = options.batch_size, options.rounds
    rate = compare("training", *sizes, our_step, plain_step, options.steps)
    compare("evaluation", *sizes, our_evaluation, plain_evaluation)
    print(f"one epoch of val2014 (6,400 training images): {6400 / rate:.0f} s if loading keeps up")


if __name__ == "__main__":
    main()
