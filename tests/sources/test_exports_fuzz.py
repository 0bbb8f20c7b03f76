"""Hundreds of hostile exports; `python -m tests.fuzz_exports` runs more."""

from collections import Counter

import pytest

from tests.fuzz_exports import run_cases

CASES = 400


@pytest.fixture(scope="module")
def outcomes() -> Counter[str]:
    return run_cases(0, CASES)


def test_every_export_is_used_or_refused_and_no_image_is_from_another_directory(
    outcomes: Counter[str],
) -> None:
    assert outcomes["used"] + outcomes["refused"] == CASES
    assert outcomes["used"] > CASES // 4


def test_the_damage_causes_every_reason_of_the_files_source(outcomes: Counter[str]) -> None:
    assert set(outcomes) >= {
        "bbox_only",
        "duplicate_image",
        "malformed_annotation",
        "malformed_image",
        "orientation_unknown",
        "image_ambiguous",
        "image_damaged",
        "image_not_found",
        "image_size",
    }
