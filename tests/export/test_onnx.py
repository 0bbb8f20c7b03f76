"""The ONNX file does what the model does, explains itself, and is not written where it does not."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

import cocoseg
from cocoseg.core.errors import UserError
from cocoseg.export import quantize
from cocoseg.export.onnx import (
    Agreement,
    Network,
    compare_networks,
    load_onnx,
    median_latency,
    require_agreement,
    torch_network,
    write_onnx,
)
from cocoseg.export.quantize import drop_lossy, write_int8
from cocoseg.inference.dataset import Sample
from cocoseg.models.weights import save_model
from stages import export
from tests import ROOT
from tests.networks import CPU, LAST_LAYERS, NAMES, blotches, lively_model
from tests.samples import draw_samples, make_sample
from tests.training_runs import run


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    write_onnx(path, *lively_model(), opset=18)
    return path


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    sizes = [(64, 48), (48, 64), (64, 48), (90, 50)]
    return [make_sample(tmp_path, f"{i}", *size) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("architecture", LAST_LAYERS)
def test_onnx_gives_the_models_logits_whatever_the_batch_and_the_sizes(
    tmp_path: Path, architecture: str
) -> None:
    model, card = lively_model(architecture)
    write_onnx(tmp_path / "model.onnx", model, card, opset=18)
    ours = torch_network(model, card, CPU)
    theirs, _ = load_onnx(tmp_path / "model.onnx")
    # 420 pixels are more than the widest dilation spans, 33 fewer than the narrowest.
    cases = [(1, (33, 420), (10, 20)), (3, (96, 75), (97, 200)), (2, (150, 150), (1, 1))]
    for count, shape, size in cases:
        photos = np.stack([blotches(*shape, seed) for seed in range(count)])
        images = torch.from_numpy(photos).permute(0, 3, 1, 2)
        expected = ours(images, size)
        difference = (theirs(images, size) - expected).abs().max()
        assert difference < 1e-3 * expected.std(), shape


def test_the_file_names_its_classes_and_everything_needed_to_use_it(onnx_file: Path) -> None:
    _, card = lively_model()
    assert load_onnx(onnx_file)[1] == card
    proto = onnx.load(onnx_file)
    (entry,) = proto.metadata_props
    assert entry.key == "cocoseg"
    assert json.loads(entry.value)["classes"] == list(NAMES)
    assert [value.name for value in proto.graph.input] == ["images", "size"]
    assert [value.name for value in proto.graph.output] == ["logits"]


def test_two_exports_are_the_same_bytes_and_tell_nothing_of_the_machine(
    tmp_path: Path, onnx_file: Path
) -> None:
    write_onnx(tmp_path / "again.onnx", *lively_model(), opset=18)
    content = onnx_file.read_bytes()
    assert content == (tmp_path / "again.onnx").read_bytes()
    for trace in (str(ROOT), str(tmp_path.parent), "site-packages", torch.__version__):
        assert trace.encode() not in content


def test_the_model_itself_is_not_changed_by_its_export(tmp_path: Path) -> None:
    model, card = lively_model()
    images = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8)
    before = torch_network(model, card, CPU)(images, (48, 64))
    kinds = [type(module) for module in model.modules()]
    write_onnx(tmp_path / "model.onnx", model, card, opset=18)
    assert torch.equal(torch_network(model, card, CPU)(images, (48, 64)), before)
    assert [type(module) for module in model.modules()] == kinds


@pytest.mark.parametrize("opset", [13, 20])
def test_the_lowest_and_the_highest_opset_that_params_allow_can_be_used(
    tmp_path: Path, opset: int
) -> None:
    write_onnx(tmp_path / "model.onnx", *lively_model(), opset=opset)
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == opset
    network, _ = load_onnx(tmp_path / "model.onnx")
    assert network(torch.zeros(1, 3, 48, 64, dtype=torch.uint8), (5, 6)).shape == (1, 3, 5, 6)


def test_int8_labels_what_has_been_learnt_as_float32_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained network, since 8 bits are too few for the balanced logits of a random one."""
    samples = draw_samples(tmp_path)
    changes = {"architecture": "lraspp_mobilenet_v3_large", "size": 96, "crop": 96, "epochs": 12}
    result = run(samples, ema_decay=0.5, scale=[1.0, 1.0], **changes).result
    for opset in (13, 18):  # the first has no hard-swish of its own
        paths = tmp_path / "float32.onnx", tmp_path / "int8.onnx"
        write_onnx(paths[0], result.model, result.card, opset)
        assert write_int8(*paths, samples, max_loss=1, threads=1) == ["backbone.0"]
        float32, int8 = (load_onnx(path, threads=1)[0] for path in paths)
        found = compare_networks(float32, {"int8": int8}, result.card, samples, 8)["int8"]
        assert found.miou > 0.5
        assert found.agreement > 0.95
    # Where that loses too much, further parts stay in float; few are small enough here.
    monkeypatch.setattr(quantize, "_SHARE_OF_WEIGHTS", 0.002)
    in_float = write_int8(*paths, samples, max_loss=0, threads=1)
    assert in_float[0] == "backbone.0"
    assert {"backbone.1", "backbone.2"}.intersection(in_float)
    assert "backbone.4" not in in_float
    int8 = load_onnx(paths[1], threads=1)[0]
    careful = compare_networks(float32, {"int8": int8}, result.card, samples, 8)["int8"]
    assert careful.loss < found.loss


@pytest.mark.parametrize("content", [None, b"", b"no onnx", "truncated", "foreign"])
def test_a_file_that_is_no_model_is_one_line(
    tmp_path: Path, onnx_file: Path, content: bytes | str | None
) -> None:
    path = tmp_path / "model.onnx"
    if content == "truncated":
        path.write_bytes(onnx_file.read_bytes()[:1_000_000])
    elif content == "foreign":
        proto = onnx.load(onnx_file)
        del proto.metadata_props[:]
        onnx.save(proto, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.onnx (not found|is no ONNX|has no cocoseg)"):
        load_onnx(path)


def test_a_device_that_onnx_cannot_use_is_refused(onnx_file: Path) -> None:
    with pytest.raises(UserError, match="mps is not available"):
        load_onnx(onnx_file, device="mps")


def test_the_exported_model_agrees_with_the_model(onnx_file: Path, samples: list[Sample]) -> None:
    model, card = lively_model()
    theirs, _ = load_onnx(onnx_file)
    ours = torch_network(model, card, CPU)
    result = compare_networks(ours, {"theirs": theirs}, card, samples, batch_size=2)["theirs"]
    require_agreement(result, onnx_file, 0.001)


def always(*labels: int) -> Network:
    """A network that gives the first label to a photo's upper half and the last to the rest."""

    def run(images: Tensor, size: tuple[int, int]) -> Tensor:
        logits = torch.zeros(len(images), len(NAMES), *size)
        logits[:, labels[0], : size[0] // 2] = 1
        logits[:, labels[-1], size[0] // 2 :] = 1
        return logits

    return run


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_disagreement_is_counted_over_all_pixels_and_scores(tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, f"{i}", *size) for i, size in enumerate([(64, 48), (40, 60)])]
    _, card = lively_model()
    others = {"same": always(0), "half": always(0, 1)}
    same, half = compare_networks(always(0), others, card, samples, 8).values()
    assert (same.agreement, same.largest_score_difference) == (1, 0)
    assert half.agreement == 0.5
    ground_truth = np.concatenate([sample.read()[1].numpy().ravel() for sample in samples])
    lower = np.concatenate([np.repeat([0, 1], pixels // 2) for pixels in (64 * 48, 40 * 60)])
    expected = [iou(ground_truth == label, lower == label) for label in range(3)]
    before = [(ground_truth == 0).mean(), 0.0, 0.0]
    assert half.miou == pytest.approx(np.mean(expected), abs=1e-6)
    difference = np.abs(np.subtract(expected, before)).max()
    assert half.largest_score_difference == pytest.approx(difference, abs=1e-6)


@pytest.mark.parametrize(("agreement", "difference"), [(0.9989, 0.0), (1.0, 0.0011)])
def test_an_export_that_disagrees_is_refused_in_one_line(
    agreement: float, difference: float
) -> None:
    path = Path("models/onnx/float32.onnx")
    with pytest.raises(UserError, match=r"float32\.onnx is not written, .*of pixels"):
        require_agreement(Agreement(agreement, 0.5, 0.0, difference), path, 0.001)
    require_agreement(Agreement(0.999, 0.5, 0.0, 0.001), path, 0.001)


def test_an_export_cannot_be_checked_without_images() -> None:
    _, card = lively_model()
    with pytest.raises(UserError, match="no images"):
        compare_networks(always(0), {"same": always(0)}, card, [], 8)


def test_latency_is_the_median_of_each_network() -> None:
    model, card = lively_model()
    images = torch.zeros(1, 3, 48, 64, dtype=torch.uint8)
    networks = {"model": torch_network(model, card, CPU), "nothing": always(0)}
    latency = median_latency(networks, images, (48, 64), repeats=3)
    assert latency["model"] > 10 * latency["nothing"] >= 0
    assert math.isfinite(latency["model"])


def test_the_stage_writes_what_keeps_to_its_limit_twice_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "presets/sample.yaml").read_text(encoding="utf-8"))
    params["export"]["threads"] = 1
    params["export"]["max_loss"] |= {"float16": 1, "int8": 1}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for directory in ("data/images", "data/masks", "data/splits", "models"):
        Path(directory).mkdir(parents=True)
    sample = make_sample(tmp_path, "a", 64, 48)
    sample.image.rename("data/images/a.jpg")
    sample.mask.rename("data/masks/a.png")
    for split in ("train", "test"):
        Path(f"data/splits/{split}.txt").write_text("a\n", encoding="utf-8")
    save_model(Path("models/model.safetensors"), *lively_model())
    threads = torch.get_num_threads()
    figures = export.main()
    files = {path.stem: path.read_bytes() for path in Path("models/onnx").iterdir()}
    written = json.loads(Path("metrics/export.json").read_text(encoding="utf-8"))
    variants = written["variants"]
    assert {name: content["bytes"] for name, content in variants.items()} == {
        name: len(content) for name, content in files.items()
    }
    assert len(files["float16"]) < 0.51 * len(files["float32"])
    assert len(files["int8"]) < 0.3 * len(files["float32"])
    assert variants["float32"]["agreement"] >= 0.999
    assert variants["int8"]["in_float"] == ["backbone.0"]
    assert (written["opset"], written["images"]) == (18, 1)
    assert set(figures["latency_ms"]) == {"pytorch", "float32", "float16", "int8"}
    for name in files:
        labels = cocoseg.load(f"models/onnx/{name}.onnx").predict("data/images/a.jpg").labels
        assert labels.shape == (48, 64)
    export.main()
    torch.set_num_threads(threads)
    assert {path.stem: path.read_bytes() for path in Path("models/onnx").iterdir()} == files


def test_a_lossy_file_is_left_out_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("float16", "int8"):
        (tmp_path / f"{name}.onnx").write_bytes(b"12")
    results = {
        "float16": Agreement(0.999, 0.5, 0.001, 0.002),
        "int8": Agreement(0.9, 0.47, 0.031, 0.05),
    }
    limits = {"float16": 0.005, "int8": 0.01}
    figures = drop_lossy(tmp_path, results, limits, Path("models/onnx"))
    assert [figures[name]["written"] for name in figures] == [True, False]
    assert [path.name for path in tmp_path.iterdir()] == ["float16.onnx"]
    assert "0.0310 below PyTorch's, 0.0210 more than export.max_loss.int8" in caplog.text
