"""Some hundred hostile exports; `python -m tests.fuzz_exports` runs more."""

from collections import Counter

import pytest

from tests.fuzz_exports import run_cases

CASES = 400


@pytest.fixture(scope="module")
def outcomes() -> Counter[str]:
    return run_cases(0, CASES)


def test_any_export_is_used_or_refused_and_no_photo_is_from_elsewhere(
    outcomes: Counter[str],
) -> None:
    assert outcomes["used"] + outcomes["refused"] == CASES
    assert outcomes["used"] > CASES // 4


def test_the_damage_reaches_every_reason_of_the_files_source(outcomes: Counter[str]) -> None:
    assert set(outcomes) >= {
        "bbox_only",
        "duplicate_image",
        "malformed_annotation",
        "malformed_image",
        "orientation_unknown",
        "photo_ambiguous",
        "photo_damaged",
        "photo_not_found",
        "photo_size",
    }
