"""Plain values for JSON and tables, and random draws."""

import numpy as np
import pytest

from cocoseg.core.seeding import generator, sort_key
from cocoseg.core.values import flatten, rounded


def test_nested_values_are_flattened_and_renamed() -> None:
    values = {"a": {"b": {"c": 1}, "d": [2]}, "e": {}, "f": None}
    assert flatten(values) == {"a.b.c": 1, "a.d": [2], "f": None}
    assert flatten(values, "/", str.upper) == {"A/B/C": 1, "A/D": [2], "F": None}


def test_values_for_json_have_six_decimals() -> None:
    assert rounded(np.float32(0.123456789)) == pytest.approx(0.123457, abs=1e-9)
    assert rounded(2 / 3) == 0.666667
    assert rounded(float("nan")) is None


def test_draws_depend_on_seed_and_purpose_alone() -> None:
    """Other numbers would change the splits and the training of every project."""
    drawn = [942, 413, 842]
    assert generator(0, "augment", 1).integers(0, 1000, 3).tolist() == drawn
    assert sort_key(0, "split", "cat").hex()[:8] == "26a03169"
    others = [(1, "augment", 1), (0, "augment", 2), (0, "augment1"), (0, "augment")]
    assert all(generator(*other).integers(0, 1000, 3).tolist() != drawn for other in others)
