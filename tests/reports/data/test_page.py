"""The page about the data: made by the stage itself, opened in a real browser."""

import base64
import csv
import io
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from cocoseg.coco.instances import read_instances
from cocoseg.coco.rasterize import write_masks
from cocoseg.core.errors import UserError
from cocoseg.core.files import write_json
from cocoseg.curation.near_duplicates import NearDuplicate, write_duplicates
from cocoseg.curation.selection import read_rejections, write_rejections, write_selection
from cocoseg.curation.splits import split_images, summarize_splits
from stages import inspect
from tests import ROOT
from tests.coco_files import annotation, image, select_from, write_instances
from tests.results.test_report import Text, ask_in_browser, needs_browser

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


def write_project(directory: Path, document: Path, classes: list[str], **limits: Any) -> None:
    """What the stages before inspect write, in a folder that has the annotations."""
    for name in ("data/images", "data/masks"):
        (directory / name).mkdir(parents=True)
    selection = select_from(document, tuple(classes), **limits)
    write_selection(directory / "data/selection.json", selection)
    write_rejections(directory / "data/rejected.csv", selection.rejections)
    kept = read_instances(directory / "data/selection.json").instances
    masks = write_masks(kept, directory / "data/masks", overlap="last", crowd="ignore", workers=1)
    splits = split_images(kept, {"train": 8, "val": 1, "test": 1}, seed=0)
    in_order = [stem for name in ("train", "val", "test") for stem in splits[name]]
    pairs = [
        NearDuplicate(*in_order[:2], 0.98),
        NearDuplicate(in_order[0], in_order[-1], 0.95),
    ]
    near = write_duplicates(directory / "data/near_duplicates.csv", pairs, splits)
    contents = {
        "filter": selection.summary(),
        "mask": masks,
        "split": {**summarize_splits(kept, splits), "near_duplicates": near},
    }
    for name, content in contents.items():
        write_json(directory / f"metrics/{name}.json", content)
    for entry in kept.images:
        noise = np.random.default_rng(entry.id).integers(0, 256, (6, 8, 3), np.uint8)
        photo = Image.fromarray(noise).resize((entry.width, entry.height))
        photo.save(directory / "data/images" / entry.file_name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["runtime"]["workers"] = 0
    (directory / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odd data under odd names, and the page about it."""
    directory = tmp_path_factory.mktemp("project")
    images = [image(n, 100, 80) for n in range(1, 31)]
    images += [
        image(31, 100, 80, file_name="../<i>x</i>.jpg"),
        image(32, 0, 80),
        image(33, 100, 80),  # of another class only
        image(34, 80, 100),  # too many
        image(35, 100, 80),  # nothing valid
        {"id": 36, "file_name": 7},
        image(37, 100, 80),  # nothing at all
        image(1, 100, 80, file_name="../../again.jpg"),
    ]
    entries = [annotation(n, n, OUTLINE, category_id=10) for n in range(1, 26)]
    entries += [annotation(30 + n, n, OUTLINE, category_id=20) for n in range(26, 31)]
    entries += [annotation(40 + n, n, OUTLINE, iscrowd=1, category_id=10) for n in (1, 2)]
    entries += [annotation(50 + n, n + 1, broken) for n, broken in enumerate(BROKEN)]
    entries += [
        annotation(1, 3, OUTLINE),  # an id that was there
        annotation(71, 99),  # of no image
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


class Outline(HTMLParser):
    """The headings of a page, and its pictures with their texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.pictures: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.pictures.append(dict(attrs))


SELF_CHECK = """
<script>
document.title = JSON.stringify({
  images: [...document.querySelectorAll('img')].map(i => i.naturalWidth),
  requests: performance.getEntriesByType('resource').map(e => e.name)
    .filter(name => !name.startsWith('data:')),
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
});
</script>
"""


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_every_picture_shows_and_nothing_is_requested(
    tmp_path: Path, page: str, width: int
) -> None:
    found, logged = ask_in_browser(tmp_path / "checked.html", page, SELF_CHECK, width)
    assert len(found["images"]) > 25 and all(found["images"])
    assert found["requests"] == []
    assert found["wide"] <= 0, "the page is wider than the window"
    assert "CONSOLE" not in logged


def test_names_of_any_kind_are_text_and_never_markup(page: str) -> None:
    outline = Outline(page)
    assert not {"script", "b", "i"} & outline.tags
    assert page.count("<script") == 0
    text = str(Text(page))
    assert HOSTILE in text and "<b>other</b> (1)" in text and "../<i>x</i>.jpg" in text


def test_every_picture_has_a_text_and_headings_leave_no_level_out(page: str) -> None:
    outline = Outline(page)
    assert all(picture["alt"] for picture in outline.pictures)
    assert all(str(picture["src"]).startswith("data:") for picture in outline.pictures)
    levels = outline.headings
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= level + 1 for level, later in itertools.pairwise(levels))
    targets = re.findall(r'href="#(\w+)"', page)
    assert len(targets) == 9 and all(f'id="{target}"' in page for target in targets)
    assert 'lang="en"' in page and "url(" not in page and "@import" not in page


def test_every_reason_for_dropping_is_shown_with_its_count(project: Path, page: str) -> None:
    counts = json.loads((project / "metrics/filter.json").read_text())
    text = str(Text(page))
    reasons = dict(counts["images_dropped"])
    own = {r.reason for r in read_rejections(project / "data/rejected.csv") if r.annotation_id}
    reasons |= {
        reason: n
        for reason, n in counts["annotations_dropped"].items()
        if reason not in counts["images_dropped"] and (reason in own)
    }
    assert len(reasons) > 12
    for reason, count in reasons.items():
        what = "images" if reason in counts["images_dropped"] else "annotations"
        expected = f"{reason.replace('_', ' ')}: {count} {what if count > 1 else what[:-1]}"
        assert expected in text
    assert "malformed annotation: 1 annotation" in text


def test_the_figures_are_those_of_the_selection(project: Path) -> None:
    figures = json.loads((project / "metrics/data.json").read_text())
    selection = read_instances(project / "data/selection.json").instances
    objects = [a for a in selection.annotations if not a.iscrowd]
    assert figures["images"] == len(selection.images) == 30
    assert figures["instances"] == len(objects) == 31
    assert figures["crowd_regions"] == 2
    assert figures["objects"]["tiny"] == 1
    assert [figures["classes"][name]["images"] for name in NAMES] == [25, 6, 0]
    assert figures["classes"][NAMES[2]]["median_area"] is None
    assert figures["oddities"] > 0


def test_near_duplicates_are_shown_those_in_two_splits_first(page: str) -> None:
    text = str(Text(page))
    assert "2 pairs of photos are nearly the same; 1 of them in two splits" in text
    assert text.index("train and test, similarity 0.95") < text.index("train, similarity 0.98")
    assert "1 pair of photos is nearly the same in two splits" in text


def test_the_plots_hold_each_class_and_size(project: Path) -> None:
    rows = {}
    for name in ("classes", "sizes"):
        with (project / f"metrics/data/{name}.csv").open(encoding="utf-8", newline="") as file:
            rows[name] = list(csv.DictReader(file))
    assert [row["class"] for row in rows["classes"]] == NAMES
    assert [row["images"] for row in rows["classes"]] == ["25", "6", "0"]
    assert sum(int(row["instances"]) for row in rows["sizes"]) == 31


def test_oddities_are_told_on_the_page_and_in_the_log(
    project: Path, page: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(project)
    before = {p: p.read_bytes() for p in (project / "metrics").rglob("*") if p.is_file()}
    with caplog.at_level("INFO"):
        inspect.main()
    *odd, last = [record.message for record in caplog.records]
    text = str(Text(page))
    assert len(odd) == 3
    assert all(line.removeprefix("data warning: ") in text for line in odd)
    assert re.fullmatch(r"metrics/data\.html: .* MB, .*; it shows \d+ more data warnings", last)
    assert "1 annotation is smaller than 16 pixels. 5.jpg" in text
    # And a second run wrote the same bytes.
    assert {p: p.read_bytes() for p in (project / "metrics").rglob("*") if p.is_file()} == before


def test_inspect_needs_no_torch() -> None:
    code = "import sys, stages.inspect; print([m for m in ('torch', 'dvc') if m in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_many_classes_get_a_picture_each_and_no_endless_tables(tmp_path: Path) -> None:
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
    assert (
        len(outline.pictures) == 100 + 20 + 4 + 2
    )  # a photo each, heat maps, near-duplicates, charts
    assert "the 20 most frequent classes" in str(Text(page))
    assert outline.headings.count(3) < 20
    assert len(page) < 3_000_000


def test_a_photo_that_is_gone_or_damaged_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    photos = sorted((project / "data/images").iterdir())
    contents = [photo.read_bytes() for photo in photos]
    try:
        for photo in photos:
            photo.write_bytes(b"no photo")
        with pytest.raises(UserError, match=r"is not a JPEG.*; remove the file and run `dvc repro`"):
            inspect.main()
        for photo in photos:
            photo.unlink()
        with pytest.raises(UserError, match=r"\.jpg not found"):
            inspect.main()
    finally:
        for photo, content in zip(photos, contents, strict=True):
            photo.write_bytes(content)


def test_thumbnails_are_jpegs_of_a_modest_size(page: str) -> None:
    uris = re.findall(r'src="data:image/jpeg;base64,(.*?)"', page)
    assert len(uris) > 20
    for uri in uris:
        with Image.open(io.BytesIO(base64.b64decode(uri))) as picture:
            assert picture.width <= 400 and picture.height <= 300
