"""The summary at the end of `make repro`."""

from pathlib import Path

import pytest

from cocoseg.core.files import write_json
from cocoseg.reports.summary import format_scores, main


def test_the_table_has_a_row_for_each_class_and_the_mean() -> None:
    scores = {
        "miou": 0.625,
        "pixel_accuracy": 0.9,
        "mean_accuracy": 0.8,
        "iou": {"background": 0.75, "person": 0.5, "car": None, "dog": 0.0},
        "images": 60,
    }
    lines = format_scores(scores).splitlines()
    assert "60 images" in lines[0]
    assert any(line.split() == ["person", "0.500", "#" * 10] for line in lines)
    assert any(line.split() == ["car", "undefined"] for line in lines)
    assert any(line.split() == ["dog", "0.000"] for line in lines)
    assert any(line.split()[:3] == ["mean", "IoU", "0.625"] for line in lines)


def test_an_undefined_mean_is_explained_and_false_alarms_are_counted() -> None:
    iou = {"background": 0.98, "car": 0.0}
    empty = {"images": 4, "false_alarms": 0.25, "false_pixels": 0.02}
    scores = {"miou": None, "pixel_accuracy": 0.98, "mean_accuracy": None, "iou": iou, "images": 4}
    text = format_scores({**scores, "empty_images": empty})
    assert "mean IoU    undefined" in text
    assert "mean IoU is undefined: no image shows a class" in text
    assert "4 images without objects: 25% with a false alarm" in text


def test_the_summary_has_the_scores_and_the_paths_of_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = {"miou": 0.5, "pixel_accuracy": 0.9, "mean_accuracy": 0.8, "iou": {"car": 0.5}}
    write_json(Path("metrics/test.json"), {**scores, "images": 60})
    main()
    printed = capsys.readouterr().out
    assert "car       0.500" in printed
    assert "metrics/report.html" in printed


def test_without_scores_the_error_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="run `make repro`"):
        main()
