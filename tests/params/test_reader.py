"""A wrong params.yaml is refused with one line that names each wrong key."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from dvc.utils.serialize import YAMLError, load_yaml, parse_yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.core.values import flatten, read_yaml
from cocoseg.models import networks
from cocoseg.params.reader import Params, load_params
from cocoseg.params.runtime import RuntimeParams
from cocoseg.params.train import TrainParams
from tests import ROOT

SAMPLE = ROOT / "presets/sample.yaml"
REMOVED = object()


def write_changed(directory: Path, changes: dict[str, Any]) -> Path:
    """Write the sample's parameters with other values of some keys."""
    params = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
    for key, value in changes.items():
        section = params
        *sections, name = key.split(".")
        for part in sections:
            section = section[part]
        if value is REMOVED:
            del section[name]
        else:
            section[name] = value
    path = directory / "params.yaml"
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    return path


def load_changed(directory: Path, key: str, value: Any) -> Params:
    return load_params(write_changed(directory, {key: value}))


def refusal(path: Path) -> str:
    """The message, without the path, with which a file is refused."""
    with pytest.raises(UserError) as error:
        load_params(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


SCALE = [2.0, 0.5]
RATIOS = {"train": 0, "val": 0, "test": 0}


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("split.group_by", "", "expected a non-empty string, got ''"),
        ("split.group_by", "(a", "expected a valid regular expression (missing ), unterminated"),
        ("split.group_by", "(a)_(b)", "expected a regular expression with exactly one group, got"),
        ("split.group_by", "(?:a)b", "expected a regular expression with exactly one group, got"),
        ("split.keep_duplicates_together", 1, "expected true or false, got 1"),
        ("filter.max_instances", 0, "expected a number greater than 0, got 0"),
        ("filter.max_instances", "10", "expected an integer, got '10'"),
        ("filter.max_instances", True, "expected an integer, got true"),
        ("filter.max_images", 1.5, "expected an integer, got 1.5"),
        ("filter.prefer", "common", "expected 'rare', 'random' or 'first', got 'common'"),
        ("filter.classes", "dog", "expected 'all' or a list, got 'dog'"),
        ("filter.classes", [], "expected 'all' or a list of at least 1 item, got []"),
        ("filter.classes", ["car", "car"], "car is listed more than once"),
        ("filter.classes", ["background", "car"], "background is always label 0; list only"),
        ("filter.classes", [str(n) for n in range(255)], "expected 'all' or a list of at most 254"),
        ("filter.classes", ["car", {"car": ["truck"]}], "car is listed more than once"),
        ("filter.classes", [{"background": ["sky"]}], "background is always label 0; list only"),
        ("filter.classes", {"vehicle": ["car"]}, "expected 'all' or a list"),
        ("filter.out_of_bounds", "keep", "expected 'drop' or 'clip', got 'keep'"),
        ("filter.empty_fraction", 1.5, "expected a number of at most 1, got 1.5"),
        ("download.source", "imagenet", "expected 'sample', 'coco' or 'files', got 'imagenet'"),
        ("download.coco.base_url", "ftp://example.org", "expected an http://, https:// or file:"),
        ("download.coco.base_url", "images.cocodataset.org", "expected an http://, https:// or"),
        ("download.coco.base_url", "http://", "expected an http://, https:// or file:/// URL"),
        ("download.coco.base_url", "file://srv/coco", "expected an http://, https:// or file:///"),
        ("download.coco.md5", "0" * 31, "expected 32 lowercase hexadecimal digits or null, got"),
        ("download.coco.md5", "0" * 33, "expected 32 lowercase hexadecimal digits or null, got"),
        ("download.files.directory", "", "expected a non-empty string"),
        ("download.files.pairs", [], "expected a list of at least 1 item, got []"),
        ("split.from", "files", "expected 'draw' or 'export', got 'files'"),
        ("split.ratios.val", -1, "expected a number of at least 0, got -1"),
        ("split.ratios", RATIOS, "expected at least one ratio greater than 0"),
        ("split.fold", 5, "expected a number less than split.folds (5), got 5"),
        ("split.folds", 1, "expected a number of at least 2, got 1"),
        ("train.lr", float("nan"), "expected a finite number, got nan"),
        ("train.lr", float("inf"), "expected a finite number, got inf"),
        ("train.epochs", 0, "expected a number greater than 0, got 0"),
        ("train.warmup", 1.1, "expected a number of at most 1, got 1.1"),
        ("train.ema_decay", 1.0, "expected a number less than 1, got 1.0"),
        ("train.scale", [1.0], "expected a list of at least 2 items, got [1.0]"),
        ("train.scale", SCALE, "expected the smaller scale first, got [2.0, 0.5]"),
        ("train.processes", 3, "expected a divisor of train.batch_size (8), got 3"),
        ("train.class_weights", "rare", "expected 'none' or 'frequency' or keys with values, got"),
        ("train.class_weights.traffic light", 0, "expected a number greater than 0, got 0"),
        ("export.opset", 21, "expected a number of at most 20, got 21"),
        ("download.sample.width", 1025, "expected a number of at most 1024, got 1025"),
        ("export.variants", ["int8"], "expected distinct variants that include float32, got"),
        ("export.variants", ["float32"] * 2, "expected distinct variants that include float32"),
        ("evaluate.tiles", 5, "expected a number of at least 32 or 'full', got 5"),
        ("mask", None, "expected a section with keys, as in presets/, got null"),
        ("mask", ["last"], "expected a section with keys, as in presets/, got ['last']"),
        ("mask", REMOVED, "missing; presets/ shows every key"),
        ("mask.crowd", REMOVED, "missing; presets/ shows every key"),
        ("runtime.workers", -1, "expected a number of at least 0 or 'auto', got -1"),
        ("runtime.device", "gpu", "expected auto, cpu, mps, cuda or cuda:NUMBER, got 'gpu'"),
        ("runtime.device", "cpux", "expected auto, cpu, mps, cuda or cuda:NUMBER, got 'cpux'"),
        ("runtime.typo", 1, "unknown key; remove or correct it"),
        ("typo", {}, "unknown key; remove or correct it"),
        ("train.colour", 0.1, "renamed to train.color_jitter"),
        ("download.files.folder", "data/own", "renamed to download.files.directory"),
        ("mask.overlap", "void", "'void' was renamed to 'ignore'"),
        ("mask.crowd", "void", "'void' was renamed to 'ignore'"),
        ("split.group_by", "folder", "'folder' was renamed to 'directory'"),
    ],
)
def test_a_wrong_value_gives_one_line_with_its_key(
    tmp_path: Path, key: str, value: Any, problem: str
) -> None:
    changes = {key: value}
    if key.startswith("train.class_weights."):
        changes = {"train.class_weights": {}} | changes
    line = refusal(write_changed(tmp_path, changes))
    assert line.startswith(f"{key}: {problem}")
    assert ";" not in line.removeprefix(f"{key}: {problem}")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("train.colour", "train.color_jitter"),
        ("download.files.folder", "download.files.directory"),
    ],
)
def test_a_file_with_an_old_key_is_not_told_that_the_new_one_is_missing(
    tmp_path: Path, old: str, new: str
) -> None:
    path = write_changed(tmp_path, {old: "x", new: REMOVED})
    assert refusal(path) == f"{old}: renamed to {new}"


@pytest.mark.parametrize(
    ("pair", "key"),
    [
        ({"annotations": "a.json"}, "images"),
        ({"annotations": "s3://b/a.json", "images": "."}, "annotations"),
        ({"annotations": "a.json", "images": ".", "split": "valid"}, "split"),
    ],
)
def test_an_error_inside_a_list_names_the_place(
    tmp_path: Path, pair: dict[str, str], key: str
) -> None:
    line = refusal(write_changed(tmp_path, {"download.files.pairs": [pair]}))
    assert line.startswith(f"download.files.pairs.0.{key}: ")


@pytest.mark.parametrize(
    "entry",
    [
        "",
        5,
        None,
        ["car"],
        {},
        {"vehicle": []},
        {"vehicle": "car"},
        {"vehicle": None},
        {"vehicle": ["car", 5]},
        {"vehicle": ["car"], "animal": ["cat"]},
        {"": ["car"]},
        {5: ["car"]},
        {"vehicle": {"supercategory": 5}},
        {"vehicle": {"super": "vehicle"}},
        {"vehicle": {"supercategory": "vehicle", "names": ["car"]}},
    ],
)
def test_a_class_is_a_name_or_merges_categories(tmp_path: Path, entry: Any) -> None:
    line = refusal(write_changed(tmp_path, {"filter.classes": ["car", entry]}))
    expected = "expected a name, {class: [names]} or {class: {supercategory: name}}"
    assert line.startswith(f"filter.classes.1: {expected}")
    assert ";" not in line


@pytest.mark.parametrize("key", flatten(yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))))
def test_a_value_of_a_wrong_type_names_what_is_expected(tmp_path: Path, key: str) -> None:
    assert refusal(write_changed(tmp_path, {key: [[]]})).startswith(
        (f"{key}: expected ", f"{key}.0: expected ")
    )


@pytest.mark.parametrize(("key", "value"), [("fold", 0), ("group_by", "directory")])
def test_folds_and_groups_require_drawn_splits(tmp_path: Path, key: str, value: Any) -> None:
    load_changed(tmp_path, f"split.{key}", value)
    path = write_changed(tmp_path, {f"split.{key}": value, "split.from": "export"})
    assert refusal(path).startswith(f"split.{key}: requires split.from: draw")


def test_a_fold_requires_training_images(tmp_path: Path) -> None:
    path = write_changed(tmp_path, {"split.fold": 0, "split.ratios.train": 0})
    assert refusal(path) == "split.fold: requires split.ratios.train greater than 0"


@pytest.mark.parametrize(
    "path",
    [
        "models/model.safetensors",
        "./models/model.safetensors",
        "weights/../models/model.safetensors",
        str(ROOT / "models/model.safetensors"),
        "image-net",
    ],
)
def test_initial_weights_elsewhere_than_in_weights_are_refused_with_the_remedies(
    tmp_path: Path, path: str
) -> None:
    """DVC removes `models/model.safetensors`, the output of training, before training starts."""
    message = refusal(write_changed(tmp_path, {"train.weights": path}))
    assert message.startswith("train.weights: expected none, imagenet, coco, run:REVISION (the ")
    assert "a safetensors file in weights/, got " in message
    for weights in ("weights/first.safetensors", "run:v1", "coco"):
        assert load_changed(tmp_path, "train.weights", weights)


def test_one_message_names_every_wrong_key(tmp_path: Path) -> None:
    path = write_changed(
        tmp_path, {"filter.max_instances": -1, "train.epochs": REMOVED, "train.epoch": 8}
    )
    keys = [problem.partition(":")[0] for problem in refusal(path).split("; ")]
    assert {"filter.max_instances", "train.epochs", "train.epoch"} <= set(keys)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("runtime.device", name) for name in ("auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12")],
        ("filter.classes", "all"),
        ("filter.classes", ["cat", {"pet": ["dog"]}, {"vehicle": {"supercategory": "vehicle"}}]),
        ("filter.empty_fraction", 1),
        ("filter.classes", [str(number) for number in range(254)]),
        ("download.coco.md5", "0123456789abcdef" * 2),
        ("download.sample.width", 1024),
        ("split.group_by", r"^(\d+)_"),
        ("train.scale", [1.0, 1.0]),
        ("train.class_weights", {"traffic light": 2.0}),
        ("evaluate.tiles", 32),
        ("evaluate.tiles", "full"),
        ("export.opset", 20),
    ],
)
def test_a_value_at_the_limit_is_accepted(tmp_path: Path, key: str, value: Any) -> None:
    load_changed(tmp_path, key, value)


def test_automatic_workers_are_the_cores_up_to_16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    automatic = load_params(SAMPLE)[RuntimeParams]
    for cores, workers in ((3, 3), (64, 16), (None, 1)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        assert automatic.worker_count() == workers
    assert load_changed(tmp_path, "runtime.workers", 20)[RuntimeParams].worker_count() == 20


def test_numbers_are_read_as_dvc_writes_them(tmp_path: Path) -> None:
    path = write_changed(tmp_path, {"train.lr": 1})
    path.write_text(path.read_text().replace("lr: 1\n", "lr: 1e-05\n"))
    assert load_params(path)[TrainParams].lr == 1e-5


NUMBERS = st.from_regex(r"[-+]?(0[box])?[0-9a-fA-F_.eE:]{1,8}([eE][-+]?\d{1,2})?", fullmatch=True)
WORDS = """
yes no on off y N true False TRUE tRUE null ~ Null .inf -.INF .nan = 0o17 017 09 0b11 0x1F
1_000 1:30 190:20:30.15 1e-05 1e5 1.e3 2026-11-24 '' '1' "yes" _1 +1"""
NEARLY_NUMBERS = st.text("+-.0123456789eE_xob:", max_size=7)


@settings(max_examples=2000, deadline=None)
@given(
    st.one_of(NUMBERS, st.sampled_from(WORDS.split()), NEARLY_NUMBERS, st.floats(), st.integers())
)
def test_scalars_are_read_as_dvc_reads_them(scalar: object) -> None:
    text = f"section:\n  key: {scalar}\n  list:\n    - {scalar}\n"
    try:
        expected = parse_yaml(text, "params.yaml")
    except (YAMLError, ValueError):
        assume(False)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "params.yaml")
        path.write_text(text, encoding="utf-8")
        assert repr(read_yaml(path)) == repr(expected)


@pytest.mark.parametrize("path", [*(ROOT / "presets").glob("*.yaml"), ROOT / "dvc.lock"], ids=str)
def test_files_are_read_as_dvc_reads_them(path: Path) -> None:
    assert read_yaml(path) == load_yaml(path)


def test_an_error_of_syntax_names_its_line(tmp_path: Path) -> None:
    path = write_changed(tmp_path, {})
    text = path.read_text().replace("    val:", "\tval:")
    path.write_text(text)
    line = text[: text.index("\t")].count("\n") + 1
    with pytest.raises(UserError, match=rf"not valid YAML: line {line}: found character"):
        load_params(path)


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    path = write_changed(tmp_path, {"train.lr": 1})
    path.write_text(path.read_text().replace("  lr: 1\n", "  lr: 1\n  lr: 2\n"))
    with pytest.raises(UserError, match='duplicate key "lr"'):
        load_params(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "has no sections"),
        (b"- a\n", "has no sections"),
        (b"a: [", "is not valid YAML: line 1"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"a: 1\na: &x *x\n", "is not valid YAML: line 2"),
        (b"a: 2026-99-99", "is not valid YAML"),
        (b"a: \x01", "is not valid YAML"),
    ],
)
def test_a_file_without_valid_sections_is_refused_in_one_line(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_params(path)
    assert str(error.value).startswith(f"{path} {problem}")
    assert "\n" not in str(error.value)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="not found; run from the project directory"):
        load_params(tmp_path / "params.yaml")
    with pytest.raises(UserError, match="is a directory; copy a file from presets/"):
        load_params(tmp_path)


def test_every_architecture_in_the_parameters_is_known_to_the_networks() -> None:
    choices = set(get_args(TrainParams.model_fields["architecture"].annotation))
    assert choices == set(networks.OUTPUT_STRIDES) > set(networks.BACKBONES)


@pytest.mark.parametrize(
    ("architecture", "encoder", "problem"),
    [
        ("fpn", None, "expected an encoder for fpn, such as mobilenet_v2, got null"),
        (
            "deeplabv3_resnet50",
            "mobilenet_v2",
            "expected null, because deeplabv3_resnet50 names its encoder, got 'mobilenet_v2'",
        ),
    ],
)
def test_architecture_and_encoder_have_to_belong_together(
    tmp_path: Path, architecture: str, encoder: str | None, problem: str
) -> None:
    values = read_yaml(ROOT / "params.yaml")
    values["train"] |= {"architecture": architecture, "encoder": encoder}
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"train.encoder: {problem}$"):
        load_params(path)


def test_every_architecture_names_its_encoder_or_has_one() -> None:
    for architecture in networks.OUTPUT_STRIDES:
        encoder = None if architecture in networks.BACKBONES else "mobilenet_v2"
        values = read_yaml(ROOT / "params.yaml")["train"]
        values |= {"architecture": architecture, "encoder": encoder}
        assert TrainParams.model_validate(values).encoder == encoder


def test_a_network_of_a_missing_extra_is_refused_with_the_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = read_yaml(ROOT / "params.yaml")["train"]
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ValueError, match=r"run `pip install 'cocoseg\[smp\]'`"):
        TrainParams.model_validate({**values, "architecture": "fpn", "encoder": "mobilenet_v2"})
