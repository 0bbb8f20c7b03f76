"""Thousands of damaged annotation files. `python -m tests.fuzz_annotations` runs more."""

import signal
from collections import Counter

import pytest

from cocoseg.coco.rejections import Reason
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


def test_the_damage_reaches_every_reason_that_a_file_alone_can_have(
    outcomes: Counter[str],
) -> None:
    needs_exclusions_or_images = {
        Reason.EXCLUDED,
        Reason.BBOX_ONLY,
        Reason.IMAGE_NOT_FOUND,
        Reason.IMAGE_AMBIGUOUS,
        Reason.IMAGE_DAMAGED,
        Reason.IMAGE_SIZE,
        Reason.ORIENTATION_UNKNOWN,
        Reason.SIZE_MISSING,
    }
    assert set(outcomes) - {"used", "refused"} == set(Reason) - needs_exclusions_or_images


def test_a_case_has_the_same_content_in_every_run() -> None:
    documents = base_documents()
    assert make_case(7, documents) == make_case(7, documents)
    assert make_case(7, documents) != make_case(8, documents)


def test_the_error_for_a_native_crash_names_the_case(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The fake worker dies of SIGSEGV, like a crash within pycocotools.
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
