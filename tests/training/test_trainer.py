"""The training loop: it learns, keeps the best epoch, resumes, and is reproducible."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cocoseg.core.errors import UserError
from cocoseg.core.labels import write_mask
from cocoseg.core.progress import Progress
from cocoseg.inference.backends import TorchNetwork, normalize
from cocoseg.inference.batches import confusion_of_samples
from cocoseg.inference.confusion import count_confusion, mean_iou, summarize_scores
from cocoseg.inference.dataset import Sample
from cocoseg.models.networks import ModelCard, build_model
from cocoseg.training.losses import segmentation_loss
from cocoseg.training.trainer import (
    Trainer,
    best_epoch,
    learning_rate_factor,
    parameter_groups,
    torch_seed,
)
from tests.samples import draw_samples
from tests.training_runs import DEVICE, Run, checkpoint_of, params, run

pytestmark = pytest.mark.xdist_group("training")

NAMES = ("background", "red", "blue")


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return draw_samples(tmp_path)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three epochs."""
    return run(draw_samples(tmp_path_factory.mktemp("uninterrupted")))


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one epoch, while the global seed is 1."""
    torch.manual_seed(1)
    return run(draw_samples(tmp_path_factory.mktemp("one_epoch")), epochs=1)


def assert_same_weights(first: Run, second: Run) -> None:
    for key, value in first.result.model.state_dict().items():
        assert torch.equal(value, second.result.model.state_dict()[key]), key


def test_training_learns_the_classes_and_reports_predictions(samples: list[Sample]) -> None:
    short = {"epochs": 20, "ema_decay": 0.5}
    trained = run(samples, size=64, crop=64, scale=[1.0, 1.0], **short)
    assert trained.epochs[-1]["loss"] < trained.epochs[0]["loss"] / 2
    assert trained.result.summary()["val"]["miou"] > 0.6
    assert list(trained.predictions) == [4, 9, 14, 19]
    confusion = np.zeros((3, 3), np.int64)
    for sample, found in zip(samples[:2], trained.predictions[19], strict=True):
        image, labels = sample.read()
        assert np.array_equal(found.image, image.permute(1, 2, 0))
        assert np.array_equal(found.ground_truth, labels)
        confusion += count_confusion(found.ground_truth, found.prediction, 3)
    assert mean_iou(confusion) == pytest.approx(trained.epochs[19]["val"]["miou"], abs=1e-3)


def test_validation_recognizes_all_classes_from_the_second_epoch_on(samples: list[Sample]) -> None:
    """With batch norm statistics that lag behind the EMA, everything would be background."""
    short = {"epochs": 6, "ema_decay": 0.9, "lr": 0.002, "warmup": 0.0}
    trained = run(samples, size=96, crop=96, scale=[1.0, 1.0], **short)
    for metrics in trained.epochs[1:]:
        assert min(metrics["val"]["iou"].values()) > 0.1, metrics


def test_the_result_is_the_network_of_the_best_epoch(
    samples: list[Sample], uninterrupted: Run
) -> None:
    result, epochs = uninterrupted.result, uninterrupted.epochs
    best = max(metrics["val"]["miou"] for metrics in epochs)
    summary = result.summary()
    assert summary["val"]["miou"] == best == epochs[summary["epoch"] - 1]["val"]["miou"]
    network = TorchNetwork(result.model, result.card, DEVICE)
    kept = confusion_of_samples(network, samples[:2], batch_size=1, workers=0)
    assert mean_iou(kept) == pytest.approx(best, abs=1e-6)
    assert not result.model.training
    assert (summary["weights"], summary["pretraining_overlap"]) == ("random weights", False)
    last_steps = [learning_rate_factor(step, 6, params().warmup) for step in (1, 3, 5)]
    assert [m["lr"] for m in epochs] == pytest.approx([params().lr * f for f in last_steps])


def test_only_a_better_epoch_replaces_the_best_weights() -> None:
    trainer = Trainer(ModelCard(params().architecture, NAMES, 48), params(), DEVICE)
    bias = trainer.ema_model().classifier[4].bias
    for number, hits in enumerate([1, 5, 5, 3]):
        bias.data.fill_(number)
        trainer.finish_epoch(1.0, np.diag([10, hits, 10]) + np.eye(3, k=1, dtype=np.int64))
    assert (trainer.best["classifier.4.bias"] == 1).all()


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.2, 0.5, 0.5, 0.4], 1),
        ([0.0, 0.0], 0),
        ([None, 0.0, None], 1),
        ([None, None, None], 2),
        ([None], 0),
    ],
)
def test_the_best_epoch_is_the_last_one_if_no_score_is_defined(
    scores: list[float | None], best: int
) -> None:
    history: Any = [{"val": {"miou": score}} for score in scores]
    assert best_epoch(history) == best


def test_training_ends_well_on_validation_masks_without_classes(
    samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    for sample in samples[:2]:
        write_mask(sample.mask, np.zeros((96, 96), np.uint8))
    with caplog.at_level("INFO"):
        trained = run(samples, epochs=2)
    summary = trained.result.summary()
    assert (summary["epoch"], summary["val"]) == (2, {"miou": None})
    assert [metrics["val"]["miou"] for metrics in trained.epochs] == [None, None]
    assert sum("validation mean IoU undefined" in message for message in caplog.messages) == 2
    network = TorchNetwork(trained.result.model, trained.result.card, DEVICE)
    last = confusion_of_samples(network, samples[:2], batch_size=1, workers=0)
    assert summarize_scores(last, NAMES) == trained.epochs[-1]["val"]


@pytest.mark.parametrize("decay", [0.0, 0.75])
def test_the_ema_averages_the_weights_of_all_steps(decay: float) -> None:
    """Without a decay, the EMA has the weights of the last step."""
    trainer = Trainer(
        ModelCard(params().architecture, NAMES, 48), params(ema_decay=decay, warmup=0.0), DEVICE
    )
    after_step, seeds = [], []

    class Steps(Progress):
        def update(self, count: int = 1) -> None:
            seeds.append(torch.initial_seed())
            after_step.append(trainer.model.classifier[4].bias.detach().clone())

    batch = torch.zeros(2, 3, 48, 48, dtype=torch.uint8), torch.ones(2, 48, 48, dtype=torch.uint8)
    trainer.train_epoch([batch] * 3, 3, Steps("training"))
    first, second, third = after_step
    assert not torch.equal(second, third)
    expected = decay * (decay * first + (1 - decay) * second) + (1 - decay) * third
    torch.testing.assert_close(trainer.ema_model().classifier[4].bias.detach(), expected)
    trainer.finish_epoch(1.0, np.eye(3, dtype=np.int64))
    trainer.train_epoch([batch], 3, Steps("training"))
    assert len(set(seeds)) == 2  # dropout differs between epochs


def test_the_loss_has_the_weights_of_the_parameters() -> None:
    card, class_weights = ModelCard(params().architecture, NAMES, 48), torch.tensor([1.0, 2, 3])
    weights = {"aux_weight": 0.25, "dice_weight": 0.75}
    trainer = Trainer(card, params(**weights), DEVICE, class_weights)
    for module in trainer.model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 48, 48), generator=random, dtype=torch.uint8).to(DEVICE)
    labels = torch.randint(0, 3, (2, 48, 48), generator=random, dtype=torch.uint8).to(DEVICE)
    logits = trainer.model(normalize(images, card))
    assert set(logits) == {"out", "aux"}
    expected = segmentation_loss(logits, labels, **weights, class_weights=class_weights.to(DEVICE))
    torch.testing.assert_close(trainer.loss(images, labels), expected)


def test_weights_do_not_depend_on_the_number_of_workers(
    samples: list[Sample], uninterrupted: Run
) -> None:
    assert_same_weights(uninterrupted, run(samples, workers=2))


def test_weights_depend_on_the_seed(samples: list[Sample], one_epoch: Run) -> None:
    first, second = one_epoch.result, run(samples, epochs=1, seed=1).result
    key = "classifier.4.weight"
    assert not torch.equal(first.model.state_dict()[key], second.model.state_dict()[key])


def test_the_global_random_state_is_neither_used_nor_changed(
    samples: list[Sample], one_epoch: Run
) -> None:
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = run(samples, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_weights(one_epoch, second)


def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine_to_zero() -> None:
    factors = [learning_rate_factor(step, 100, 0.2) for step in range(101)]
    assert factors[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert factors[20] == max(factors) == 1
    assert factors[40] == pytest.approx((1 + 0.5**0.5) / 2)  # a quarter of the way: 45 degrees
    assert all(after <= before for before, after in itertools.pairwise(factors[20:]))
    assert factors[-1] == pytest.approx(0)


def test_only_kernels_have_weight_decay_and_only_the_backbone_has_another_learning_rate() -> None:
    model = build_model("deeplabv3_mobilenet_v3_large", 3)
    groups = parameter_groups(model, weight_decay=0.1, backbone_lr_factor=0.5)
    found = {
        id(parameter): (group["weight_decay"], group["lr_factor"])
        for group in groups
        for parameter in group["params"]
    }
    assert len(found) == sum(len(group["params"]) for group in groups)
    for name, parameter in model.named_parameters():
        decay = 0.1 if name.endswith(".weight") and parameter.ndim == 4 else 0.0
        factor = 0.5 if name.startswith("backbone.") else 1.0
        assert found[id(parameter)] == (decay, factor), name


def test_a_backbone_with_a_learning_rate_near_zero_does_not_change(samples: list[Sample]) -> None:
    start = {"weights": "none", "weight_decay": 0.0, "ema_decay": 0.0, "epochs": 1}
    still, moving = (
        run(samples, backbone_lr_factor=factor, **start).result for factor in (1e-12, 1.0)
    )
    with torch_seed(0, "init"):
        before = build_model("deeplabv3_mobilenet_v3_large", 3).state_dict()
    key = "backbone.0.0.weight"
    torch.testing.assert_close(still.model.state_dict()[key], before[key])
    assert not torch.allclose(moving.model.state_dict()[key], before[key])
    head = "classifier.4.weight"
    assert not torch.allclose(still.model.state_dict()[head], before[head])


class Interrupted(Exception):
    pass


def interrupt(samples: list[Sample], last: int) -> None:
    """Run until the end of an epoch."""

    def after_epoch(epoch: int) -> None:
        if epoch == last:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(samples, after_epoch=after_epoch)


def test_an_interrupted_run_resumes_and_ends_with_the_same_weights(
    samples: list[Sample], uninterrupted: Run
) -> None:
    interrupt(samples, last=0)
    interrupt(samples, last=1)
    resumed = run(samples)
    assert resumed.replayed == [0, 1]
    assert resumed.epochs == uninterrupted.epochs
    assert resumed.result.summary() == uninterrupted.result.summary()
    assert_same_weights(uninterrupted, resumed)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    samples: list[Sample],
) -> None:
    interrupt(samples, last=0)
    saved = checkpoint_of(samples).path.read_bytes()
    with pytest.raises(UserError, match=r"the loss became .* in epoch 2: lower train\.lr"):
        run(samples, lr=1e30)
    assert checkpoint_of(samples).path.read_bytes() == saved


def test_a_batch_of_one_image_is_refused_where_batch_norm_requires_two(
    samples: list[Sample],
) -> None:
    with pytest.raises(UserError, match=r"leave 1 per process .* requires 2: raise"):
        run(samples[:1], epochs=1)
    trained = run(samples[:1], epochs=1, architecture="lraspp_mobilenet_v3_large", aux_weight=0.0)
    assert len(trained.result.history) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(samples: list[Sample], workers: int) -> None:
    samples[3].image.write_bytes(samples[3].image.read_bytes()[:500])
    with pytest.raises(UserError, match=r"^[^\n]*3\.jpg[^\n]*$"):
        run(samples, workers=workers, epochs=1)


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("deeplabv3plus_mobilenet_v3_large", None),
        ("lraspp_mobilenet_v3_large", None),
        ("deeplabv3_resnet50", None),
        ("fcn_resnet50", None),
        ("segformer", "mit_b0"),
        ("fpn", "tu-tf_efficientnet_lite0"),
    ],
)
def test_all_parameters_of_other_architectures_are_trained(
    samples: list[Sample], architecture: str, encoder: str | None
) -> None:
    result = run(samples, architecture=architecture, encoder=encoder, epochs=1, crop=64).result
    assert result.card.architecture == architecture
    trained = dict(result.model.named_parameters())
    with torch_seed(0, "init"):
        initial = build_model(architecture, 3, encoder=encoder, auxiliary=True)
    for name, parameter in initial.named_parameters():
        assert not torch.equal(parameter, trained[name]), name


def test_class_weights_change_the_loss(samples: list[Sample]) -> None:
    losses = [
        run(samples, epochs=1, class_weights=weights).epochs[0]["loss"]
        for weights in ("none", "frequency", {"red": 9.0}, {"red": 1.0})
    ]
    assert len(set(losses)) == 3
    assert losses[0] == losses[3]
    with pytest.raises(UserError, match="unknown class pink"):
        run(samples, epochs=1, class_weights={"pink": 2.0})


def test_bfloat16_changes_the_loss_only_slightly(samples: list[Sample], one_epoch: Run) -> None:
    exact = one_epoch.epochs[0]["loss"]
    loss = run(samples, epochs=1, precision="bfloat16").epochs[0]["loss"]
    assert loss != exact
    assert loss == pytest.approx(exact, rel=0.05)


class RecordedOperations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "architecture",
    [
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3plus_mobilenet_v3_large",
        "lraspp_mobilenet_v3_large",
        "deeplabv3_resnet50",
    ],
)
def test_a_step_uses_only_operations_that_are_deterministic_on_cuda(architecture: str) -> None:
    """`torch.use_deterministic_algorithms` rejects the others or warns about them."""
    card = ModelCard(architecture, ("background", "red"), 64)
    trainer = Trainer(card, params(architecture=architecture), torch.device("cpu"))
    with RecordedOperations() as recorded:
        trainer.model.train()
        trainer.optimize(
            torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.ones(2, 64, 64, dtype=torch.uint8)
        )
    assert "convolution_backward" in recorded.names
    refused = ("upsample", "nll_loss2d", "adaptive", "scatter", "index_add", "put_", "histc")
    found = {name for name in recorded.names if name.lstrip("_").startswith(refused)}
    assert not found
