"""`cocoseg compare` on small revisions in directories."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from cocoseg.core.errors import UserError
from cocoseg.core.labels import IGNORE_INDEX, Labels
from cocoseg.experiments import compare
from cocoseg.experiments.compare import (
    RevisionComparison,
    as_json,
    as_markdown,
    as_page,
    as_text,
    compare_revisions,
    renumber,
)
from cocoseg.experiments.revisions import Split
from tests.pages import (
    MEASURE,
    ask_in_browser,
    check_accessibility,
    check_print,
    needs_browser,
)
from tests.revisions import DirectoryRevision, write_revision


def labels_of(*rows: list[int]) -> Labels:
    """Rows of labels, each value repeated to 10 x 10 pixels."""
    return np.repeat(np.repeat(np.array(rows, np.uint8), 10, axis=0), 10, axis=1)


GROUND_TRUTH = labels_of([0, 1, 1, 2], [0, 2, IGNORE_INDEX, 0])
WRONG = labels_of([0, 1, 0, 0], [0, 0, 2, 0])
SWAPPED = ("background", "dog", "cat")


def in_swapped(labels: Labels) -> Labels:
    swapped = labels.copy()
    swapped[labels == 1], swapped[labels == 2] = 2, 1
    return swapped


def compared(
    monkeypatch: pytest.MonkeyPatch,
    *groups: list[DirectoryRevision],
    split: Split | None = None,
    same: bool = False,
) -> list[RevisionComparison]:
    """Compare groups of revisions, each under the name of its first revision."""
    by_name = {group[0].name: group for group in groups}
    monkeypatch.setattr(compare, "find_revisions", by_name.__getitem__)
    return compare_revisions(list(by_name), split=split, same_ground_truth=same)


def scores(result: RevisionComparison) -> dict[str, tuple[float, float]]:
    return {d.name: (d.first, d.second) for d in result.comparison.differences}


def test_renumber_translates_by_name_and_keeps_ignored_pixels() -> None:
    labels = np.array([[0, 1, 2, 3, IGNORE_INDEX]], np.uint8)
    names = ["background", "cat", "dog", "cow"]
    renumbered = renumber(labels, names, ["background", "cow", "cat"])
    assert renumbered.tolist() == [[0, 2, 0, 1, IGNORE_INDEX]]
    assert renumbered.dtype == np.uint8


def test_same_ground_truth_counts_against_the_renumbered_masks_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run predicts the first ground truth exactly; its own masks and order differ."""
    stems = [f"{n:02}" for n in range(3)]
    first = write_revision(
        tmp_path / "first", dict.fromkeys(stems, GROUND_TRUTH), dict.fromkeys(stems, WRONG)
    )
    prediction = np.where(GROUND_TRUTH == IGNORE_INDEX, 1, GROUND_TRUTH).astype(np.uint8)
    second = write_revision(
        tmp_path / "second",
        dict.fromkeys(stems, in_swapped(WRONG)),
        dict.fromkeys(stems, in_swapped(prediction)),
        classes=SWAPPED,
    )
    (own,) = compared(monkeypatch, [first], [second])
    assert own.comparison.other_ground_truth == stems
    assert scores(own)["cat"][1] < 1
    (same,) = compared(monkeypatch, [first], [second], same=True)
    assert same.comparison.other_ground_truth == []
    assert {name: pair[1] for name, pair in scores(same).items()} == dict.fromkeys(
        ("mean IoU", "background", "cat", "dog"), 1.0
    )
    assert {name: pair[0] for name, pair in scores(same).items()} == {
        name: pair[0] for name, pair in scores(own).items()
    }


def test_same_ground_truth_recounts_only_images_whose_masks_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_revision(
        tmp_path / "first", {"a": GROUND_TRUTH, "b": GROUND_TRUTH}, {"a": WRONG, "b": WRONG}
    )
    second = write_revision(
        tmp_path / "second", {"a": GROUND_TRUTH, "b": WRONG}, {"a": GROUND_TRUTH * 0, "b": WRONG}
    )
    # A recount would fail without this file.
    (tmp_path / "second/data/predictions/a.png").unlink()
    (result,) = compared(monkeypatch, [first], [second], same=True)
    assert result.comparison.image_scores[1][0] == result.comparison.image_scores[1][1]


def test_same_ground_truth_requires_masks_of_the_same_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_revision(tmp_path / "first", {"a": GROUND_TRUTH}, {"a": WRONG})
    second = write_revision(tmp_path / "second", {"a": WRONG[:10]}, {"a": WRONG[:10]})
    with pytest.raises(UserError, match="a has another size in first than in second"):
        compared(monkeypatch, [first], [second], same=True)


def test_each_name_is_compared_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground_truths = dict.fromkeys("ab", GROUND_TRUTH)
    revisions = [
        [write_revision(tmp_path / name, ground_truths, dict.fromkeys("ab", prediction))]
        for name, prediction in (("x", WRONG), ("y", WRONG), ("z", GROUND_TRUTH % 255))
    ]
    results = compared(monkeypatch, *revisions)
    assert [(r.first.name, r.second.name) for r in results] == [("x", "y"), ("x", "z")]
    assert results[0].verdict == "x and y have the same scores."
    assert results[1].verdict == "z is better than x."


def test_verdicts_name_the_second_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stems = [f"{n:02}" for n in range(20)]
    ground_truths = dict.fromkeys(stems, GROUND_TRUTH)
    bad = write_revision(tmp_path / "bad", ground_truths, dict.fromkeys(stems, WRONG))
    good = write_revision(
        tmp_path / "good", ground_truths, dict.fromkeys(stems, GROUND_TRUTH % 255)
    )
    (result,) = compared(monkeypatch, [bad], [good])
    assert result.verdict == "good is better than bad."
    assert result.notes()[0] == "Both sides have 20 validation images in common."
    assert not any(note.startswith("WARNING") for note in result.notes())
    (result,) = compared(monkeypatch, [good], [bad])
    assert result.verdict == "bad is worse than good."


def test_notes_explain_images_ground_truth_and_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_revision(
        tmp_path / "first",
        {"a": GROUND_TRUTH, "b": GROUND_TRUTH, "c": GROUND_TRUTH},
        dict.fromkeys("abc", WRONG),
    )
    no_dog = np.where(GROUND_TRUTH == 2, 0, GROUND_TRUTH).astype(np.uint8)
    second = write_revision(
        tmp_path / "second",
        {"a": no_dog, **dict.fromkeys("bde", GROUND_TRUTH)},
        dict.fromkeys("abde", WRONG),
        trained_on=["c"],
        epochs=2,
    )
    (result,) = compared(monkeypatch, [first], [second])
    notes = result.notes()
    for start in (
        "Both sides have 2 validation images in common.",
        "WARNING: with fewer than 20 images,",
        "WARNING: second was scored with train.epochs=1, but its params.yaml has other values",
        "Images of one side are excluded: 1 of first, 2 of second.",
        "WARNING: the other side was trained on 1 of these.",
        "WARNING: the ground truth in second differs for 1 of 2 images",
        "The 95% interval covers the choice of images (2, jackknife).",
        "It is none if fewer than two images show the class, and for the mean IoU if that",
        "It does not cover the training seed of first (one run); the training seed of second",
    ):
        assert sum(note.startswith(start) for note in notes) == 1, (start, notes)
    assert len(notes) == 9


def test_the_split_is_validation_unless_asked_or_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation predictions of both sides are equal; on test images the second is better."""
    sides = []
    for name, prediction in (("first", WRONG), ("second", GROUND_TRUTH % 255)):
        for split, labels in (("test", prediction), ("val", WRONG)):
            directory = tmp_path / split / name
            write_revision(directory, {"a": GROUND_TRUTH}, {"a": labels}, split=split)
        shutil.copy(tmp_path / "test" / name / "metrics/test_images.json", directory / "metrics")
        sides.append([DirectoryRevision(name, "0123456789", directory)])
    (chosen,) = compared(monkeypatch, *sides)
    (tested,) = compared(monkeypatch, *sides, split="test")
    assert [record["split"] for record in as_json([chosen, tested])] == ["val", "test"]
    assert scores(chosen)["cat"] == (0.5, 0.5) and scores(tested)["cat"] == (0.5, 1.0)
    assert "Each revision is compared with first on the validation images" in as_page([chosen])
    assert "Each revision is compared with first on the test images" in as_page([tested])
    note = "The commits and experiments of this clone scored 1 model on the test images of first."
    assert [note in as_text([result]) for result in (chosen, tested)] == [False, True]


def test_folds_are_compared_on_their_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [
        [
            write_revision(
                tmp_path / f"{name}-{fold}",
                {f"{fold}": GROUND_TRUTH},
                {f"{fold}": labels},
                split="test",
                fold=fold,
            )
            for fold in range(3)
        ]
        for name, labels in (("first", WRONG), ("second", GROUND_TRUTH % 255))
    ]
    (result,) = compared(monkeypatch, *groups)
    assert result.split == "test" and result.comparison.images == ["0", "1", "2"]
    note = "Folds are compared on test images: together, they test each image once."
    assert result.notes()[:2] == ["Both sides have 3 test images in common.", note]
    with pytest.raises(UserError, match=r"folds \(split\.fold\) are compared on test images"):
        compared(monkeypatch, *groups, split="val")


def test_a_run_without_validation_scores_is_refused_unless_the_test_scores_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = dict.fromkeys("ab", GROUND_TRUTH), dict.fromkeys("ab", WRONG)
    sides = [[write_revision(tmp_path / name, *images, split="test")] for name in ("old", "new")]
    for (side,) in sides:
        (side.directory / "metrics/test.json").write_text("{}")
    with pytest.raises(UserError, match=r"old has no metrics/val_images\.json") as refused:
        compared(monkeypatch, *sides)
    assert "`--split test`" in str(refused.value)
    (result,) = compared(monkeypatch, *sides, split="test")
    assert result.verdict == "old and new have the same scores."


def test_an_undefined_interval_is_explained_and_is_null_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_revision(tmp_path / "first", {"a": GROUND_TRUTH}, {"a": WRONG})
    second = write_revision(tmp_path / "second", {"a": GROUND_TRUTH}, {"a": WRONG * 0})
    results = compared(monkeypatch, [first], [second])
    assert results[0].verdict == "Cannot tell whether second is better than first."
    assert "Both sides have 1 validation image in common." in results[0].notes()
    assert (
        "It is none if fewer than two images show the class, and for the mean IoU if that applies "
        "to more than a quarter of the classes."
    ) in results[0].notes()
    (record,) = as_json(results)
    assert record["first"] == {"name": "first", "revisions": {"first": "0123456789"}}
    cat = record["differences"][2]
    assert cat["name"] == "cat" and cat["low"] is cat["high"] is None
    assert cat["difference"] == pytest.approx(-0.5)
    assert cat["verdict"] == "cannot tell"


def test_an_undefined_mean_iou_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {"a": GROUND_TRUTH * 0, "b": GROUND_TRUTH * 0}
    sides = [[write_revision(tmp_path / name, nothing, nothing)] for name in ("first", "second")]
    results = compared(monkeypatch, *sides)
    for printed in (as_text(results), as_markdown(results), as_page(results)):
        assert "Cannot tell whether second is better than first." in printed
        for side in ("first", "second"):
            reason = "no mask of these images shows a class"
            assert f"The mean IoU of {side} is undefined: {reason}." in printed
        assert "The IoU of cat, dog is undefined where neither masks nor predictions" in printed
    cells = re.split(r"  +", as_text(results).splitlines()[3])
    assert cells == ["mean IoU", *["undefined"] * 3, "none", "cannot tell"]
    assert as_json(results)[0]["differences"][0]["first"] is None


def test_text_and_markdown_have_a_row_for_each_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = ("background", "cat|dog", "dog")
    ground_truths, predictions = {"a": GROUND_TRUTH, "b": GROUND_TRUTH}, {"a": WRONG, "b": WRONG}
    sides = [
        [write_revision(tmp_path / name, ground_truths, predictions, classes=classes)]
        for name in ("first", "second")
    ]
    results = compared(monkeypatch, *sides)
    lines = as_text(results).splitlines()
    assert lines[0] == "first and second have the same scores."
    assert lines[2] == "            first  second  difference      95% interval  second is"
    assert lines[5] == "cat|dog     0.500   0.500      +0.000  +0.000 to +0.000  the same"
    markdown = as_markdown(results).splitlines()
    assert markdown[0] == "**first and second have the same scores.**"
    assert markdown[3] == "| --- | --: | --: | --: | --: | --- |"
    assert "| cat\\|dog | 0.500 | 0.500 | +0.000 | +0.000 to +0.000 | the same |" in markdown


def test_the_page_shows_the_images_that_differ_most_in_the_classes_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground_truths = dict.fromkeys("abcd", GROUND_TRUTH)
    perfect, nothing = GROUND_TRUTH % 255, GROUND_TRUTH * 0
    first = write_revision(
        tmp_path / "first", ground_truths, {"a": WRONG, "b": nothing, "c": perfect, "d": perfect}
    )
    second = write_revision(
        tmp_path / "second",
        dict.fromkeys("abcd", in_swapped(GROUND_TRUTH)),
        {
            stem: in_swapped(labels)
            for stem, labels in {"a": WRONG, "b": WRONG, "c": nothing, "d": WRONG}.items()
        },
        classes=SWAPPED,
    )
    results = compared(monkeypatch, [first], [second])
    differences = [abs(b - a) for a, b in results[0].comparison.image_scores]
    assert differences[2] > differences[3] > differences[1] > differences[0] == 0
    views = re.findall(r'src="(data:image/jpeg[^"]*)" alt="(.*?) of (\w)"', as_page(results, 4))
    assert [(title, stem) for _, title, stem in views] == [
        (title, stem) for stem in "cdba" for title in ("image", "ground truth", "first", "second")
    ]
    shown = {(title, stem): uri for uri, title, stem in views}
    # Both sides predict the same classes for this image.
    assert shown["first", "a"] == shown["second", "a"] != shown["ground truth", "a"]
    assert shown["first", "c"] != shown["second", "c"] == shown["image", "c"]
    assert as_page(results, 1).count('alt="image of ') == 1


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_readable_with_long_names_and_in_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dark: bool
) -> None:
    sides = [
        [write_revision(tmp_path / (letter * 40), {"a": GROUND_TRUTH}, {"a": labels})]
        for letter, labels in (("f", WRONG), ("0", GROUND_TRUTH % 255), ("1", WRONG))
    ]
    results = [compared(monkeypatch, sides[0], side)[0] for side in sides[1:]]
    file, page = tmp_path / "checked.html", as_page(results)
    assert check_accessibility(file, page, 390, dark=dark)["scrolled"] == 2
    assert ask_in_browser(file, page, MEASURE, 390)[0]["excess"] <= 0
    check_print(file, page)


def test_a_group_of_folds_reads_each_image_from_the_fold_that_tests_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = [
        write_revision(tmp_path / f"fold-{stem}", {stem: GROUND_TRUTH}, {stem: WRONG})
        for stem in "ab"
    ]
    other = write_revision(
        tmp_path / "other", dict.fromkeys("ab", WRONG), dict.fromkeys("ab", GROUND_TRUTH % 255)
    )
    (result,) = compared(monkeypatch, folds, [other], same=True)
    assert scores(result)["mean IoU"][1] == 1
    assert as_page([result]).count("ground truth of b") == 1


def test_a_comparison_without_classes_in_the_ground_truth_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = dict.fromkeys("abc", GROUND_TRUTH * 0)
    first = write_revision(tmp_path / "first", empty, dict.fromkeys("abc", WRONG))
    second = write_revision(tmp_path / "second", empty, dict.fromkeys("abc", GROUND_TRUTH * 0))
    (result,) = compared(monkeypatch, [first], [second])
    assert np.isnan(scores(result)["mean IoU"]).all()
    assert result.comparison.differences[0].verdict == "cannot tell"
    for side in ("first", "second"):
        note = f"The mean IoU of {side} is undefined: no mask of these images shows a class."
        assert note in result.notes()
    (record,) = as_json([result])
    assert record["differences"][0]["first"] is None
