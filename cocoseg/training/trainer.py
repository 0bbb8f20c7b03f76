"""The training loop: optimize, validate each epoch, keep the best weights, resume if interrupted.

All random numbers come from generators seeded by (seed, purpose, epoch). An epoch therefore does
not depend on what the process did before, and a resumed run ends with the same bytes as an
uninterrupted one.
"""

import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from cocoseg.core.errors import UserError
from cocoseg.core.progress import Progress
from cocoseg.core.seeding import generator
from cocoseg.inference.backends import TorchNetwork, normalize
from cocoseg.inference.batches import (
    Batch,
    confusion_of_samples,
    load_batches,
    predict_samples,
)
from cocoseg.inference.confusion import Confusion, summarize_scores
from cocoseg.inference.dataset import Sample
from cocoseg.models.networks import (
    ModelCard,
    SegmentationNetwork,
    build_model,
    estimate_norms,
    synchronize_norms,
)
from cocoseg.models.weights import has_pretraining_overlap, input_statistics, load_pretrained
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
from cocoseg.training.listener import EpochMetrics, TrainingListener, ValidationPrediction
from cocoseg.training.losses import frequency_weights, named_weights, segmentation_loss

logger = logging.getLogger(__name__)

_PREDICTION_INTERVAL = 5
"""Every this many epochs the listener gets predictions of the first validation images."""
_PREDICTIONS = 4
_NORM_CROPS = 64
"""The number of last crops from which batch norm statistics are estimated; more had no effect."""


class TrainingSummary(TypedDict):
    """The content of `metrics/train/metrics.json`.

    Attributes:
        epoch: the number of the best epoch, from 1.
        val: its mean IoU on the validation split, by the key `miou`.
        weights: the initial weights.
        pretraining_overlap: whether the initial weights may have been trained on test images:
            torchvision's COCO weights, and models fine-tuned from them, were trained on most of
            val2014.
    """

    epoch: int
    val: dict[str, float | None]
    weights: str
    pretraining_overlap: bool


@dataclass
class TrainingResult:
    """A trained network.

    Attributes:
        model: the network of the best epoch, in evaluation mode, on the CPU.
        card: its model card.
        history: the metrics of every epoch.
        started_from: the initial weights, in words.
        pretraining_overlap: see `TrainingSummary`.
        crops_per_second: the training speed, validation included.
    """

    model: SegmentationNetwork
    card: ModelCard
    history: Sequence[EpochMetrics]
    started_from: str
    pretraining_overlap: bool
    crops_per_second: float

    def summary(self) -> TrainingSummary:
        """Summarize the run."""
        best = best_epoch(self.history)
        return {
            "epoch": best + 1,
            "val": {"miou": self.history[best]["val"]["miou"]},
            "weights": self.started_from,
            "pretraining_overlap": self.pretraining_overlap,
        }


def best_epoch(history: Sequence[EpochMetrics]) -> int:
    """The first epoch, from 0, with the highest validation mean IoU; the last if undefined."""
    scores = [metrics["val"]["miou"] for metrics in history]
    defined = [score for score in scores if score is not None]
    return scores.index(max(defined)) if defined else len(scores) - 1


@contextmanager
def torch_seed(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed PyTorch's global generators (initial weights, dropout), and restore them afterwards."""
    # Without the list of devices, fork_rng warns if there are several GPUs.
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(int(generator(seed, *purpose).integers(1 << 62)))
        yield


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """The factor of the learning rate: linear warmup to 1, then half a cosine to 0.

    Args:
        step: the number of the step, from 0.
        steps: the number of steps of the run.
        warmup: the fraction of steps for the warmup.
    """
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def parameter_groups(
    model: nn.Module, weight_decay: float, backbone_lr_factor: float
) -> list[dict[str, Any]]:
    """Group the parameters of heads and backbone for the optimizer.

    Args:
        model: a network whose backbone is `model.backbone`.
        weight_decay: the weight decay of convolution kernels; norms and biases have none.
        backbone_lr_factor: the factor of the backbone's learning rate.

    Returns:
        Parameter groups with the additional key `lr_factor`, the heads first.
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
    """The state of a training run: the model, its EMA, the optimizer and the best weights so far.

    Attributes:
        card: the card of the model.
        params: section `train` of the parameters.
        device: the device of the model.
        model: the network.
        ema: the exponential moving average of its weights.
        ddp_model: the network to call in training; it synchronizes several processes.
        best: the EMA weights of the best epoch.
        history: the metrics of the finished epochs.
        started_from: the initial weights, in words.
    """

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
                card.architecture,
                len(card.classes),
                encoder=card.encoder,
                auxiliary=params.aux_weight > 0,
            )
        self.started_from = load_pretrained(self.model, params.weights, card)
        self.model.to(device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, params.weight_decay, params.backbone_lr_factor),
            lr=params.lr,
            fused=True,
        )
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(params.ema_decay))
        self.best: dict[str, Tensor] = {}
        self.history: list[EpochMetrics] = []
        self.ddp_model: nn.Module = self.model
        if process_count() > 1:
            if device.type == "cuda":
                self.model = synchronize_norms(self.model)
            self.ddp_model = DistributedDataParallel(self.model)
        if params.compile:
            self.ddp_model.compile()

    def ema_model(self) -> SegmentationNetwork:
        """The network with the EMA weights and batch norm statistics that match them."""
        model = self.ema.module
        assert isinstance(model, SegmentationNetwork)
        return model

    def network(self) -> TorchNetwork:
        """The network with the EMA weights, ready for inference."""
        return TorchNetwork(self.ema_model(), self.card, self.device)

    def train_epoch(self, batches: Iterable[Batch], steps: int, progress: Progress) -> float:
        """Train for one epoch.

        Args:
            batches: the batches of this process.
            steps: their number.
            progress: counts the crops of all processes.

        Returns:
            The mean loss.

        Raises:
            UserError: the loss is not finite, or compilation fails.
        """
        epoch = len(self.history)
        best = max((metrics["val"]["miou"] or 0.0 for metrics in self.history), default=0.0)
        total_steps = steps * self.params.epochs
        losses: list[Tensor] = []
        progress.details = lambda: (
            f"epoch {epoch + 1}/{self.params.epochs}, step {len(losses)}/{steps}, "
            f"loss {self.finite(losses[-1].item()):.3f}, best mean IoU {best:.3f}"
        )
        crops = self.params.batch_size // process_count()
        latest: deque[Tensor] = deque(maxlen=math.ceil(_NORM_CROPS / crops))
        self.ddp_model.train()
        with torch_seed(self.params.seed, "dropout", epoch, rank()):
            for step, (images, labels) in enumerate(batches, start=epoch * steps):
                factor = learning_rate_factor(step, total_steps, self.params.warmup)
                for group in self.optimizer.param_groups:
                    group["lr"] = self.params.lr * factor * group["lr_factor"]
                try:
                    losses.append(self.optimize(images, labels))
                except torch._dynamo.exc.TorchDynamoException as error:
                    reason = str(error).strip().partition("\n")[0]
                    raise UserError(f"train.compile: {reason}; set it to false") from None
                progress.update(len(images) * process_count())
                latest.append(images)
        loss = self.finite(float(np.mean(torch.stack(losses).tolist())))
        if not self.params.ema_decay:
            self.ema.update_parameters(self.model)
        self.estimate_norms(latest)
        return loss

    def finite(self, loss: float) -> float:
        """Return the loss; raise UserError if it is not finite, since it stays so."""
        if not math.isfinite(loss):
            raise UserError(
                f"train: the loss became {loss} in epoch {len(self.history) + 1}: "
                "lower train.lr, or raise train.warmup"
            )
        return loss

    def optimize(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take one step on a batch, uint8 (B, 3, H, W) and (B, H, W), and return its loss."""
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        loss = self.loss(images, labels)
        self.optimizer.zero_grad()
        (loss * process_count()).backward()
        self.optimizer.step()
        if self.params.ema_decay:  # without, the EMA is set at the end of the epoch
            self.ema.update_parameters(self.model)
        return loss.detach()

    def estimate_norms(self, batches: Iterable[Tensor]) -> None:
        """Estimate the batch norm statistics of the EMA weights on uint8 crops (B, 3, H, W).

        Running statistics lag behind the weights and do not match the EMA.
        """
        inputs = (normalize(images.to(self.device), self.card) for images in batches)
        estimate_norms(self.ema_model(), inputs)
        # The processes have seen different crops, but must validate the same network.
        broadcast_from_first(self.ema.module.buffers())

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of uint8 images (B, 3, H, W) and labels (B, H, W) over all processes."""
        reduced = self.params.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            logits = self.ddp_model(normalize(images, self.card))
        return segmentation_loss(
            logits,
            labels,
            aux_weight=self.params.aux_weight,
            dice_weight=self.params.dice_weight,
            class_weights=self.class_weights,
        )

    def finish_epoch(self, loss: float, confusion: Confusion) -> EpochMetrics:
        """Add an epoch to the history, and keep its EMA weights if they are the best so far."""
        metrics: EpochMetrics = {
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "val": summarize_scores(confusion, self.card.classes),
        }
        self.history.append(metrics)
        if best_epoch(self.history) == len(self.history) - 1:
            self.best = {k: v.detach().clone() for k, v in self.ema.module.state_dict().items()}
        return metrics

    def state(self) -> TrainingState:
        """The state from which `restore` resumes."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "history": self.history,
        }

    def restore(self, state: TrainingState) -> None:
        """Return to the end of the epoch in which `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
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
    listener: TrainingListener | None = None,
) -> TrainingResult:
    """Train a network, and keep the epoch with the best validation mean IoU.

    Validation uses the exponential moving average (EMA) of the weights, which is also the result.
    Under torchrun, all processes call this function with the same arguments.

    Args:
        classes: the class names in label order, without the background.
        train_samples: the samples to train on.
        val_samples: the samples to validate on.
        params: section `train` of the parameters.
        device: the device of this process.
        workers: the number of processes that load images.
        checkpoint: the file from which an interrupted run resumes; process 0 writes it.
        listener: receives metrics and predictions.

    Returns:
        The network of the best epoch and the metrics of all epochs.

    Raises:
        UserError: the batches are too small, the loss becomes infinite or NaN, an image is damaged,
            or a class weight names an unknown class.
    """
    torch.set_num_threads(params.threads)
    _check_batch_size(params, len(train_samples))
    mean, std = input_statistics(params.encoder, params.weights)
    card = ModelCard(
        params.architecture,
        ("background", *classes),
        params.size,
        mean,
        std,
        params.encoder,
        pretraining_overlap=has_pretraining_overlap(params.weights),
    )
    trainer = Trainer(card, params, device, _class_weights(card, params, train_samples, workers))
    # Only process 0 reads: others may be on different machines, and the file may change meanwhile.
    saved = from_first(checkpoint.load() if rank() == 0 else None, device)
    if saved:
        trainer.restore(saved)
        logger.info("resuming after epoch %d of an interrupted run", len(trainer.history))
    else:
        logger.info("starting from %s", trainer.started_from)
    for epoch, metrics in enumerate(trainer.history):
        if listener:
            listener.log_epoch(epoch, metrics, replayed=True)
    crops_per_second = _train_epochs(
        trainer, train_samples, val_samples, workers, checkpoint, listener
    )
    model = trainer.ema_model()
    model.load_state_dict(trainer.best)
    return TrainingResult(
        model.eval().cpu(),
        card,
        trainer.history,
        trainer.started_from,
        pretraining_overlap=card.pretraining_overlap,
        crops_per_second=crops_per_second,
    )


def _check_batch_size(params: TrainParams, images: int) -> None:
    processes = process_count()
    if params.batch_size % processes:
        raise UserError(
            f"train.batch_size: {params.batch_size} is not divisible by {processes} processes"
        )
    per_process = min(params.batch_size, images) // processes
    required = 1 if params.architecture.startswith("lraspp") else 2
    if per_process < required:
        raise UserError(
            f"train: {images} images in batches of {params.batch_size} leave {per_process} per "
            f"process ({processes} processes), but {params.architecture} requires {required}: "
            "raise train.batch_size, lower train.processes, or select more images"
        )


def _class_weights(
    card: ModelCard, params: TrainParams, samples: Sequence[Sample], workers: int
) -> Tensor | None:
    """The weights (classes,) of `train.class_weights`, if any."""
    if isinstance(params.class_weights, dict):
        return named_weights(params.class_weights, card.classes)
    if params.class_weights == "frequency":
        return frequency_weights(count_pixels(samples, workers)[: len(card.classes)])
    return None


def _train_epochs(
    trainer: Trainer,
    train_samples: Sequence[Sample],
    val_samples: Sequence[Sample],
    workers: int,
    checkpoint: CheckpointFile,
    listener: TrainingListener | None,
) -> float:
    """Train the remaining epochs, and return the speed in crops per second."""
    params, first = trainer.params, len(trainer.history)
    steps = batches_per_epoch(len(train_samples), params.batch_size)
    batches = _training_loader(trainer, train_samples, workers)
    started = time.perf_counter()
    crops = steps * min(params.batch_size, len(train_samples))  # in an epoch
    with Progress("training", crops * params.epochs, done=crops * first) as progress:
        for epoch in range(first, params.epochs):
            loss = trainer.train_epoch(itertools.islice(batches, steps), steps, progress)
            metrics = trainer.finish_epoch(loss, _validate(trainer, val_samples, workers))
            if rank() == 0:
                checkpoint.save(trainer.state())
            if listener and (epoch + 1) % _PREDICTION_INTERVAL == 0 and rank() == 0:
                listener.log_predictions(epoch, _predictions(trainer, val_samples[:_PREDICTIONS]))
            if listener:
                listener.log_epoch(epoch, metrics)
            progress.clear()
            miou = metrics["val"]["miou"]
            shown = "undefined" if miou is None else f"{miou:.3f}"
            logger.info(
                "epoch %d/%d: loss %.3f, validation mean IoU %s",
                *(epoch + 1, params.epochs, loss, shown),
            )
    return round(crops * (params.epochs - first) / (time.perf_counter() - started), 2)


def _training_loader(trainer: Trainer, samples: Sequence[Sample], workers: int) -> Iterator[Batch]:
    """This process's part of the batches of the remaining epochs."""
    params, first = trainer.params, len(trainer.history)
    augmentation = Augmentation(params.size, params.crop, params.scale, params.color_jitter)
    keys = training_batches(
        len(samples), params.batch_size, range(first, params.epochs), params.seed
    )
    loader = DataLoader(
        TrainingCrops(samples, augmentation, params.seed),
        batch_sampler=[batch[rank() :: process_count()] for batch in keys],
        num_workers=workers,
        pin_memory=trainer.device.type == "cuda",
        generator=torch.Generator(),  # by default, the loader draws from the global generator
    )
    return load_batches(loader)


def _predictions(trainer: Trainer, samples: Sequence[Sample]) -> list[ValidationPrediction]:
    return [
        ValidationPrediction(
            samples[found.index].read()[0].permute(1, 2, 0).numpy(),
            found.ground_truth.numpy(),
            found.labels.numpy(),
        )
        for found in predict_samples(trainer.network(), samples, batch_size=1, workers=0)
    ]


def _validate(trainer: Trainer, samples: Sequence[Sample], workers: int) -> Confusion:
    """The confusion matrix of the EMA weights over all samples, divided among the processes."""
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
