"""Reasons for rejection, and the file of rejected entries."""

import ast
import re
from pathlib import Path

import pytest

from cocoseg.coco.instances import MAX_OUTLINE, Instances
from cocoseg.coco.rejections import (
    UNUSABLE_IMAGES,
    Reason,
    Rejection,
    invalid_annotations,
    read_rejections,
    write_rejections,
)
from cocoseg.core.errors import UserError
from cocoseg.core.images import MAX_IMAGE_PIXELS
from tests import ROOT
from tests.reasons_table import reasons_table


def test_the_library_uses_every_reason_and_spells_none_out() -> None:
    used: set[str] = set()
    literals: set[str] = set()
    for path in (ROOT / "cocoseg").rglob("*.py"):
        if path.name != "rejections.py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    used |= {node.attr} if node.value.id == "Reason" else set()
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    literals.add(node.value)
    assert used == set(Reason.__members__)
    assert literals.isdisjoint(Reason)


def test_unusable_images_are_all_image_reasons_but_those_of_the_selection() -> None:
    # The enumeration lists the reasons of the selection, then the other image reasons.
    reasons = list(Reason)
    of_selection = {
        Reason.NO_SELECTED_CLASS,
        Reason.NO_VALID_ANNOTATION,
        Reason.TOO_MANY_INSTANCES,
        Reason.OVER_MAX_IMAGES,
        Reason.OVER_EMPTY_FRACTION,
        Reason.EXCLUDED,
    }
    assert set(reasons[:6]) == of_selection
    assert set(reasons[6 : reasons.index(Reason.UNKNOWN_IMAGE)]) == UNUSABLE_IMAGES


def test_meanings_and_remedies_are_sentences_with_the_limits_of_the_code() -> None:
    for reason in Reason:
        assert re.fullmatch(r"[A-Z].+\.", reason.meaning), reason
        assert re.fullmatch(r"[A-Z].+\.", reason.remedy), reason
    assert f" {MAX_OUTLINE:,} pixels" in Reason.OUTLINE_TOO_LONG.meaning
    assert f" {MAX_IMAGE_PIXELS:,} pixels" in Reason.IMAGE_TOO_LARGE.meaning


def test_the_table_in_the_documentation_lists_the_reasons() -> None:
    """`python -m tests.reasons_table` prints the table."""
    text = (ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")
    section = text.partition("\n## Reasons for rejection\n")[2].partition("\n## ")[0]
    assert f"\n{reasons_table()}\n" in section


def test_rejections_are_read_as_they_were_written_without_the_category(tmp_path: Path) -> None:
    rejections = [
        Rejection("image", 1, None, Reason.IMAGE_NOT_FOUND, 'a, "b"\n.jpg'),
        Rejection("image", None, None, Reason.MALFORMED_IMAGE, "é"),
        Rejection("annotation", 1, 0, Reason.UNKNOWN_IMAGE),
        Rejection("annotation", 2, None, Reason.MALFORMED_ANNOTATION, "no id", 7),
        Rejection("annotation", None, -3, Reason.MALFORMED_ANNOTATION),
    ]
    path = tmp_path / "rejected.csv"
    write_rejections(path, rejections, Instances([], [], []))
    rejections[3].category_id = None
    assert read_rejections(path) == rejections


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n",
        b"image_id,annotation_id\nx,y\n",
        b"image_id,annotation_id,reason,detail\n1,,photo_not_found,\n",
        b"\xff",
    ],
)
def test_a_damaged_file_of_rejections_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rejected.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"rejected\.csv is damaged: remove it"):
        read_rejections(path)


def test_invalid_annotations_are_rejected_for_reasons_other_than_their_image() -> None:
    image = Rejection("image", 1, None, Reason.NO_VALID_ANNOTATION)
    invalid = Rejection("annotation", 1, 10, Reason.RLE_SIZE)
    over = Rejection("image", 2, None, Reason.OVER_MAX_IMAGES)
    with_image = Rejection("annotation", 2, 20, Reason.OVER_MAX_IMAGES)
    excluded = Rejection("annotation", 3, 30, Reason.EXCLUDED)
    assert invalid_annotations([image, invalid, over, with_image, excluded]) == [invalid]
