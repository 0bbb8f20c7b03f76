"""ONNX files reproduce the model, describe themselves, and are dropped if they lose too much."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import onnxsim
import pytest
import torch
import yaml
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from PIL import Image
from torch import Tensor

import cocoseg
from cocoseg.core.errors import UserError
from cocoseg.core.labels import write_classes
from cocoseg.export import quantize
from cocoseg.export.label_output import add_labels
from cocoseg.export.onnx import (
    Agreement,
    ExportImages,
    compare_networks,
    median_latency,
    require_agreement,
    write_onnx,
)
from cocoseg.export.quantize import (
    choose_calibration,
    choose_float_layers,
    drop_lossy,
    write_float16,
    write_int8,
)
from cocoseg.inference.backends import TorchNetwork, _providers, load_onnx, open_onnx
from cocoseg.inference.dataset import Sample, resize_shorter_side
from cocoseg.models.weights import save_model
from stages import export
from tests import ROOT
from tests.networks import (
    CPU,
    ENCODERS,
    LAST_LAYERS,
    NAMES,
    FunctionNetwork,
    blotches,
    lively_model,
)
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


def axes(values: Sequence[onnx.ValueInfoProto]) -> dict[str, list[str | int]]:
    """The names or sizes of the dimensions of each value."""
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
    }


@pytest.mark.parametrize(
    ("architecture", "encoder"), [*((name, None) for name in LAST_LAYERS), *ENCODERS.items()]
)
def test_logits_equal_those_of_the_model_for_all_batch_and_image_sizes(
    tmp_path: Path, architecture: str, encoder: str | None
) -> None:
    model, card = lively_model(architecture, encoder)
    write_onnx(tmp_path / "model.onnx", model, card, opset=18)
    ours = TorchNetwork(model, card, CPU)
    theirs = load_onnx(tmp_path / "model.onnx")
    # The largest dilation fits into 420 pixels; the smallest exceeds 33.
    cases = [(1, (33, 420), (10, 20)), (3, (96, 75), (97, 200)), (2, (150, 150), (1, 1))]
    for count, shape, size in cases:
        rgb = np.stack([blotches(*shape, seed) for seed in range(count)])
        images = torch.from_numpy(rgb).permute(0, 3, 1, 2)
        expected = ours(images, size)
        assert expected.shape == (count, len(NAMES), *size)
        difference = (theirs(images, size) - expected).abs().max()
        assert difference < 1e-3 * expected.std(), shape


def test_the_file_contains_the_model_card(onnx_file: Path) -> None:
    _, card = lively_model()
    assert load_onnx(onnx_file).card == card
    proto = onnx.load(onnx_file)
    (entry,) = proto.metadata_props
    assert entry.key == "cocoseg"
    assert json.loads(entry.value)["classes"] == list(NAMES)
    assert axes(proto.graph.input) == {"images": ["batch", 3, "height", "width"], "size": [2]}
    expected = ["batch", len(NAMES), "output_height", "output_width"]
    assert axes(proto.graph.output) == {"logits": expected}


def test_equal_models_give_equal_bytes_without_traces_of_the_machine(
    tmp_path: Path, onnx_file: Path
) -> None:
    write_onnx(tmp_path / "again.onnx", *lively_model(), opset=18)
    content = onnx_file.read_bytes()
    assert content == (tmp_path / "again.onnx").read_bytes()
    for trace in (str(ROOT), str(tmp_path.parent), "site-packages", torch.__version__):
        assert trace.encode() not in content


def test_the_export_leaves_the_model_unchanged(tmp_path: Path) -> None:
    model, card = lively_model()
    images = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8)
    before = TorchNetwork(model, card, CPU)(images, (48, 64))
    kinds = [type(module) for module in model.modules()]
    write_onnx(tmp_path / "model.onnx", model, card, opset=18)
    assert torch.equal(TorchNetwork(model, card, CPU)(images, (48, 64)), before)
    assert [type(module) for module in model.modules()] == kinds


@pytest.mark.parametrize(
    ("architecture", "opset", "output", "fixed_size"),
    [
        ("deeplabv3_mobilenet_v3_large", 13, "labels", None),
        ("deeplabv3plus_mobilenet_v3_large", 18, "both", None),
        ("lraspp_mobilenet_v3_large", 18, "logits", None),
        ("lraspp_mobilenet_v3_large", 20, "labels", [64, 96]),
        *((name, 18, "labels", None) for name in ENCODERS if name != "fpn"),
    ],
)
def test_every_variant_is_valid_and_loads_without_a_warning(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    architecture: str,
    opset: int,
    output: str,
    fixed_size: list[int] | None,
) -> None:
    model, card = lively_model(architecture, ENCODERS.get(architecture))
    paths = [tmp_path / f"{name}.onnx" for name in ("float32", "float16", "int8")]
    write_onnx(paths[0], model, card, opset, fixed_size)
    write_float16(paths[0], paths[1])
    images = ExportImages([make_sample(tmp_path)], card.size, fixed_size)
    write_int8(paths[0], paths[2], images, max_loss=1, threads=1)
    for path in paths:
        if output != "logits":
            add_labels(path, keep_logits=output == "both")
        check_valid(path, opset, capfd)


def check_valid(path: Path, opset: int, capfd: pytest.CaptureFixture[str]) -> None:
    onnx.checker.check_model(path, full_check=True)
    assert opset in [entry.version for entry in onnx.load(path).opset_import]
    capfd.readouterr()
    onnxruntime.InferenceSession(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("architecture", "opset"),
    [
        *(("lraspp_mobilenet_v3_large", opset) for opset in range(13, 21)),
        ("deeplabv3_resnet50", 13),
        ("fcn_resnet50", 20),
        ("fpn", 18),
    ],
)
def test_float_files_are_valid_with_every_opset(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], architecture: str, opset: int
) -> None:
    write_onnx(tmp_path / "32.onnx", *lively_model(architecture, ENCODERS.get(architecture)), opset)
    write_float16(tmp_path / "32.onnx", tmp_path / "16.onnx")
    for name in ("32.onnx", "16.onnx"):
        add_labels(tmp_path / name, keep_logits=True)
        check_valid(tmp_path / name, opset, capfd)


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three files of LR-ASPP, for any size of images."""
    directory = tmp_path_factory.mktemp("variants")
    paths = {name: directory / f"{name}.onnx" for name in ("float32", "float16", "int8")}
    model, card = lively_model("lraspp_mobilenet_v3_large")
    # onnx.reference has no DequantizeLinear of an opset below 19.
    write_onnx(paths["float32"], model, card, opset=20)
    write_float16(paths["float32"], paths["float16"])
    images = ExportImages([make_sample(directory)], card.size)
    write_int8(paths["float32"], paths["int8"], images, max_loss=1, threads=1)
    return paths


@pytest.mark.parametrize("name", ["float32", "float16", "int8"])
def test_onnx_reference_and_onnxsim_agree_with_onnx_runtime(
    variants: dict[str, Path], name: str
) -> None:
    images = torch.from_numpy(blotches(33, 40)).permute(2, 0, 1)[None]
    network = open_onnx(variants[name])
    feeds = network.feeds(images, (20, 30))
    expected = network.labels(images, (20, 30)).numpy()
    proto = onnx.load(variants[name])
    (logits,) = ReferenceEvaluator(proto).run(None, feeds)
    assert (logits.argmax(axis=1) == expected).mean() > 0.99
    simplified, valid = onnxsim.simplify(proto)
    assert valid
    session = onnxruntime.InferenceSession(simplified.SerializeToString())
    (logits,) = session.run(None, feeds)
    assert (logits.argmax(axis=1) == expected).mean() > 0.99


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_opencv_agrees_with_onnx_runtime(variants: dict[str, Path], name: str) -> None:
    images = torch.from_numpy(blotches(64, 96)).permute(2, 0, 1)[None]
    network = open_onnx(variants[name])
    opened = cv2.dnn.readNetFromONNX(str(variants[name]))
    for key, value in network.feeds(images, (64, 96)).items():
        opened.setInput(value, key)
    labels = opened.forward().argmax(axis=1)
    assert (labels == network.labels(images, (64, 96)).numpy()).mean() > 0.99


def test_a_network_that_cannot_run_in_8_bits_is_refused_in_one_line(
    tmp_path: Path, samples: list[Sample]
) -> None:
    """ONNX Runtime fails in FPN with encoders that pad as TensorFlow does."""
    model, card = lively_model("fpn", ENCODERS["fpn"])
    write_onnx(tmp_path / "float32.onnx", model, card, opset=18)
    images = ExportImages(samples, card.size)
    with pytest.raises(UserError, match="cannot compute this network in 8 bits; remove int8"):
        write_int8(
            tmp_path / "float32.onnx", tmp_path / "int8.onnx", images, max_loss=0.5, threads=1
        )
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("size", [(10, 20), (97, 200), (1, 1)])
def test_labels_in_the_graph_are_the_argmax_of_the_logits(
    tmp_path: Path, onnx_file: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "labels.onnx"
    shutil.copy(onnx_file, path)
    add_labels(path, keep_logits=False)
    proto = onnx.load(path)
    assert axes(proto.graph.output) == {"labels": ["batch", "output_height", "output_width"]}
    rgb = np.stack([blotches(75, 96, seed) for seed in range(2)])
    images = torch.from_numpy(rgb).permute(0, 3, 1, 2)
    labels = open_onnx(path).labels(images, size)
    assert labels.dtype == torch.uint8
    expected = load_onnx(onnx_file).labels(images, size)
    assert labels.shape == expected.shape == (2, *size)
    assert (labels == expected).float().mean() > 0.999


def test_onnx_reference_runs_the_labels_in_the_graph(
    tmp_path: Path, variants: dict[str, Path]
) -> None:
    path = tmp_path / "labels.onnx"
    shutil.copy(variants["float32"], path)
    add_labels(path, keep_logits=False)
    network = open_onnx(path)
    images = torch.from_numpy(blotches(33, 40)).permute(2, 0, 1)[None]
    (labels,) = ReferenceEvaluator(onnx.load(path)).run(None, network.feeds(images, (20, 30)))
    assert (labels == network.labels(images, (20, 30)).numpy()).mean() > 0.99


def test_a_file_with_both_outputs_gives_the_same_logits_as_before(
    tmp_path: Path, onnx_file: Path
) -> None:
    path = tmp_path / "both.onnx"
    shutil.copy(onnx_file, path)
    add_labels(path, keep_logits=True)
    images = torch.from_numpy(blotches(48, 64)).permute(2, 0, 1)[None]
    assert torch.equal(load_onnx(path)(images, (50, 60)), load_onnx(onnx_file)(images, (50, 60)))
    assert torch.equal(
        load_onnx(path).labels(images, (50, 60)), load_onnx(onnx_file).labels(images, (50, 60))
    )


def test_a_file_with_a_fixed_size_has_one_input_and_no_free_axis(
    tmp_path: Path, samples: list[Sample]
) -> None:
    model, card = lively_model()
    path = tmp_path / "fixed.onnx"
    write_onnx(path, model, card, 18, fixed_size=[64, 96])
    proto = onnx.load(path)
    assert axes(proto.graph.input) == {"images": [1, 3, 64, 96]}
    assert axes(proto.graph.output) == {"logits": [1, len(NAMES), 64, 96]}
    images = ExportImages(samples, card.size, [64, 96])
    assert {tuple(image.shape) for image, _ in images} == {(3, 64, 96)}
    ours = TorchNetwork(model, card, CPU)
    result = compare_networks(ours, {"fixed": open_onnx(path)}, images, 8)["fixed"]
    require_agreement(result, path, 0.001)
    add_labels(path, keep_logits=False)
    assert axes(onnx.load(path).graph.output) == {"labels": [1, 64, 96]}
    assert compare_networks(ours, {"fixed": open_onnx(path)}, images, 8)["fixed"] == result


@pytest.mark.parametrize(("key", "fixed_size"), [("output", None), ("fixed_size", [64, 96])])
def test_predict_refuses_a_file_for_other_runtimes(
    tmp_path: Path, key: str, fixed_size: list[int] | None
) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(path, *lively_model(), 18, fixed_size)
    if key == "output":
        add_labels(path, keep_logits=False)
    with pytest.raises(UserError, match=rf"^[^\n]*model\.onnx was written with export\.{key} "):
        cocoseg.load(path)


def test_int8_predicts_as_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 bits are too few for the balanced logits of a random network; this one is trained."""
    limits = []

    def choose(*arguments: Any) -> list[str]:
        limits.append(arguments[-1])
        return choose_float_layers(*arguments)

    monkeypatch.setattr(quantize, "choose_float_layers", choose)
    samples = draw_samples(tmp_path)
    changes = {"architecture": "lraspp_mobilenet_v3_large", "size": 96, "crop": 96, "epochs": 12}
    result = run(samples, ema_decay=0.5, scale=[1.0, 1.0], **changes).result
    for opset in (13, 18):  # HardSwish is an operation since opset 14
        paths = tmp_path / "float32.onnx", tmp_path / "int8.onnx"
        write_onnx(paths[0], result.model, result.card, opset)
        images = ExportImages(samples, result.card.size)
        assert write_int8(*paths, images, max_loss=1, threads=1) == []
        float32, int8 = (load_onnx(path, threads=1) for path in paths)
        found = compare_networks(float32, {"int8": int8}, images, 8)["int8"]
        assert found.miou > 0.5
        assert found.agreement > 0.95
    assert limits == [0.5, 0.5]  # half of max_loss, to leave a margin for the test images


@pytest.mark.parametrize(
    ("losses", "max_loss", "expected"),
    [
        ([0.05], 0.05, []),
        ([0.05, 0.04], 0.04, ["b"]),
        ([0.05, 0.04, 0.03], 0.0, ["c", "b"]),
        ([0.05, 0.03, 0.04], 0.0, ["b"]),
    ],
    ids=["none", "until the loss is small enough", "up to 1% of the weights", "the best"],
)
def test_layers_with_the_largest_effect_return_to_float32(
    losses: list[float], max_loss: float, expected: list[str]
) -> None:
    weights = {"a": 7, "c": 2, "large": 985, "b": 6}
    errors = {"a": 9, "b": 5, "c": 7}  # wrong pixels with this layer in float32
    remaining = iter(losses)
    chosen = choose_float_layers(
        weights, lambda layers: next(remaining), lambda layers: errors[layers[-1]], max_loss
    )
    assert chosen == expected
    assert next(remaining, None) is None


def test_calibration_images_do_not_depend_on_the_order_of_samples() -> None:
    samples = [Sample(Path(f"{i}.jpg"), Path(f"{i}.png")) for i in range(9)]
    chosen = choose_calibration(samples, 4)
    assert len(set(chosen)) == 4
    assert choose_calibration(samples[::-1], 4) == chosen
    assert choose_calibration(samples, 20)[:4] == chosen
    with pytest.raises(UserError, match="int8 calibration requires training images"):
        choose_calibration([], 4)


def test_the_documented_recipe_predicts_as_the_predictor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models/onnx").mkdir(parents=True)
    model, card = lively_model("lraspp_mobilenet_v3_large")
    card = replace(card, size=480)
    write_onnx(Path("models/onnx/float32.onnx"), model, card, opset=18)
    Image.fromarray(blotches(427, 640)).save("photo.jpg")
    text = (ROOT / "docs/deployment.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"```python\n(import json.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(recipe, names)
    image = torch.zeros(3, 427, 640, dtype=torch.uint8)
    assert names["small"].size[::-1] == resize_shorter_side(image, card.size).shape[1:]
    expected = cocoseg.load("models/onnx/float32.onnx").predict("photo.jpg").labels
    assert (names["labels"] == expected).mean() > 0.99


@pytest.mark.parametrize("content", [b"", b"not onnx", "truncated", "foreign"])
def test_a_damaged_or_foreign_file_is_a_one_line_error(
    tmp_path: Path, onnx_file: Path, content: bytes | str
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
    problem = "has no cocoseg metadata:" if content == "foreign" else "is damaged or not an ONNX"
    with pytest.raises(UserError, match=rf"^[^\n]*model\.onnx {problem} [^\n]*$"):
        load_onnx(path)


def test_a_device_without_onnx_support_is_refused(onnx_file: Path) -> None:
    for device in ("mps", "cuda", "cuda:1"):
        with pytest.raises(UserError, match=f"^{device} is not available for ONNX models"):
            load_onnx(onnx_file, device=device)
    assert load_onnx(onnx_file, device="auto").device == CPU


def test_threads_and_the_gpu_are_those_asked_for(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = load_onnx(onnx_file, threads=3)._session.get_session_options()
    assert options.intra_op_num_threads == 3
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [cuda, cpu])
    assert _providers("cuda:1") == [(cuda, {"device_id": 1}), cpu]
    assert _providers("auto") == _providers("cuda") == [(cuda, {"device_id": 0}), cpu]
    assert _providers("cpu") == [cpu]


def test_the_agreement_of_an_export_meets_the_requirement(
    onnx_file: Path, samples: list[Sample]
) -> None:
    ours, theirs = TorchNetwork(*lively_model(), CPU), load_onnx(onnx_file)
    result = compare_networks(ours, {"theirs": theirs}, ExportImages(samples, 96), 2)["theirs"]
    require_agreement(result, onnx_file, 0.001)


def constant_network(*labels: int) -> FunctionNetwork:
    """A network that predicts the first label in the upper half and the last one in the lower."""

    def function(images: Tensor, size: tuple[int, int]) -> Tensor:
        logits = torch.zeros(len(images), len(NAMES), *size)
        logits[:, labels[0], : size[0] // 2] = 1
        logits[:, labels[-1], size[0] // 2 :] = 1
        return logits

    return FunctionNetwork(function, lively_model()[1])


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_agreement_counts_all_pixels_and_scores(tmp_path: Path) -> None:
    samples = [make_sample(tmp_path, f"{i}", *size) for i, size in enumerate([(64, 48), (40, 60)])]
    others = {"same": constant_network(0), "half": constant_network(0, 1)}
    same, half = compare_networks(
        constant_network(0), others, ExportImages(samples, 96), 8
    ).values()
    assert (same.agreement, same.loss, same.largest_score_difference) == (1, 0, 0)
    assert half.agreement == 0.5
    ground_truth = np.concatenate([sample.read()[1].numpy().ravel() for sample in samples])
    lower = np.concatenate([np.repeat([0, 1], pixels // 2) for pixels in (64 * 48, 40 * 60)])
    expected = [iou(ground_truth == label, lower == label) for label in range(3)]
    before = [(ground_truth == 0).mean(), 0.0, 0.0]
    assert half.miou == pytest.approx(np.mean(expected), abs=1e-6)
    assert half.loss == pytest.approx(same.miou - half.miou, abs=2e-6)
    assert same.miou == pytest.approx(np.mean(before), abs=1e-6)
    difference = np.abs(np.subtract(expected, before)).max()
    assert half.largest_score_difference == pytest.approx(difference, abs=1e-6)


@pytest.mark.parametrize(("agreement", "difference"), [(0.9989, 0.0), (1.0, 0.0011)])
def test_an_export_that_differs_from_the_model_is_refused(
    agreement: float, difference: float
) -> None:
    path = Path("models/onnx/float32.onnx")
    with pytest.raises(UserError, match=r"^[^\n]*float32\.onnx not written: it differs [^\n]*$"):
        require_agreement(Agreement(agreement, 0.5, 0.0, difference), path, 0.001)
    require_agreement(Agreement(0.999, 0.5, 0.0, 0.001), path, 0.001)


def test_an_export_cannot_be_checked_without_images() -> None:
    with pytest.raises(UserError, match="no images to check"):
        compare_networks(
            constant_network(0), {"same": constant_network(0)}, ExportImages([], 96), 8
        )


def test_latency_is_the_median_after_the_warm_up_in_milliseconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clock advances only while a network runs."""
    now = 0.0
    seconds = {
        "first": iter([9.0, 9.0, 0.001, 0.003, 0.002]),
        "second": iter([9.0, 9.0, 0.5, 0.4, 7]),
    }
    order = []

    def network(name: str) -> FunctionNetwork:
        def function(images: Tensor, size: tuple[int, int]) -> Tensor:
            nonlocal now
            now += next(seconds[name])
            order.append(name)
            return images

        return FunctionNetwork(function, lively_model()[1])

    monkeypatch.setattr("time.perf_counter", lambda: now)
    networks = {name: network(name) for name in seconds}
    latency = median_latency(networks, torch.zeros(1, 3, 8, 8), (8, 8), repeats=3)
    assert latency == {"first": 2.0, "second": 500.0}
    assert order == ["first", "second"] * 5


def test_the_stage_writes_the_same_files_twice(
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
    write_classes(Path("data/classes.json"), NAMES[1:])
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
    assert variants["int8"]["in_float"] == []
    assert (written["opset"], written["images"]) == (18, 1)
    assert set(figures["latency_ms"]) == {"pytorch", "float32", "float16", "int8"}
    expected = cocoseg.load("models/model.safetensors", "cpu").predict("data/images/a.jpg").labels
    for name in files:
        labels = cocoseg.load(f"models/onnx/{name}.onnx").predict("data/images/a.jpg").labels
        assert (labels == expected).mean() == pytest.approx(variants[name]["agreement"], abs=2e-3)
    export.main()
    torch.set_num_threads(threads)
    assert {path.stem: path.read_bytes() for path in Path("models/onnx").iterdir()} == files


def test_a_file_that_loses_too_much_is_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("float16", "int8"):
        (tmp_path / f"{name}.onnx").write_bytes(b"12")
    results = {
        "float16": Agreement(0.999, 0.5, 0.001, 0.002),
        "int8": Agreement(0.9, 0.47, 0.031, 0.05),
    }
    limits = {"float16": 0.001, "int8": 0.01}  # float16 loses exactly its limit
    variants = drop_lossy(tmp_path, results, limits, Path("models/onnx"))
    assert [variant["written"] for variant in variants.values()] == [True, False]
    assert variants["int8"]["bytes"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["float16.onnx"]
    assert [record.getMessage() for record in caplog.records] == [
        "models/onnx/int8.onnx not written: it loses 0.0310 of mean IoU on the test images, "
        "0.0210 more than export.max_loss.int8 allows"
    ]
