"""Thousands of damaged annotation files; `python -m tests.fuzz_annotations` runs more."""

import signal
from collections import Counter

import pytest

from tests import fuzz_annotations
from tests.fuzz_annotations import base_documents, make_case, run_cases

CASES = 2500


@pytest.fixture(scope="module")
def outcomes() -> Counter[str]:
    return run_cases(0, CASES)


def test_damaged_annotation_files_are_used_or_refused_and_never_crash(
    outcomes: Counter[str],
) -> None:
    assert outcomes["used"] + outcomes["refused"] == CASES
    assert outcomes["used"] > CASES // 4
    assert outcomes["refused"] > CASES // 10


def test_the_damage_reaches_every_reason_for_rejection(outcomes: Counter[str]) -> None:
    assert set(outcomes) - {"used", "refused"} == {
        "coordinate_beyond_image",
        "coordinate_negative",
        "coordinate_not_finite",
        "duplicate_annotation",
        "duplicate_image",
        "image_missing",
        "malformed_annotation",
        "malformed_image",
        "no_selected_class",
        "no_valid_annotation",
        "outline_too_long",
        "over_max_images",
        "polygon_odd",
        "polygon_too_short",
        "rle_counts",
        "rle_malformed",
        "rle_size",
        "segmentation_empty",
        "segmentation_malformed",
        "segmentation_missing",
        "too_many_instances",
        "unsafe_file_name",
    }


def test_a_case_is_always_the_same() -> None:
    documents = base_documents()
    assert make_case(7, documents) == make_case(7, documents)
    assert make_case(7, documents) != make_case(8, documents)


def test_a_native_crash_is_reported_with_the_number_of_its_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Stands for the worker: it dies of SIGSEGV, as one would within pycocotools.
    crash = (
        "import os, signal; print(41); print(42, flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    real_run = fuzz_annotations.subprocess.run
    monkeypatch.setattr(
        fuzz_annotations.subprocess,
        "run",
        lambda command, **options: real_run([command[0], "-c", crash], **options),
    )
    with pytest.raises(AssertionError, match=rf"^case 42 ended the worker: {-signal.SIGSEGV}"):
        run_cases(41, 10)
