"""The training loop: it learns, keeps the best epoch, and does the same thing twice."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cocoseg.core.errors import UserError
from cocoseg.inference.batches import confusion_of_samples
from cocoseg.inference.confusion import mean_iou
from cocoseg.inference.dataset import Sample
from cocoseg.models.networks import ModelCard, build_model
from cocoseg.training.trainer import (
    Trainer,
    learning_rate_factor,
    parameter_groups,
    torch_seed,
)
from tests.samples import draw_samples
from tests.training_runs import DEVICE, Run, params, run

pytestmark = pytest.mark.xdist_group("training")


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return draw_samples(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run on such photos."""
    return run(draw_samples(tmp_path_factory.mktemp("whole")))


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one epoch, beside random numbers of seed 1."""
    torch.manual_seed(1)
    return run(draw_samples(tmp_path_factory.mktemp("one_epoch")), epochs=1)


def test_it_learns_what_the_photos_show(samples: list[Sample]) -> None:
    short = {"epochs": 20, "ema_decay": 0.5}
    result, epochs = run(samples, size=64, crop=64, scale=[1.0, 1.0], **short)
    assert epochs[-1]["loss"] < epochs[0]["loss"] / 2
    assert result.summary()["val"]["miou"] > 0.6


def test_validation_sees_what_has_been_learnt_from_the_first_epochs_on(
    samples: list[Sample],
) -> None:
    """Statistics that lag behind the averaged weights would call everything background."""
    short = {"epochs": 6, "ema_decay": 0.9, "lr": 0.002, "warmup": 0.0}
    _, epochs = run(samples, size=96, crop=96, scale=[1.0, 1.0], **short)
    for figures in epochs[1:]:
        assert min(figures["val"]["iou"].values()) > 0.1, figures


def test_the_best_epoch_is_the_one_that_is_kept(samples: list[Sample], whole: Run) -> None:
    result, epochs = whole
    best = max(figures["val"]["miou"] for figures in epochs)
    summary = result.summary()
    assert summary["val"]["miou"] == best == epochs[summary["epoch"] - 1]["val"]["miou"]
    kept = confusion_of_samples(
        result.model,
        result.card,
        samples[:2],
        batch_size=1,
        workers=0,
        device=DEVICE,
    )
    assert mean_iou(kept) == pytest.approx(best, abs=1e-6)


def test_two_runs_give_the_same_weights_whatever_the_number_of_workers(
    samples: list[Sample], whole: Run
) -> None:
    (first, _), (second, _) = whole, run(samples, workers=2)
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key


def test_another_seed_gives_other_weights(samples: list[Sample], one_epoch: Run) -> None:
    (first, _), (second, _) = one_epoch, run(samples, epochs=1, seed=1)
    key = "classifier.4.weight"
    assert not torch.equal(first.model.state_dict()[key], second.model.state_dict()[key])


def test_global_random_state_is_neither_used_nor_changed(
    samples: list[Sample], one_epoch: Run
) -> None:
    first, _ = one_epoch
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second, _ = run(samples, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    key = "classifier.4.weight"
    assert torch.equal(first.model.state_dict()[key], second.model.state_dict()[key])


def test_the_learning_rate_rises_in_a_line_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, 100, 0.2) for step in range(101)]
    assert factors[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert max(factors) == 1
    assert all(after <= before for before, after in itertools.pairwise(factors[20:]))
    assert factors[-1] == pytest.approx(0)


def test_norms_and_biases_are_not_decayed_and_the_backbone_learns_at_its_own_rate() -> None:
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


def test_a_backbone_of_rate_near_zero_stays_what_it_was(samples: list[Sample]) -> None:
    start = {"weights": "none", "weight_decay": 0.0, "ema_decay": 0.0, "epochs": 1}
    (still, _), (moving, _) = (
        run(samples, backbone_lr_factor=factor, **start) for factor in (1e-12, 1.0)
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


def test_an_interrupted_run_goes_on_and_ends_with_the_same_weights(
    samples: list[Sample], whole: Run
) -> None:
    """Interrupted after the first epoch, and then after the one with which it went on."""
    for last in (0, 1):

        def interrupt(epoch: int, last: int = last) -> None:
            if epoch == last:
                raise Interrupted

        with pytest.raises(Interrupted):
            run(samples, after_epoch=interrupt)
    resumed, resumed_epochs = run(samples)
    uninterrupted, uninterrupted_epochs = whole
    assert resumed_epochs == uninterrupted_epochs
    assert resumed.summary() == uninterrupted.summary()
    for key, value in uninterrupted.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    samples: list[Sample],
) -> None:
    with pytest.raises(UserError, match=r"the loss became .* lower train\.lr"):
        run(samples, lr=1e30, warmup=0.0, epochs=4)


def test_one_photo_is_too_few_for_norms_of_a_single_value(samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="leave 1 to each of 1 processes"):
        run(samples[:1], epochs=1)
    result, _ = run(samples[:1], epochs=1, architecture="lraspp_mobilenet_v3_large", aux_weight=0.0)
    assert len(result.history) == 1


def test_a_damaged_photo_is_named_in_one_line_by_any_worker(samples: list[Sample]) -> None:
    samples[3].image.write_bytes(samples[3].image.read_bytes()[:500])
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^[^\n]*3\.jpg[^\n]*$"):
            run(samples, workers=workers, epochs=1)


@pytest.mark.parametrize(
    "architecture",
    ["deeplabv3plus_mobilenet_v3_large", "lraspp_mobilenet_v3_large", "deeplabv3_resnet50"],
)
def test_other_architectures_train_through_the_same_code(
    samples: list[Sample], architecture: str
) -> None:
    result, epochs = run(samples, architecture=architecture, epochs=1, crop=64)
    assert epochs[0]["loss"] > 0
    assert result.card.architecture == architecture


def test_classes_can_be_weighted(samples: list[Sample]) -> None:
    losses = [
        run(samples, epochs=1, class_weights=weights)[1][0]["loss"]
        for weights in ("none", "frequency", {"red": 9.0}, {"red": 1.0})
    ]
    assert len(set(losses)) == 3
    assert losses[0] == losses[3]
    with pytest.raises(UserError, match="there is no class pink"):
        run(samples, epochs=1, class_weights={"pink": 2.0})


def test_bfloat16_trains_as_well(samples: list[Sample], one_epoch: Run) -> None:
    _, epochs = run(samples, epochs=1, precision="bfloat16")
    _, exact = one_epoch
    assert epochs[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.05)


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
def test_a_step_uses_no_operation_that_is_not_deterministic_on_cuda(architecture: str) -> None:
    """The operations that torch.use_deterministic_algorithms refuses or warns about on CUDA."""
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
