"""The report of a run."""

import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cocoseg.core.errors import UserError
from cocoseg.evaluation.label_errors import LABEL_ERROR_VIEWS, LabelError, write_label_errors
from cocoseg.params.reader import load_params
from cocoseg.reports.html import line_chart, size
from cocoseg.reports.run import (
    deviations_from_protocol,
    is_comparable,
    make_report,
    read_hashes,
    read_machine_figures,
)
from tests import ROOT
from tests.pages import (
    MEASURE,
    Text,
    ask_in_browser,
    check_accessibility,
    check_links,
    check_print,
    needs_browser,
    run_browser,
)

CLASSES = ["background", "person", "bicycle", "car", "motorcycle", "airplane"]
FRACTIONS = {("car", "person"): 0.25, ("bicycle", "bicycle"): 0.6}
VIEWS = ["image", "ground_truth", "prediction", "errors"]


def update(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def preset(name: str) -> dict[str, Any]:
    values = load_params(ROOT / f"presets/{name}.yaml").values
    return {key: dict(value) for key, value in values.items() if key not in ("runtime", "report")}


def variant(**figures: Any) -> dict[str, Any]:
    return {"agreement": 0.99987, "miou": 0.6, "largest_score_difference": 0.0, **figures}


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """Small results of all other stages."""
    directory = tmp_path / "metrics"
    by_class = {
        "iou": 0.5,
        "dice": 0.6667,
        "precision": 0.7,
        "recall": 0.6,
        "boundary_iou": 0.3,
        "iou_interval": {"low": 0.4, "high": 0.6},
        "images": 5,
        "pixels": 12345,
    }
    missing = dict.fromkeys(by_class) | {
        "iou_interval": {"low": None, "high": None},
        "images": 0,
        "pixels": 0,
    }
    files: dict[str, Any] = {
        "test.json": {
            "miou": 0.54321,
            "miou_interval": {"low": 0.5, "high": 0.58},
            "boundary_miou": 0.3,
            "pixel_accuracy": 0.9,
            "mean_accuracy": 0.8,
            "iou": {name: None if name == "airplane" else 0.5 for name in CLASSES},
            "images": 5,
        },
        "val.json": {
            "miou": 0.65432,
            "miou_interval": {"low": 0.6, "high": 0.7},
            "iou": dict.fromkeys(CLASSES, 0.6321),
        },
        "test_details.json": {
            "classes": {name: missing if name == "airplane" else by_class for name in CLASSES},
            "sizes": {
                name: {
                    "area_below": limit,
                    "objects": objects,
                    "objects_found": 0.5 if objects else None,
                    "pixels": 100 * objects,
                    "recall": 0.4 if objects else None,
                }
                for name, limit, objects in (
                    ("small", 1024, 4),
                    ("medium", 9216, 0),
                    ("large", None, 1),
                )
            },
            "calibration_error": 0.02,
            "examples": [
                {"name": "1_best", "image": "a <b>.jpg", "reason": "best by mean IoU", "miou": 0.9},
                {"name": "4_person", "image": "c.jpg", "reason": "typical person", "miou": 0.4},
            ],
        },
        "filter.json": {
            "images_total": 70,
            "images_kept": 60,
            "images_dropped": {"no_selected_class": 10},
            "annotations_total": 192,
            "annotations_kept": 190,
            "annotations_dropped": {"polygon_odd": 2},
            "classes": {name: {"images": 12, "instances": 38} for name in CLASSES[1:]},
        },
        "mask.json": {
            "masks": 60,
            "pixels": 1000,
            "fraction": dict.fromkeys([*CLASSES, "ignored"], 0.1),
        },
        "split.json": {
            **{
                name: {"images": images, "classes": dict.fromkeys(CLASSES[1:], 3)}
                for name, images in (("train", 48), ("val", 6), ("test", 6))
            },
            "near_duplicates": {"pairs": 7, "across_splits": 2},
        },
        "train/metrics.json": {
            "epoch": 2,
            "val": {"miou": 0.5},
            "weights": "random weights",
            "pretraining_overlap": False,
        },
        "machine/train.json": {
            "seconds": 281.67,
            "peak_memory_mib": 1903,
            "cpus": 2,
            "machine": "Linux x86_64",
            "python": "3.11.7",
            "device": "cpu",
            "crops_per_second": 20.6,
        },
        "export.json": {
            "images": 6,
            "opset": 18,
            "variants": {
                "float32": variant(written=True, bytes=44_100_000, loss=0.0),
                "int8": variant(written=False, bytes=11_300_000, loss=0.0234, in_float=["stem"]),
            },
        },
        "machine/export.json": {"latency_ms": {"pytorch": 25.5, "float32": 12.5}},
    }
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(json.dumps(content))
    tables = {
        "plots/confusion.csv": "ground_truth,prediction,fraction,pixels\n"
        + "".join(
            f"{t},{p},{FRACTIONS.get((t, p), float(t == p))},9\n" for t in CLASSES for p in CLASSES
        ),
        "plots/images.csv": "fraction,miou,image\n0.5,0.4,c\n1.0,0.9,a\n",
        "plots/reliability.csv": "confidence,accuracy,pixels\n0.5,0.4,10\n0.9,0.95,90\n",
    }
    curves = {"loss": "loss", "epoch": "epoch", "val/miou": "miou", "val/iou/person": "person"}
    for path, column in curves.items():
        tables[f"train/plots/metrics/{path}.tsv"] = f"step\t{column}\n0\t0.2\n1\t0.5\n"
    for name, text in tables.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "panels").mkdir()
    for number, name in enumerate(("1_best", "4_person")):
        for color, view in enumerate(VIEWS):
            panel = Image.new("RGB", (60, 40), (60 * color, 100, 200 * number))
            panel.save(directory / f"panels/{name}_{view}.jpg")
    label_errors = [
        LabelError(7, None, "a <b>.jpg", "background", "car", "missing", 0.97, 1, 2, 30, 20, 400),
        LabelError(8, 81, "c.jpg", "car", "person", "wrong class", 0.9, 1, 2, 30, 20, 400),
        LabelError(9, 90, "d.jpg", "car", "car", "outline", 0.6, 1, 2, 30, 20, 400),
    ]
    write_label_errors(directory / "label_errors.csv", label_errors)
    for number in (1, 2):
        for view in LABEL_ERROR_VIEWS:
            Image.new("RGB", (50, 50), (200, 60 * number, 90)).save(
                directory / f"panels/label_error_{number}_{view}.jpg"
            )
    return directory


@pytest.fixture
def page(metrics: Path) -> str:
    return make_report(metrics, preset("sample"), metrics / "no dvc.lock", "A title & more")


SWITCH = """
<script>
const shown = view => [...document.querySelectorAll('.example')].map(
  example => [...example.querySelectorAll('img')].filter(i => i.offsetWidth).map(i => i.alt)[0]);
const result = {before: shown(), after: {}};
for (const view of ['image', 'ground_truth', 'prediction', 'errors']) {
  document.querySelector(`.example label[for$="-${view}"]`).click();
  result.after[view] = shown();
}
document.title = JSON.stringify(result);
</script>
"""


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_all_images_load_without_a_request_and_the_page_fits(
    tmp_path: Path, page: str, width: int
) -> None:
    found, log = ask_in_browser(tmp_path / "checked.html", page, MEASURE, width)
    assert found["images"].count(60) == 8  # views of two examples
    assert found["images"].count(50) == 6  # views of two label errors
    assert len(found["images"]) == 8 + 6 + 5 and all(found["images"])
    assert found["requests"] == []
    assert found["excess"] <= 0
    assert "CONSOLE" not in log


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_the_text_is_readable_and_the_keyboard_scrolls_wide_tables(
    tmp_path: Path, page: str, width: int, dark: bool
) -> None:
    found = check_accessibility(tmp_path / "checked.html", page, width, dark=dark)
    assert found["matrix"] == len(CLASSES) ** 2
    assert (found["scrolled"] > 0) == (width == 390)


@needs_browser
def test_nothing_overlaps_in_print(tmp_path: Path, page: str) -> None:
    check_print(tmp_path / "checked.html", page)


@needs_browser
def test_in_a_browser_the_buttons_switch_the_views_of_an_example(tmp_path: Path, page: str) -> None:
    found, _ = ask_in_browser(tmp_path / "checked.html", page, SWITCH, 1280)
    assert found["before"] == ["prediction of a <b>.jpg", "prediction of c.jpg"]
    for view in VIEWS:
        shown = view.replace("_", " ")
        assert found["after"][view] == [f"{shown} of a <b>.jpg", "prediction of c.jpg"]


@needs_browser
def test_the_page_logs_nothing_on_the_console_and_is_drawn(tmp_path: Path, page: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    result = run_browser(file, "--window-size=800,600", f"--screenshot={tmp_path / 'shot.png'}")
    assert "CONSOLE" not in result.stderr
    with Image.open(tmp_path / "shot.png") as shot:
        colors = shot.convert("RGB").getcolors(1 << 20)
    assert colors is not None and len(colors) > 20


@needs_browser
def test_a_message_on_the_console_is_detected(tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text("<script>console.error('seen')</script>", encoding="utf-8")
    assert "CONSOLE" in run_browser(file, "--dump-dom").stderr


def test_all_links_lead_to_sections_and_nothing_is_external(page: str) -> None:
    check_links(page, 9)


def test_the_page_shows_the_figures_of_the_files(page: str) -> None:
    text = str(Text(page))
    for expected in (
        "A title & more",
        "Mean IoU 0.543 95% interval 0.500 to 0.580",
        "in the source 70",
        "no selected class 10",
        "kept 60",
        "polygon odd 2",
        "small below 1,024 4 0.500 0.400",
        "medium below 9,216 0 – –",  # noqa: RUF001
        "int8 (not written) 11.3 MB 0.26 99.99% 0.600 0.0234",
        "train 281.67 1,903 cpu 2 Linux x86_64 3.11.7 crops per second 20.6",
        "max_instances 10",
        "calibration error: 0.020",
        "ignored (not scored) 10.00%",
        "Near-duplicates: 7 pairs of images, 2 of them in different splits.",
    ):
        assert expected in text
    assert "<b>" not in page.replace("&lt;b&gt;", "")


def test_rows_of_the_confusion_matrix_are_the_ground_truth(page: str) -> None:
    text = str(Text(page))
    assert " car 0.00 0.25 0.00 1.00 0.00 0.00 " in text
    assert " person 0.00 1.00 0.00 0.00 0.00 0.00 " in text


def test_the_confusion_matrix_of_many_classes_shows_the_most_confused(metrics: Path) -> None:
    names = CLASSES + [f"class {label}" for label in range(len(CLASSES), 30)]
    confused = set(itertools.pairwise(names[10:]))
    rows = [
        f"{t},{p},{0.125 if (t, p) in confused else 0.0},{9 if t == p or (t, p) in confused else 0}"
        for t in names
        for p in names
    ]
    header = "ground_truth,prediction,fraction,pixels"
    (metrics / "plots/confusion.csv").write_text("\n".join([header, *rows]))
    details = json.loads((metrics / "test_details.json").read_text())["classes"]
    for split in ("val", "test"):
        update(metrics / f"{split}.json", iou=dict.fromkeys(names, 0.5))
    update(metrics / "test_details.json", classes=dict.fromkeys(names, details["person"]))
    page = make_report(metrics, preset("sample"), metrics / "dvc.lock", "x")
    matrix = page[page.index('class="heat') : page.index("Recall by object size")]
    assert re.findall(r'<th scope="col">(.*?)<', matrix) == names[10:]
    first_row = matrix[matrix.index('scope="row"') :]
    assert re.findall(r"<td.*?>(.*?)<", first_row)[:3] == ["0.00", "0.12", "0.00"]
    assert "for the 20 classes with the most wrong pixels" in str(Text(page))


def test_curves_count_epochs_from_one_and_mark_the_best(page: str) -> None:
    section = page[page.index('id="training"') : page.index('id="export"')]
    charts = [drawn(uri) for uri in re.findall(r'src="(data:image/svg[^"]*)"', section)]
    assert len(charts) == 3
    for svg in charts:
        assert re.findall(r">(\d+)</text>", svg) == ["1", "2"]
        assert "stroke-dasharray" in svg


def test_the_page_shows_label_errors_with_the_ids_that_exclude_them(
    page: str, metrics: Path
) -> None:
    text = str(Text(page))
    assert "The first 2 of 3 are shown" in text
    assert "1. Missing , score 0.97" in text
    assert "annotated as background, predicted as car a <b>.jpg, image 7 image" in text
    assert "annotated as car, predicted as person c.jpg, image 8, annotation 81" in text
    assert "data/exclude.csv" in text
    write_label_errors(metrics / "label_errors.csv", [])
    for panel in metrics.glob("panels/label_error_*"):
        panel.unlink()
    page = make_report(metrics, preset("sample"), metrics / "dvc.lock", "x")
    assert "No potential label errors" in str(Text(page))


def test_without_export_the_page_has_no_export_section(metrics: Path) -> None:
    (metrics / "export.json").unlink()
    page = make_report(metrics, preset("sample"), metrics / "dvc.lock", "x")
    assert 'id="export"' not in page and 'href="#export"' not in page


def test_the_sample_is_not_compared_with_the_published_score(page: str) -> None:
    text = str(Text(page))
    assert "Do not compare" in text and "above" not in text
    assert "say nothing about photographs" in text


def test_coco_with_the_published_classes_is_compared_and_deviations_are_listed(
    metrics: Path,
) -> None:
    params = preset("coco_val2014")
    text = str(Text(make_report(metrics, params, metrics / "dvc.lock", "x")))
    assert "0.524" in text and "0.019 above" in text
    assert "the run has 60 images, not 8,000" in text
    seen = {"background": 0.9, "person": 0.7}
    assert deviations_from_protocol(params, 8000, seen) == []
    assert deviations_from_protocol(params, 8000, {**seen, "bicycle": None}) == [
        "the mean excludes bicycle, which no test image shows"
    ]
    params["filter"]["max_instances"] = 15
    params["split"]["ratios"] = {"train": 7.0, "val": 1.0, "test": 2.0}
    params["filter"] |= {"out_of_bounds": "clip", "empty_fraction": 0.2}
    assert deviations_from_protocol(params, 8000, seen) == [
        "filter.max_instances is 15, not 10",
        "filter.out_of_bounds is clip, not drop",
        "filter.empty_fraction is 0.2, not 0",
        "split.ratios is train 7, val 1, test 2, not train 8, val 1, test 1",
    ]
    test = json.loads((metrics / "test.json").read_text())
    del test["iou"]["airplane"]
    assert not is_comparable(params, list(test["iou"]))
    params["download"]["source"] = "files"
    text = str(Text(make_report(metrics, params, metrics / "dvc.lock", "x")))
    assert "used other images" in text


def test_the_report_says_which_scores_have_test_time_augmentation(metrics: Path, page: str) -> None:
    assert "test-time augmentation" not in page
    params = preset("sample")
    params["evaluate"] |= {"scales": [0.75, 1.0], "flip": True}
    text = str(Text(make_report(metrics, params, metrics / "dvc.lock", "x")))
    views = "scales 0.75, 1, mirror images"
    assert (
        f"All scores on this page except those of Export are with test-time augmentation: {views}"
        in text
    )
    assert f"The mean IoU in this table is without test-time augmentation ({views})" in text


def test_the_report_says_that_exported_files_with_a_fixed_size_have_other_scores(
    metrics: Path, page: str
) -> None:
    assert "export.fixed_size" not in page.partition('id="export"')[2].partition("</section>")[0]
    params = preset("sample")
    params["export"]["fixed_size"] = [64, 96]
    text = str(Text(make_report(metrics, params, metrics / "dvc.lock", "x")))
    assert "that of images resized to 96x64 ( export.fixed_size ); the other scores" in text


def test_validation_scores_are_beside_the_test_scores(page: str) -> None:
    text = str(Text(page))
    assert "Mean IoU 0.543 95% interval 0.500 to 0.580 Validation mean IoU 0.654 95%" in text
    assert "person 0.500 0.632 0.300 0.667" in text
    assert "cocoseg runs --split test counts the models" in text


def test_an_undefined_mean_iou_is_explained(metrics: Path) -> None:
    nothing = {"miou": None, "boundary_miou": None, "mean_accuracy": None}
    for split in ("val", "test"):
        update(metrics / f"{split}.json", **nothing, miou_interval={"low": None, "high": None})
    update(metrics / "train/metrics.json", val={"miou": None})
    for name in ("sample", "coco_val2014"):
        page = make_report(metrics, preset(name), metrics / "dvc.lock", "x")
        assert "<title>x: mean IoU undefined</title>" in page
        text = str(Text(page))
        assert "Mean IoU undefined no test mask shows a class" in text
        assert "Validation mean IoU undefined no validation mask shows a class" in text
        assert (
            "because no validation mask shows a class. All scores are for the last epoch, 2" in text
        )
        assert "99.99% undefined 0.0234" in text
        assert ("this run has no mean IoU. This run differs" in text) == (name == "coco_val2014")


def test_false_alarms_in_images_without_objects_have_a_tile(metrics: Path, page: str) -> None:
    assert "False alarms" not in page
    update(
        metrics / "test.json",
        empty_images={"images": 4, "false_alarms": 0.25, "false_pixels": 0.0123},
    )
    text = str(Text(make_report(metrics, preset("sample"), metrics / "dvc.lock", "x")))
    assert "False alarms 25% of 4 test images without objects; 1.2% of their pixels" in text


def test_the_report_names_the_category_of_a_merged_class(metrics: Path) -> None:
    error = LabelError(8, 81, "c.jpg", "car", "person", "extra", 0.9, 1, 2, 30, 20, 400, "truck")
    write_label_errors(metrics / "label_errors.csv", [error])
    text = str(Text(make_report(metrics, preset("sample"), metrics / "dvc.lock", "x")))
    assert "annotated as car (truck), predicted as person c.jpg" in text


def test_a_notice_warns_of_weights_that_were_trained_on_test_images(metrics: Path) -> None:
    train = json.loads((metrics / "train/metrics.json").read_text())
    train |= {"weights": "torchvision's COCO weights", "pretraining_overlap": True}
    (metrics / "train/metrics.json").write_text(json.dumps(train))
    text = str(Text(make_report(metrics, preset("coco_val2014"), metrics / "dvc.lock", "x")))
    assert "the scores are too high" in text
    text = str(Text(make_report(metrics, preset("own_data"), metrics / "dvc.lock", "x")))
    assert "the scores are too high" not in text


def test_a_damaged_file_is_an_error_with_its_path(metrics: Path) -> None:
    (metrics / "split.json").write_text("{")
    with pytest.raises(UserError, match=r"split\.json is damaged: remove it"):
        make_report(metrics, preset("sample"), metrics / "dvc.lock", "x")


def test_an_unfinished_training_is_an_error(metrics: Path) -> None:
    so_far = {"loss": 1.2, "lr": 0.004, "val": {"miou": 0.2}, "step": 3}
    (metrics / "train/metrics.json").write_text(json.dumps(so_far))
    with pytest.raises(
        UserError, match=r"the training has not finished; resume it with `dvc repro`"
    ):
        make_report(metrics, preset("sample"), metrics / "dvc.lock", "x")


def test_machine_figures_cover_all_stages_that_the_report_depends_on(
    tmp_path: Path,
) -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    depends = [Path(dep) for dep in stages["report"]["deps"] if dep.startswith("metrics/machine/")]
    for path in depends:
        (tmp_path / path.name).write_text('{"seconds": 1}')
    assert list(read_machine_figures(tmp_path)) == [path.stem for path in depends]


def test_hashes_are_read_from_dvc_lock_for_data_and_models_only(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    outs = [
        {"path": "data/masks", "hash": "md5", "md5": "0a.dir", "size": 5_300_000, "nfiles": 600},
        {"path": "metrics/mask.json", "hash": "md5", "md5": "0b", "size": 300},
    ]
    stages = {"mask": {"cmd": "x", "outs": outs}, "train": {"cmd": "y"}}
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    expected = [{"path": "data/masks", "md5": "0a.dir", "size": 5_300_000, "files": 600}]
    assert read_hashes(lock) == expected
    assert read_hashes(tmp_path / "none") == []


def test_the_page_shows_hashes_with_formatted_sizes(metrics: Path, tmp_path: Path) -> None:
    out = {"path": "models/model.safetensors", "hash": "md5", "md5": "abc123", "size": 44_100_000}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"train": {"outs": [out]}}}))
    page = make_report(metrics, preset("sample"), tmp_path / "dvc.lock", "x")
    assert "models/model.safetensors 1 44.1 MB abc123" in str(Text(page))
    assert [size(n) for n in (999, 1000, 2_500_000_000, 10**13)] == [
        *("999 bytes", "1 kB", "2.5 GB", "1e+04 GB")
    ]


def drawn(uri: str) -> str:
    """The SVG of a chart's data URI."""
    return base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()


def test_a_line_chart_has_its_points_its_label_and_ticks_at_whole_epochs() -> None:
    points = [(1.0, 0.0), (2.0, 5.0), (3.0, 2.5)]
    svg = drawn(line_chart({"a": points}, {"a": "#123456"}, x_label="epoch <1>", whole_x=True))
    path = re.search(r'<path d="([^"]*)"[^>]*stroke: #123456', svg)
    assert path
    xs, ys = zip(
        *(map(float, pair) for pair in re.findall(r"[ML] (\S+) (\S+)", path[1])), strict=True
    )
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1])
    assert ys[0] - ys[2] == pytest.approx((ys[0] - ys[1]) / 2)
    assert "epoch &lt;1&gt;" in svg
    ticks = re.findall(r">([\d.]+)</text>", svg)
    assert ticks[:3] == ["1", "2", "3"]


def test_a_chart_always_has_the_same_bytes() -> None:
    charts = [
        line_chart({"a": [(0.0, 1.0), (1.0, 2.0)]}, {"a": "#123456"}, x_label="x", dots=True)
        for _ in range(2)
    ]
    assert charts[0] == charts[1]


def test_a_single_point_is_drawn_as_a_dot() -> None:
    svg = drawn(line_chart({"a": [(1.0, 0.5)]}, {"a": "#123456"}, x_label="epoch", whole_x=True))
    assert len(re.findall(r"<use [^>]*fill: #123456", svg)) == 1
