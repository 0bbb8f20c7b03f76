"""The data page, made by the stage `inspect`."""

import base64
import csv
import io
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rasterize import write_masks
from cocoseg.coco.rejections import (
    Reason,
    invalid_annotations,
    read_rejections,
    write_rejections,
)
from cocoseg.core.errors import UserError
from cocoseg.core.files import write_json
from cocoseg.curation.near_duplicates import (
    NearDuplicate,
    count_near_duplicates,
    write_near_duplicates,
)
from cocoseg.curation.selection import write_selection
from cocoseg.curation.splits import split_images, summarize_splits, write_splits
from stages import inspect
from tests import ROOT
from tests.coco_files import annotation, image, select_from, write_instances
from tests.pages import (
    MEASURE,
    Outline,
    Text,
    ask_in_browser,
    check_accessibility,
    check_links,
    check_print,
    needs_browser,
)

HOSTILE = "</h3><script>alert(1)</script> 'a' \"b\" & ../猫 / кот"
NAMES = [HOSTILE, "dog", "long " * 30]
CATEGORIES = [{"id": 10 * n, "name": name} for n, name in enumerate(NAMES, start=1)]
CATEGORIES.append({"id": 40, "name": "<b>other</b>"})

OUTLINE = [[20.0, 20.0, 60.0, 24.0, 70.0, 70.0, 30.0, 60.0]]
BROKEN: list[Any] = [
    None,
    [],
    [[1.0, 2.0, 30.0]],
    [[1.0, 2.0, 30.0, 2.0, 30.0, 40.0, 5.0]],
    [[-5.0, 2.0, 30.0, 2.0, 30.0, 40.0]],
    [[5.0, 2.0, 3000.0, 2.0, 30.0, 40.0]],
    {"size": [3, 3], "counts": [9]},
    {"size": [80, 100], "counts": [9]},
    "no outline",
]


def write_project(directory: Path, document: Path, classes: list[Any], **limits: Any) -> None:
    """Write the inputs of `inspect`, except the annotations."""
    for name in ("data/images", "data/masks", "data/splits"):
        (directory / name).mkdir(parents=True)
    selection = select_from(document, tuple(classes), **limits)
    write_selection(directory / "data/selection.json", selection.instances)
    source = read_instances(document).instances
    write_rejections(directory / "data/rejected.csv", selection.rejections, source)
    kept = read_instances(directory / "data/selection.json").instances
    masks = write_masks(kept, directory / "data/masks", overlap="last", crowd="ignore", workers=1)
    splits = split_images(kept, {"train": 8, "val": 1, "test": 1}, seed=0)
    in_order = [stem for name in ("train", "val", "test") for stem in splits[name]]
    pairs = [
        NearDuplicate(*in_order[:2], 0.98),
        NearDuplicate(in_order[0], in_order[-1], 0.95),
        NearDuplicate(*in_order[2:4], 0.96),
    ]
    write_splits(directory / "data/splits", splits)
    write_near_duplicates(directory / "data/near_duplicates.csv", pairs)
    near = count_near_duplicates(pairs, splits)
    contents = {
        "filter": selection.summary(),
        "mask": masks,
        "split": {**summarize_splits(kept, splits), "near_duplicates": near},
    }
    for name, content in contents.items():
        write_json(directory / f"metrics/{name}.json", content)
    for entry in kept.images:
        noise = np.random.default_rng(entry.id).integers(0, 256, (6, 8, 3), np.uint8)
        pixels = Image.fromarray(noise).resize((entry.width, entry.height))
        pixels.save(directory / "data/images" / entry.file_name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["runtime"]["workers"] = 0
    params["filter"]["classes"] = classes
    (directory / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unusual and invalid data under hostile names, and its page."""
    directory = tmp_path_factory.mktemp("project")
    images = [image(n, 100, 80) for n in range(1, 31)]
    images += [
        image(31, 100, 80, file_name="../<i>x</i>.jpg"),
        image(32, 0, 80),
        image(33, 100, 80),  # only a class that is not selected
        image(34, 80, 100),  # too many instances
        image(35, 100, 80),  # no valid annotation
        {"id": 36, "file_name": 7},
        image(37, 100, 80),  # no annotation
        image(1, 100, 80, file_name="../../again.jpg"),
    ]
    entries = [annotation(n, n, OUTLINE, category_id=10) for n in range(1, 26)]
    entries += [annotation(30 + n, n, OUTLINE, category_id=20) for n in range(26, 31)]
    entries += [annotation(40 + n, n, OUTLINE, iscrowd=1, category_id=10) for n in (1, 2)]
    entries += [annotation(50 + n, n + 1, broken) for n, broken in enumerate(BROKEN)]
    entries += [
        annotation(1, 3, OUTLINE),  # a duplicate id
        annotation(71, 99),  # an unknown image
        annotation(72, 33, OUTLINE, category_id=40),
        *(annotation(80 + n, 34, OUTLINE) for n in range(11)),
        annotation(91, 35, [[1.0, 2.0, 3.0]]),
        annotation(92, 31, OUTLINE),
        annotation(93, 32, OUTLINE),
        {"id": 94, "image_id": 4, "category_id": 10, "iscrowd": 5},
        annotation(95, 5, [[3.0, 3.0, 6.0, 3.0, 6.0, 6.0]], category_id=20),
    ]
    (directory / "data/annotations").mkdir(parents=True)
    document = directory / "data/annotations/instances.json"
    write_instances(document, images, entries, CATEGORIES)
    write_project(directory, document, NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        inspect.main()
    return directory


@pytest.fixture(scope="module")
def page(project: Path) -> str:
    return (project / "metrics/data.html").read_text(encoding="utf-8")


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_all_images_load_without_a_request_and_the_page_fits(
    tmp_path: Path, page: str, width: int
) -> None:
    found, log = ask_in_browser(tmp_path / "checked.html", page, MEASURE, width)
    assert len(found["images"]) > 25 and all(found["images"])
    assert found["requests"] == []
    assert found["excess"] <= 0
    assert "CONSOLE" not in log


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_text_is_readable_and_the_keyboard_scrolls_wide_tables(
    tmp_path: Path, page: str, dark: bool
) -> None:
    found = check_accessibility(tmp_path / "checked.html", page, 390, dark=dark)
    assert found["matrix"] and found["scrolled"]


@needs_browser
def test_nothing_overlaps_in_print(tmp_path: Path, page: str) -> None:
    check_print(tmp_path / "checked.html", page)


def test_names_are_escaped(page: str) -> None:
    outline = Outline(page)
    assert not {"script", "b", "i"} & outline.tags
    text = str(Text(page))
    assert HOSTILE in text and "<b>other</b> (1)" in text and "../<i>x</i>.jpg" in text


def test_all_images_have_alternative_texts_and_heading_levels_have_no_gaps(page: str) -> None:
    outline = Outline(page)
    assert all(image["alt"] for image in outline.images)
    levels = outline.headings
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= level + 1 for level, later in itertools.pairwise(levels))
    assert 'lang="en"' in page
    check_links(page, 9)


def test_each_reason_for_rejection_has_its_count_meaning_and_remedy(
    project: Path, page: str
) -> None:
    counts = json.loads((project / "metrics/filter.json").read_text())
    rejections = read_rejections(project / "data/rejected.csv")
    text = str(Text(page))
    invalid = {r.reason for r in invalid_annotations(rejections)}
    expected = {("images", Reason(key)): n for key, n in counts["images_dropped"].items()}
    expected |= {
        ("annotations", reason): counts["annotations_dropped"][reason] for reason in invalid
    }
    assert len(expected) == 12
    for (entries, reason), count in expected.items():
        heading = f"{reason.replace('_', ' ')}: {count} {entries if count > 1 else entries[:-1]}"
        explanation = f"{reason.meaning} {reason.remedy}".replace("`", "")
        assert re.sub(r"\W+", "", f"{heading}{explanation}") in re.sub(r"\W+", "", text)
    assert "than <code>filter.max_instances</code>. Raise" in page


def test_data_json_has_the_figures_of_the_selection(project: Path, page: str) -> None:
    figures = json.loads((project / "metrics/data.json").read_text())
    selection = read_instances(project / "data/selection.json").instances
    objects = [a for a in selection.annotations if not a.iscrowd]
    assert figures["images"] == len(selection.images) == 30
    assert figures["instances"] == len(objects) == 31
    assert figures["crowd_regions"] == 2
    assert figures["objects"]["tiny"] == 1
    assert [figures["classes"][name]["images"] for name in NAMES] == [25, 6, 0]
    assert figures["classes"][NAMES[2]]["median_area"] is None
    assert figures["warnings"] == page.count('<li class="notice">') > 3


def test_positions_and_cooccurrence_are_by_class(page: str) -> None:
    # The centroid of OUTLINE in images of 100 x 80 pixels.
    assert "center 45% from the left, 54% from the top; darkest: 100% of its images" in page
    table = page[page.index('id="co-occurrence"') : page.index('id="near-duplicates"')]
    # One of 25 images of the first class shows the second, which 6 images show.
    assert re.findall(r">(\d+)%</td>", table) == ["4", "0", "17", "0", "0", "0"]


def test_near_duplicates_in_different_splits_come_first(page: str) -> None:
    text = str(Text(page))
    assert "3 pairs of near-duplicates, 1 in different splits" in text
    titles = re.findall(r"train(?: and test)?, similarity 0\.\d+", text)
    assert titles == [
        "train and test, similarity 0.95",
        "train, similarity 0.98",
        "train, similarity 0.96",
    ]
    assert "1 pair of near-duplicates is in different splits" in text


def test_the_plots_have_all_classes_and_sizes(project: Path) -> None:
    rows = {}
    for name in ("classes", "sizes"):
        with (project / f"metrics/data/{name}.csv").open(encoding="utf-8", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    assert [row["class"] for row in rows["classes"]] == NAMES
    assert [row["images"] for row in rows["classes"]] == ["25", "6", "0"]
    assert sum(int(row["instances"]) for row in rows["sizes"]) == 31


def test_the_log_repeats_the_first_warnings_and_a_rerun_writes_the_same_bytes(
    project: Path, page: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(project)
    before = {p: p.read_bytes() for p in (project / "metrics").rglob("*") if p.is_file()}
    with caplog.at_level("INFO"):
        inspect.main()
    *logged, last = [record.message for record in caplog.records]
    text = str(Text(page))
    positions = [text.index(line.removeprefix("data warning: ")) for line in logged]
    assert len(positions) == 3 and positions == sorted(positions)
    more = page.count('<li class="notice">') - 3
    assert re.fullmatch(rf"metrics/data\.html: .* MB, .*; it shows {more} more data warnings", last)
    assert "1 annotation has fewer than 16 pixels. 5.jpg" in text
    assert {p: p.read_bytes() for p in (project / "metrics").rglob("*") if p.is_file()} == before


def test_the_page_shows_empty_images_merged_classes_ignored_and_clipped_annotations(
    tmp_path: Path,
) -> None:
    names = ("sheep", "cow", "bird")
    categories = [{"id": id, "name": name} for id, name in enumerate(names, start=1)]
    beyond = [[-2.5, 10.0, 40.0, 10.0, 40.0, 50.0]]
    entries = [annotation(n, n, OUTLINE, category_id=1) for n in range(1, 11)]
    entries += [
        annotation(20, 1, beyond, category_id=2),
        annotation(21, 2, None, category_id=2, bbox=[50, 5, 30, 20]),
        annotation(22, 21, OUTLINE, category_id=2),
        annotation(23, 21, OUTLINE, category_id=2),
        annotation(24, 21, OUTLINE, category_id=2),
    ]
    document = tmp_path / "data/annotations/instances.json"
    document.parent.mkdir(parents=True)
    write_instances(document, [image(n, 100, 80) for n in range(1, 22)], entries, categories)
    classes = [{"animal": ["sheep", "cow"]}]
    limits = {"max_instances": 2, "out_of_bounds": "clip", "empty_fraction": 0.5}
    write_project(tmp_path, document, classes, **limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        inspect.main()
    page = (tmp_path / "metrics/data.html").read_text(encoding="utf-8")
    text = str(Text(page))
    assert "20 of 21 in the source; 10 without objects" in text
    assert (
        "10 images have no annotation of a selected class (8 in train, 1 in val, 1 in test)" in text
    )
    assert "without objects 8 50% 1 50% 1 50%" in text
    empty = page[page.index('id="empty"') : page.index('id="dropped"')]
    shown = Outline(empty).images
    assert [str(i["alt"]).split(".")[0] for i in shown] == ["11", "13", "15", "16", "18", "20"]
    assert "1 dropped annotation in 1 kept image: pixels that may show" in text
    assert "1 kept annotation extends beyond the image, by up to 2.5 pixels, and is clipped" in text
    assert "annotation 21, cow" in text
    assert re.search(r"smallest: \d+ x \d+ pixels, cow", text)
    # An image with too many instances is drawn in the color of its class.
    rejected = page[page.index("too many instances: 1 image") :]
    uri = re.search(r'src="data:image/jpeg;base64,(.*?)"', rejected)
    assert uri and "cow (3)" in rejected
    with Image.open(io.BytesIO(base64.b64decode(uri[1]))) as drawn:
        red, green, blue = drawn.getpixel((drawn.width * 45 // 100, drawn.height // 2))
    assert red > green + 40 and red > blue + 40


def test_inspect_imports_neither_torch_nor_dvc() -> None:
    code = "import sys, stages.inspect; print([m for m in ('torch', 'dvc') if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_with_many_classes_each_has_one_example_and_tables_are_limited(tmp_path: Path) -> None:
    names = [f"kind {n}" for n in range(100)]
    categories = [{"id": n + 1, "name": name} for n, name in enumerate(names)]
    images = [image(n, 32, 24) for n in range(1, 101)]
    shape = [[4.0, 4.0, 20.0, 6.0, 12.0, 20.0]]
    entries = [annotation(n, n, shape, category_id=n) for n in range(1, 101)]
    document = tmp_path / "data/annotations/instances.json"
    document.parent.mkdir(parents=True)
    write_instances(document, images, entries, categories)
    write_project(tmp_path, document, names, max_images=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        inspect.main()
    page = (tmp_path / "metrics/data.html").read_text(encoding="utf-8")
    outline = Outline(page)
    # Examples, heat maps, near-duplicates and charts.
    assert len(outline.images) == 100 + 20 + 6 + 2
    assert "the 20 most frequent classes" in str(Text(page))
    assert outline.headings.count(3) < 20
    assert len(page) < 3_000_000


def test_a_missing_or_damaged_image_is_an_error(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    images = sorted((project / "data/images").iterdir())
    contents = [image.read_bytes() for image in images]
    try:
        for image in images:
            image.write_bytes(b"not an image")
        with pytest.raises(
            UserError, match=r"is not a JPEG.*; remove the file and run `dvc repro`"
        ):
            inspect.main()
        for image in images:
            image.unlink()
        with pytest.raises(UserError, match=r"\.jpg not found"):
            inspect.main()
    finally:
        for image, content in zip(images, contents, strict=True):
            image.write_bytes(content)


def test_thumbnails_fit_their_maximum_size(page: str) -> None:
    uris = re.findall(r'src="data:image/jpeg;base64,(.*?)"', page)
    assert len(uris) > 20
    for uri in uris:
        with Image.open(io.BytesIO(base64.b64decode(uri))) as thumbnail:
            assert thumbnail.width <= 400 and thumbnail.height <= 300
