"""Images a second in training and in evaluation, ours beside the plain loop people write.

Same network, batch and crop, on random images, in turns in one run on the CPU. The plain loop is
torchvision's network with contiguous tensors, its reference's SGD and loss; in evaluation it scales
logits up to the network's input, then to the photo, as torchvision and most scripts do.

    python -m benchmarks.training --crop 480 --batch-size 4 --rounds 5
    python -m benchmarks.training --aux-weight 0 --profile deeplabv3plus_mobilenet_v3_large

The second one shows where the time of a training step goes, of any architecture.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import yaml
from torch.nn import functional
from torch.profiler import profile

from benchmarks.machine import machine
from benchmarks.reference import build_reference, reference_loss
from cocoseg.common.params import Params
from cocoseg.deployment.export import torch_network
from cocoseg.learning.training import Trainer
from cocoseg.network.model import IMAGENET_MEAN, IMAGENET_STD, ModelCard

CPU = torch.device("cpu")
CLASSES = ("background", "person", "bicycle", "car", "motorcycle", "airplane")

KINDS = {
    "gradients of convolutions": ("convolution_backward", "slow_conv2d_backward"),
    "convolutions": ("mkldnn_convolution", "slow_conv2d_forward"),
    "batch norms, both ways": ("batch_norm",),
    "activations, both ways": ("hardswish", "hardsigmoid", "threshold", "clamp_min"),
    "AdamW": ("adamw",),
}
"""What torch calls the operations of a step; the loss, resizing and copies are left over."""


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(
    name: str,
    images: int,
    rounds: int,
    ours: Callable[[], object],
    plain: Callable[[], object],
) -> None:
    """Time both in turns, after a warm-up, and print images a second and the median ratio."""
    ours()
    plain()
    pairs = [(seconds(ours), seconds(plain)) for _ in range(rounds)]
    ratio = median(slow / fast for fast, slow in pairs)
    rates = [images / median(column) for column in zip(*pairs, strict=True)]
    print(f"{name:<14} {rates[0]:8.2f} {rates[1]:8.2f} {ratio:8.2f}x", flush=True)


def shares(step: Callable[[], object], steps: int = 5) -> None:
    """Print how a step's time is divided."""
    step()
    with profile() as recorded:
        taken = seconds(lambda: [step() for _ in range(steps)]) / steps
    spent: Counter[str] = Counter()
    for row in recorded.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in row.key for n in names)), "rest")
        spent[kind] += row.self_cpu_time_total
    print(f"{taken:.2f} s a step")
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
        "--aux-weight", type=float, default=0.5, help="0, as in the preset: no head"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", metavar="ARCHITECTURE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    preset = Path(__file__).resolve().parents[1] / "presets/coco_val2014.yaml"
    params = Params.model_validate(yaml.safe_load(preset.read_text(encoding="utf-8"))).train
    changes = {"weights": "none", "aux_weight": options.aux_weight}
    params = params.model_copy(update=changes)
    architecture = options.profile or params.architecture
    trainer = Trainer(ModelCard(architecture, CLASSES, options.crop), params, CPU)
    shape = options.batch_size, 3, options.crop, options.crop
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    labels = torch.randint(0, 6, (shape[0], *shape[2:]), dtype=torch.uint8)

    def our_step() -> None:
        trainer.model.train()
        trainer.optimize(images, labels)

    if options.profile:
        print(machine("torch", "torchvision"), f"{options.threads} threads", sep=", ")
        print(f"{architecture}, crop {options.crop}, batch {options.batch_size}")
        shares(our_step)
        return
    plain = build_reference(len(CLASSES))
    plain.load_state_dict(trainer.model.state_dict(), strict=False)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))

    def plain_step() -> None:
        plain.train()
        loss = reference_loss(plain((images / 255 - mean) / std), labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    photo = torch.randint(0, 256, (options.batch_size, 3, 520, 693), dtype=torch.uint8)
    height, width = 480, 640

    @torch.inference_mode()
    def plain_evaluation() -> None:
        plain.eval()
        for image in photo:
            logits = plain((image[None] / 255 - mean) / std)["out"]
            size = (height, width)
            functional.interpolate(logits, size, mode="bilinear").argmax(dim=1)

    network = torch_network(trainer.averaged_model(), trainer.card, CPU)

    def our_evaluation() -> None:
        for image in photo:
            network(image[None], (height, width)).max(dim=1)

    print(machine("torch", "torchvision"), f"{options.threads} threads", sep=", ")
    print(f"crop {options.crop}, batch {options.batch_size}; evaluation of 640x480 photos, singly")
    print(f"{'images/s':<14} {'ours':>8} {'plain':>8} {'ratio':>9}")
    compare("training", options.batch_size, options.rounds, our_step, plain_step)
    compare("evaluation", options.batch_size, options.rounds, our_evaluation, plain_evaluation)


if __name__ == "__main__":
    main()
