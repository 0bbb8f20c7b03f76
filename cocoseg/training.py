"""The training loop: optimise, validate each epoch, keep the best.

Everything random comes from generators seeded by (seed, purpose, epoch), so that an epoch does the
same whatever ran before it in the process.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from cocoseg.dataset import (
    Augmentation,
    Pair,
    TrainingCrops,
    batches_per_epoch,
    training_batches,
)
from cocoseg.inference import confusion_of_pairs, normalize
from cocoseg.labels import VOID
from cocoseg.metrics import summarize_scores
from cocoseg.model import ModelCard, build_model, load_pretrained
from cocoseg.params import TrainParams
from cocoseg.randomness import generator


@dataclass
class TrainingResult:
    """The network of the best epoch, in evaluation mode on the CPU, and that epoch's scores."""

    model: nn.Module
    card: ModelCard
    best: Mapping[str, Any]
    crops_per_second: float
    weights: str

    def summary(self) -> dict[str, Any]:
        """The figures of the best epoch and what the run started from."""
        return {**self.best, "weights": self.weights}


@contextmanager
def torch_seed(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's own generators (initial weights, dropout) inside the block only."""
    with torch.random.fork_rng():
        torch.manual_seed(int(generator(seed, *purpose).integers(1 << 62)))
        yield


def segmentation_loss(logits: Mapping[str, Tensor], labels: Tensor, params: TrainParams) -> Tensor:
    """The loss of a batch: logits (B, classes, H, W) by head, labels int64 (B, H, W).

    Cross-entropy of the main head, plus `dice_weight` times its soft Dice loss, plus `aux_weight`
    times the cross-entropy of the auxiliary head; void pixels count nowhere.
    """
    loss = functional.cross_entropy(logits["out"], labels, ignore_index=VOID)
    loss = loss + params.aux_weight * functional.cross_entropy(
        logits["aux"], labels, ignore_index=VOID
    )
    return loss + params.dice_weight * dice_loss(logits["out"], labels)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the mean soft Dice coefficient of the classes that occur in the batch.

    Milletari, Navab and Ahmadi, "V-Net", 2016, section 3, over all pixels of the batch.
    """
    counted = labels != VOID
    classes = logits.shape[1]
    truth = functional.one_hot(labels.where(counted, 0), classes).permute(0, 3, 1, 2)
    truth = truth * counted[:, None]
    probabilities = logits.softmax(dim=1) * counted[:, None]
    axes = (0, 2, 3)
    intersection = (probabilities * truth).sum(axes)
    total = probabilities.sum(axes) + truth.sum(axes)
    present = truth.sum(axes) > 0
    return 1 - (2 * intersection[present] / total[present]).mean()


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """One cycle: a linear rise over the share `warmup` of the steps, then half a cosine to zero."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for convolution kernels only, not for norms and biases."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": kernels, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def train(
    classes: Sequence[str],
    train_pairs: Sequence[Pair],
    val_pairs: Sequence[Pair],
    params: TrainParams,
    *,
    device: torch.device,
    workers: int,
    report_epoch: Callable[[int, Mapping[str, Any]], None],
) -> TrainingResult:
    """Train a network and return that of the epoch with the best validation mean IoU.

    `classes` are the classes' names in label order, without the background.
    `report_epoch` gets each epoch's number and its figures. Validation uses the exponential moving
    average of the weights, which is also what is kept.
    """
    torch.set_num_threads(params.threads)
    card = ModelCard(params.architecture, ("background", *classes), params.size)
    with torch_seed(params.seed, "init"):
        model = build_model(card.architecture, len(card.classes))
    weights = load_pretrained(model, params.weights, card)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = params.norm_momentum
    model.to(device)
    optimizer = torch.optim.AdamW(parameter_groups(model, params.weight_decay), lr=params.lr)
    per_epoch = batches_per_epoch(len(train_pairs), params.batch_size)
    steps = per_epoch * params.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps, params.warmup)
    )
    average = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(params.ema_decay), use_buffers=True
    )
    augmentation = Augmentation(params.size, params.crop, params.scale, params.colour)
    loader = DataLoader(
        TrainingCrops(train_pairs, augmentation, params.seed),
        batch_sampler=list(
            training_batches(len(train_pairs), params.batch_size, range(params.epochs), params.seed)
        ),
        num_workers=workers,
        generator=torch.Generator(),  # the loader would draw from the global one
        pin_memory=device.type == "cuda",
    )
    batches = iter(loader)
    best: Mapping[str, Any] = {}
    best_state: Mapping[str, Tensor] = {}
    bar = tqdm(total=steps, unit="batch", mininterval=1)
    for epoch in range(params.epochs):
        model.train()
        total_loss = 0.0
        with torch_seed(params.seed, "dropout", epoch):
            for _ in range(per_epoch):
                images, labels = next(batches)
                logits = model(normalize(images.to(device), card))
                loss = segmentation_loss(logits, labels.to(device).long(), params)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                average.update_parameters(model)
                total_loss += loss.item()
                bar.update()
        confusion = confusion_of_pairs(
            average.module,
            card,
            val_pairs,
            batch_size=params.batch_size,
            workers=0,
            device=device,
        )
        scores = summarize_scores(confusion, card.classes)
        figures = {
            "epoch": epoch + 1,
            "loss": total_loss / per_epoch,
            "lr": schedule.get_last_lr()[0],
            "val": scores,
        }
        report_epoch(epoch, figures)
        bar.set_postfix(
            epoch=epoch + 1, loss=f"{figures['loss']:.3f}", miou=f"{scores['miou']:.3f}"
        )
        if not best or scores["miou"] > best["val"]["miou"]:
            best = figures
            best_state = copy.deepcopy(average.module.state_dict())
    bar.close()
    model.load_state_dict(best_state)
    rate = bar.format_dict["n"] * params.batch_size / bar.format_dict["elapsed"]
    return TrainingResult(model.eval().cpu(), card, best, rate, weights)
