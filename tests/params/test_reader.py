"""params.yaml is refused, in one line that names the key, when anything in it is wrong."""

import tempfile
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from dvc.utils.serialize import YAMLError, load_yaml, parse_yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cocoseg.core.errors import UserError
from cocoseg.models import networks
from cocoseg.params.reader import TrainParams, load_params, read_yaml
from tests import ROOT

SAMPLE = ROOT / "presets/sample.yaml"


def write_changed(directory: Path, key: str, value: Any) -> Path:
    params = yaml.safe_load(SAMPLE.read_text(encoding="utf-8"))
    section = params
    *sections, name = key.split(".")
    for part in sections:
        section = section[part]
    section[name] = value
    path = directory / "params.yaml"
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("split.group_by", ""),
        ("split.group_by", r"(\d+"),
        ("split.group_by", r"(\d+)_(\d+)"),
        ("split.group_by", r"(?:rec)\d+"),
        ("split.keep_duplicates_together", 1),
        ("filter.max_instances", 0),
        ("filter.max_instances", "10"),
        ("filter.max_instances", True),
        ("filter.max_images", 1.5),
        ("filter.prefer", "common"),
        ("filter.classes", []),
        ("filter.classes", "every"),
        ("filter.classes", ["car", "car"]),
        ("filter.classes", ["background", "car"]),
        ("download.source", "imagenet"),
        ("download.coco.base_url", "ftp://example.org"),
        ("download.coco.base_url", "images.cocodataset.org"),
        ("download.coco.base_url", "http://"),
        ("download.coco.base_url", "file://srv/coco"),
        ("download.coco.md5", "abc"),
        ("download.files.folder", ""),
        ("download.files.pairs", []),
        ("download.files.pairs", [{"annotations": "a.json"}]),
        ("download.files.pairs", [{"annotations": "s3://b/a.json", "images": "."}]),
        ("download.files.pairs", [{"annotations": "a.json", "images": ".", "split": "valid"}]),
        ("split.from", "files"),
        ("split.ratios.val", -1),
        ("split.ratios", {"train": 0, "val": 0, "test": 0}),
        ("split.fold", 5),
        ("split.folds", 1),
        ("train.lr", float("nan")),
        ("train.epochs", 0),
        ("train.scale", [1.0]),
        ("train.scale", [2.0, 0.5]),
        ("train.processes", 3),
        ("mask", None),
        ("mask", ["last"]),
        ("runtime.workers", -1),
        ("runtime.device", "gpu"),
        ("runtime.typo", 1),
        ("typo", {}),
    ],
)
def test_a_wrong_value_is_one_line_with_its_key(tmp_path: Path, key: str, value: Any) -> None:
    path = write_changed(tmp_path, key, value)
    with pytest.raises(UserError) as error:
        load_params(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: {key}")


@pytest.mark.parametrize(("key", "value"), [("fold", 0), ("group_by", "folder")])
def test_what_would_change_the_splits_of_an_export_is_refused(
    tmp_path: Path, key: str, value: Any
) -> None:
    path = write_changed(tmp_path, f"split.{key}", value)
    path.write_text(path.read_text().replace("from: draw", "from: export"))
    with pytest.raises(UserError, match=rf"split\.{key}: needs split.from: draw"):
        load_params(path)


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    path = write_changed(tmp_path, "filter.max_instances", -1)
    path.write_text(path.read_text().replace("epochs:", "epoch:"))
    with pytest.raises(UserError, match=r"filter.max_instances: .*; train.epochs: missing.*epoch:"):
        load_params(path)


def test_a_value_that_should_match_is_described_in_words(tmp_path: Path) -> None:
    path = write_changed(tmp_path, "runtime.device", "gpu")
    with pytest.raises(UserError, match=r"should be auto, cpu, mps, .*\(is 'gpu'\)"):
        load_params(path)


def test_numbers_are_read_as_dvc_writes_them(tmp_path: Path) -> None:
    path = write_changed(tmp_path, "train.lr", 1)
    path.write_text(path.read_text().replace("lr: 1\n", "lr: 1e-05\n"))
    assert load_params(path).train.lr == 1e-5


NUMBERS = st.from_regex(r"[-+]?(0[box])?[0-9a-fA-F_.eE:]{1,8}([eE][-+]?\d{1,2})?", fullmatch=True)
WORDS = """
yes no on off y N true False TRUE tRUE null ~ Null .inf -.INF .nan = 0o17 017 09 0b11 0x1F
1_000 1:30 190:20:30.15 1e-05 1e5 1.e3 2026-11-24 '' '1' "yes" _1 +1"""
SPECIAL = st.sampled_from(WORDS.split())
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


def test_the_line_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = write_changed(tmp_path, "train.lr", 1)
    text = path.read_text().replace("    val:", "\tval:")
    path.write_text(text)
    line = text[: text.index("\t")].count("\n") + 1
    with pytest.raises(UserError, match=rf"not valid YAML: line {line}: found character"):
        load_params(path)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = write_changed(tmp_path, "train.lr", 1)
    path.write_text(path.read_text().replace("  lr: 1\n", "  lr: 1\n  lr: 2\n"))
    with pytest.raises(UserError, match='duplicate key "lr"'):
        load_params(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"- a\n", b"a: [", b"\xff\xfe\x00", b"a: 1\na: &x *x\n", b"a: 2026-99-99", b"a: \x01"],
)
def test_a_file_that_is_no_parameter_file_is_refused_in_one_line(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_params(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the project's folder"):
        load_params(tmp_path / "params.yaml")


def test_a_folder_of_that_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        load_params(tmp_path)


def test_an_architecture_that_can_be_chosen_is_known_to_the_model_and_to_predictions() -> None:
    choices = set(get_args(TrainParams.model_fields["architecture"].annotation))
    assert choices == set(networks.BACKBONES) == set(networks.OUTPUT_STRIDES)


def test_classes_are_a_list_or_the_word_all(tmp_path: Path) -> None:
    assert load_params(write_changed(tmp_path, "filter.classes", "all")).filter.classes == "all"
    with pytest.raises(UserError, match=r"filter\.classes: input should be 'all' \(is 'dog'\)$"):
        load_params(write_changed(tmp_path, "filter.classes", "dog"))


def test_folds_are_drawn(tmp_path: Path) -> None:
    path = write_changed(tmp_path, "split.fold", 0)
    path.write_text(path.read_text().replace("from: draw", "from: export"))
    with pytest.raises(UserError, match=r"split\.fold: needs split\.from: draw"):
        load_params(path)
