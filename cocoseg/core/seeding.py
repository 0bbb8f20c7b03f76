"""Random draws that depend on a seed and a purpose: no global state, no order of calls."""

import hashlib

import numpy as np


def _digest(seed: int, *purpose: str | int) -> bytes:
    return hashlib.sha256("\0".join([str(seed), *map(str, purpose)]).encode()).digest()


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A generator of its own for each (seed, purpose): `generator(0, "augment", epoch, index)`."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(_digest(seed, *purpose)[:16])))


def sort_key(seed: int, *purpose: str | int) -> bytes:
    """A key to sort by for a random order that does not depend on the order of the items before.

    It comes from SHA-256 alone, so the order is the same on every machine and numpy version.
    """
    return _digest(seed, *purpose)
