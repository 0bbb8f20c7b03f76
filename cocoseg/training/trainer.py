"""The training loop: optimise, validate each epoch, keep the best, go on after an interruption.

Everything random comes from generators seeded by (seed, purpose, epoch), so that an epoch does the
same whatever ran before it in the process: a resumed run ends with the bytes of an uninterrupted
one.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from cocoseg.core.errors import UserError
from cocoseg.core.labels import Labels
from cocoseg.core.seeding import generator
from cocoseg.inference.backends import TorchNetwork, normalize
from cocoseg.inference.batches import confusion_of_samples, load_batches, predict_samples
from cocoseg.inference.confusion import Confusion, summarize_scores
from cocoseg.inference.dataset import Sample
from cocoseg.models.networks import ModelCard, SegmentationNetwork, build_model, estimate_norms
from cocoseg.models.weights import load_pretrained
from cocoseg.params.train import TrainParams
from cocoseg.training.augmentation import (
    Augmentation,
    TrainingCrops,
    batches_per_epoch,
    count_pixels,
    training_batches,
)
from cocoseg.training.checkpoint import CheckpointFile, TrainingState
from cocoseg.training.distributed import broadcast_from_first, from_first, process_count, rank
from cocoseg.training.losses import frequency_weights, named_weights, segmentation_loss

logger = logging.getLogger(__name__)

Figures = Mapping[str, Any]
View = tuple[NDArray[np.uint8], Labels, Labels]
"""A photo (H, W, 3), its true labels and its predicted ones."""

_VIEWS = 4
_NORM_CROPS = 64
"""How many of an epoch's last crops batch norm's statistics come from; more changed no score."""
_STEPS_UNWATCHED = 20
"""How many steps a GPU is given before the loss is looked at, which waits for it."""


@dataclass
class TrainingResult:
    """The network of the best epoch, in evaluation mode on the CPU, and every epoch's figures."""

    model: SegmentationNetwork
    card: ModelCard
    history: Sequence[Figures]
    started_from: str
    pretraining_overlap: bool
    crops_per_second: float

    def summary(self) -> dict[str, Any]:
        """Which epoch is kept, and what the run started from: `metrics/train/metrics.json`.

        torchvision's COCO weights have seen most of val2014: scores on it are optimistic.
        """
        best = best_epoch(self.history)
        return {
            "epoch": best + 1,
            "val": {"miou": self.history[best]["val"]["miou"]},
            "weights": self.started_from,
            "pretraining_overlap": self.pretraining_overlap,
        }


def best_epoch(history: Sequence[Figures]) -> int:
    """The first epoch, from 0, with the highest validation mean IoU."""
    return max(range(len(history)), key=lambda epoch: history[epoch]["val"]["miou"])


@contextmanager
def torch_seed(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's own generators (initial weights, dropout) inside the block only."""
    # Several GPUs that are not named are warned of.
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(int(generator(seed, *purpose).integers(1 << 62)))
        yield


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """One cycle: a linear rise over the share `warmup` of the steps, then half a cosine to zero."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def parameter_groups(
    model: nn.Module, weight_decay: float, backbone_lr_factor: float
) -> list[dict[str, Any]]:
    """The heads', then the backbone's parameters for the optimiser, with their "lr_factor".

    Weight decay is for convolution kernels only, not for norms and biases.
    """
    groups = []
    for in_backbone, lr_factor in ((False, 1.0), (True, backbone_lr_factor)):
        parameters = [
            parameter
            for name, parameter in model.named_parameters()
            if name.startswith("backbone.") is in_backbone
        ]
        for is_kernel, decay in ((True, weight_decay), (False, 0.0)):
            members = [p for p in parameters if (p.ndim > 1) is is_kernel]
            groups.append({"params": members, "weight_decay": decay, "lr_factor": lr_factor})
    return groups


class Trainer:
    """The state of a run between two epochs, and what moves it on by one."""

    def __init__(
        self,
        card: ModelCard,
        params: TrainParams,
        device: torch.device,
        class_weights: Tensor | None = None,
    ) -> None:
        self.card = card
        self.params = params
        self.device = device
        self.class_weights = None if class_weights is None else class_weights.to(device)
        with torch_seed(params.seed, "init"):
            self.model = build_model(
                card.architecture, len(card.classes), auxiliary=params.aux_weight > 0
            )
        self.started_from = load_pretrained(self.model, params.weights, card)
        self.model.to(device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, params.weight_decay, params.backbone_lr_factor),
            lr=params.lr,
            fused=True,
        )
        self.average = AveragedModel(
            self.model, multi_avg_fn=get_ema_multi_avg_fn(params.ema_decay)
        )
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []
        self.in_parallel: nn.Module = self.model
        if process_count() > 1:
            if device.type == "cuda":
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            self.in_parallel = DistributedDataParallel(self.model)
        if params.compile:
            self.in_parallel.compile()

    def averaged_model(self) -> SegmentationNetwork:
        """The network with the moving average of the weights, and statistics that fit them."""
        model = self.average.module
        assert isinstance(model, SegmentationNetwork)
        return model

    def network(self) -> TorchNetwork:
        """`averaged_model`, ready to run."""
        return TorchNetwork(self.averaged_model(), self.card, self.device)

    def train_epoch(self, batches: Iterable[tuple[Tensor, Tensor]], steps: int, bar: Any) -> float:
        """One pass over an epoch's batches of `steps`; returns the mean loss."""
        epoch = len(self.history)
        best = max((figures["val"]["miou"] for figures in self.history), default=0.0)
        total_steps = steps * self.params.epochs
        losses: list[Tensor] = []
        crops = self.params.batch_size // process_count()
        latest: deque[Tensor] = deque(maxlen=math.ceil(_NORM_CROPS / crops))
        self.in_parallel.train()
        with torch_seed(self.params.seed, "dropout", epoch, rank()):
            for step, (images, labels) in enumerate(batches, start=epoch * steps):
                factor = learning_rate_factor(step, total_steps, self.params.warmup)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.params.lr * factor * group["lr_factor"]
                try:
                    losses.append(self.optimize(images, labels))
                except torch._dynamo.exc.TorchDynamoException as error:
                    reason = str(error).strip().partition("\n")[0]
                    raise UserError(f"train.compile: {reason}; false needs none") from None
                if len(losses) % _STEPS_UNWATCHED == 1:
                    bar.set_postfix(
                        epoch=f"{epoch + 1}/{self.params.epochs}",
                        loss=f"{self.finite(losses[-1].item()):.3f}",
                        miou=f"{best:.3f}",
                        refresh=False,
                    )
                bar.update()
                latest.append(images)
        loss = self.finite(float(np.mean(torch.stack(losses).tolist())))
        if not self.params.ema_decay:
            self.average.update_parameters(self.model)
        self.estimate_norms(latest)
        return loss

    def finite(self, loss: float) -> float:
        """The loss; UserError if it is not finite, as all are after the first that is not."""
        if not math.isfinite(loss):
            raise UserError(
                f"train: the loss became {loss} in epoch {len(self.history) + 1}: "
                "lower train.lr, or raise train.warmup"
            )
        return loss

    def optimize(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step on a batch, uint8 (B, 3, H, W) and (B, H, W); returns its loss."""
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        loss = self.loss(images, labels)
        self.optimizer.zero_grad()
        (loss * process_count()).backward()
        self.optimizer.step()
        if self.params.ema_decay:  # without, only the weights at an epoch's end count
            self.average.update_parameters(self.model)
        return loss.detach()

    def estimate_norms(self, batches: Iterable[Tensor]) -> None:
        """Give the averaged network batch norm's statistics over uint8 crops (B, 3, H, W).

        The running ones lag behind the weights and are not those of the averaged weights.
        """
        inputs = (normalize(images.to(self.device), self.card) for images in batches)
        estimate_norms(self.averaged_model(), inputs)
        # Each process has seen crops of its own, but one set is saved.
        broadcast_from_first(self.average.module.buffers())

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of uint8 images (B, 3, H, W) and labels (B, H, W), over all processes."""
        reduced = self.params.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            logits = self.in_parallel(normalize(images, self.card))
        return segmentation_loss(
            logits,
            labels,
            aux_weight=self.params.aux_weight,
            dice_weight=self.params.dice_weight,
            class_weights=self.class_weights,
        )

    def finish_epoch(self, loss: float, confusion: Confusion) -> dict[str, Any]:
        """Note an epoch's figures, and its averaged weights if they are the best so far."""
        scores = summarize_scores(confusion, self.card.classes)
        figures = {
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "val": scores,
        }
        self.history.append(figures)
        if best_epoch(self.history) == len(self.history) - 1:
            self.best = {k: v.detach().clone() for k, v in self.average.module.state_dict().items()}
        return figures

    def state(self) -> TrainingState:
        """Everything that the next epoch builds on."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "history": self.history,
        }

    def restore(self, state: TrainingState) -> None:
        """Go back to the end of the epoch after which `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = {name: tensor.to(self.device) for name, tensor in state["best"].items()}
        self.history = state["history"]


def train(
    classes: Sequence[str],
    train_samples: Sequence[Sample],
    val_samples: Sequence[Sample],
    params: TrainParams,
    *,
    device: torch.device,
    workers: int,
    checkpoint: CheckpointFile,
    report_epoch: Callable[[int, Figures, bool], None],
    report_predictions: Callable[[int, Sequence[View]], None] | None = None,
) -> TrainingResult:
    """Train a network and return that of the epoch with the best validation mean IoU.

    `classes` are the classes' names in label order, without the background. Validation uses the
    exponential moving average of the weights, which is also what is kept. `report_epoch` gets the
    number and the figures of every epoch, and whether it is one from before an interruption, told
    again; before it, every fifth epoch, `report_predictions` gets a few validation photos. Under
    torchrun, all processes call this alike, and process 0 alone writes the checkpoint.
    """
    torch.set_num_threads(params.threads)
    if params.batch_size % process_count():
        raise UserError(
            f"train.batch_size: {params.batch_size} is not divisible by {process_count()} processes"
        )
    per_process = min(params.batch_size, len(train_samples)) // process_count()
    if per_process < (1 if params.architecture.startswith("lraspp") else 2):
        raise UserError(
            f"train: {len(train_samples)} images and batches of {params.batch_size} leave {per_process} to "
            f"each of {process_count()} processes, and {params.architecture} learns from two at "
            "least: raise train.batch_size, lower train.processes, or select more images"
        )
    card = ModelCard(params.architecture, ("background", *classes), params.size)
    trainer = Trainer(card, params, device, _class_weights(card, params, train_samples, workers))
    # Process 0 may be on a machine of its own, and another run may replace the file at any time.
    saved = from_first(checkpoint.load() if rank() == 0 else None, device)
    if saved:
        trainer.restore(saved)
        logger.info("going on after epoch %d of an interrupted run", len(trainer.history))
    else:
        logger.info("starting from %s", trainer.started_from)
    for epoch, figures in enumerate(trainer.history):
        report_epoch(epoch, figures, True)
    first = len(trainer.history)
    per_epoch = batches_per_epoch(len(train_samples), params.batch_size)
    keys = training_batches(
        len(train_samples), params.batch_size, range(first, params.epochs), params.seed
    )
    loader = DataLoader(
        TrainingCrops(
            train_samples,
            Augmentation(params.size, params.crop, params.scale, params.color_jitter),
            params.seed,
        ),
        batch_sampler=[batch[rank() :: process_count()] for batch in keys],
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # the loader would draw from the global one
    )
    batches = load_batches(loader)
    started = time.perf_counter()
    bar = tqdm(
        total=per_epoch * params.epochs,
        initial=per_epoch * first,
        unit="batch",
        disable=True if rank() else None,  # None: no bar where there is no terminal
    )
    with bar:
        for epoch in range(first, params.epochs):
            of_epoch = (next(batches) for _ in range(per_epoch))
            loss = trainer.train_epoch(of_epoch, per_epoch, bar)
            confusion = _validate(trainer, val_samples, workers)
            figures = trainer.finish_epoch(loss, confusion)
            if rank() == 0:
                checkpoint.save(trainer.state())
            if report_predictions and (epoch + 1) % 5 == 0 and rank() == 0:
                report_predictions(epoch, _views(trainer, val_samples[:_VIEWS]))
            report_epoch(epoch, figures, False)
            bar.clear()
            logger.info(
                "epoch %d/%d: loss %.3f, validation mean IoU %.3f",
                epoch + 1,
                params.epochs,
                loss,
                figures["val"]["miou"],
            )
    crops = per_epoch * params.batch_size * (params.epochs - first)
    rate = round(crops / (time.perf_counter() - started), 2)
    model = trainer.averaged_model()
    model.load_state_dict(trainer.best)
    return TrainingResult(
        model.eval().cpu(),
        card,
        trainer.history,
        trainer.started_from,
        pretraining_overlap=params.weights == "coco",
        crops_per_second=rate,
    )


def _class_weights(
    card: ModelCard, params: TrainParams, samples: Sequence[Sample], workers: int
) -> Tensor | None:
    """The weights (classes,) that `train.class_weights` asks for."""
    if isinstance(params.class_weights, dict):
        return named_weights(params.class_weights, card.classes)
    if params.class_weights == "frequency":
        return frequency_weights(count_pixels(samples, workers)[: len(card.classes)])
    return None


def _views(trainer: Trainer, samples: Sequence[Sample]) -> list[View]:
    predictions = predict_samples(trainer.network(), samples, batch_size=1, workers=0)
    return [
        (
            samples[found.index].read()[0].permute(1, 2, 0).numpy(),
            found.ground_truth.numpy(),
            found.labels.numpy(),
        )
        for found in predictions
    ]


def _validate(trainer: Trainer, samples: Sequence[Sample], workers: int) -> Confusion:
    """The confusion matrix of the averaged weights over all pairs, shared among the processes."""
    confusion = confusion_of_samples(
        trainer.network(),
        samples[rank() :: process_count()],
        batch_size=trainer.params.batch_size,
        workers=workers,
    )
    if process_count() == 1:
        return confusion
    total = torch.from_numpy(confusion).to(trainer.device)
    dist.all_reduce(total)
    return total.cpu().numpy()
