"""Random draws that depend on a seed and a purpose, not on global state or the order of calls."""

import hashlib

import numpy as np


def sort_key(seed: int, *purpose: str | int) -> bytes:
    """A sort key for a random order in which an item's key depends on no other item.

    It comes from SHA-256 alone, so the order is the same on every machine and NumPy version.
    """
    return hashlib.sha256("\0".join([str(seed), *map(str, purpose)]).encode()).digest()


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """An independent generator for a seed and a purpose, such as `(0, "augment", epoch, index)`."""
    state = int.from_bytes(sort_key(seed, *purpose)[:16])
    return np.random.Generator(np.random.PCG64(state))
