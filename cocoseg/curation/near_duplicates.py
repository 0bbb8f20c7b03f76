"""Near-duplicate photos: copies, also rescaled, recompressed, cropped by a tenth a side, mirrored.

    pairs = find_near_duplicates({"a": Path("images/a.jpg"), …}, workers=2)

All pairs are compared, in two steps. The first is coarse: the low frequencies of each photo, which
hardly change when it is rescaled or recompressed, against those of a few crops of every other. What
is alike there is laid over one another exactly, and has to agree in its details as well. Burst
photos and frames of a video, in which things have moved, are found only where little has.
"""

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.ndimage import gaussian_filter

from cocoseg.core.errors import UserError
from cocoseg.core.files import atomic_file
from cocoseg.core.images import read_thumbnail
from cocoseg.core.parallel import in_processes

logger = logging.getLogger(__name__)

Values = NDArray[np.float64]

SIDE = 64
"""Photos are compared as gray thumbnails of this many pixels a side, whatever their shape."""

FREQUENCIES = 7
"""Of a thumbnail's discrete cosine transform, so many in each direction make its signature: enough
to tell photos apart, and low enough to bear that a crop lies somewhat beside the nearest window."""

_L, _R = 0.015, 0.085
WINDOWS = np.array(
    [
        (0, 0, 0, 0),
        (0.08, 0.08, 0.08, 0.08),
        *((left, 0.1 - left, top, 0.1 - top) for left in (_L, _R) for top in (_L, _R)),
    ]
)
"""The crops that are looked for, as shares cut off at left, right, top, bottom: any crop of up to a
tenth a side lies near one of them."""

CANDIDATE = 0.78
"""Signatures that correlate at least so much are looked at in detail. Of planted crops of up to a
tenth a side nearly all reach it, of other pairs of photos a few in 100,000."""

NEAREST = 20
"""So many others at most are looked at in detail for each photo, those that are most alike. Photos
with the same frame or bars around them would all be candidates."""

SIMILAR = 0.9
"""The correlation of details from which on two photos are near-duplicates. But for 1 in 100,
planted crops have 0.92 and more, other copies 0.96; of other pairs, photos have less than 0.7,
scenes of the sample less than 0.85."""

_MARGIN = 0.15  # the largest share of a side by which photos are moved over one another
_SCALE = 1000.0  # of signatures: whole numbers this small are multiplied without rounding


@dataclass(frozen=True)
class NearDuplicate:
    """Two photos by their names, in alphabetical order; `similarity` is SIMILAR to 1."""

    first: str
    second: str
    similarity: float


def find_near_duplicates(photos: Mapping[str, Path], workers: int) -> list[NearDuplicate]:
    """The near-duplicates among image files, by name; sorted by names.

    Where a photo has more than NEAREST of them, some of its pairs may be missing. `workers`
    processes read and compare; each photo takes some 7 kB of memory, and comparing all with all
    takes time with the square of their number (`python -m benchmarks.duplicates`). Raises UserError
    for a file that is missing or no image.
    """
    names = sorted(photos)
    thumbnails = np.zeros((len(names), SIDE, SIDE), np.uint8)
    paths = (photos[name] for name in names)
    for place, thumbnail in enumerate(in_processes(_read_thumbnail, paths, workers)):
        thumbnails[place] = thumbnail
    best: dict[tuple[int, int], float] = {}
    for pairs, similarities in in_processes(_compare, _comparisons(thumbnails), workers, chunk=1):
        for (i, j), similarity in zip(pairs.tolist(), similarities.tolist(), strict=True):
            pair = (min(i, j), max(i, j))
            best[pair] = max(best.get(pair, 0), similarity)
    return [
        NearDuplicate(names[i], names[j], round(similarity, 3))
        for (i, j), similarity in sorted(best.items())
        if similarity >= SIMILAR
    ]


def write_near_duplicates(path: Path, pairs: Iterable[NearDuplicate]) -> None:
    """Write a CSV file with a row for each pair."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["first", "second", "similarity"])
        writer.writerows(astuple(pair) for pair in pairs)


def read_near_duplicates(path: Path) -> list[NearDuplicate]:
    """Read the file that `write_near_duplicates` wrote.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                NearDuplicate(row["first"], row["second"], float(row["similarity"]))
                for row in csv.DictReader(file)
            ]
    except (csv.Error, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged: remove it, then run `dvc repro`") from None


def count_near_duplicates(
    pairs: Sequence[NearDuplicate], splits: Mapping[str, Iterable[str]]
) -> dict[str, int]:
    """The entry `near_duplicates` of `metrics/split.json`: all pairs, and those across splits."""
    split_of = {name: split for split, names in splits.items() for name in names}
    across = sum(split_of[pair.first] != split_of[pair.second] for pair in pairs)
    logger.info("%d pairs of near-duplicates, %d across splits", len(pairs), across)
    return {"pairs": len(pairs), "across_splits": across}


def _read_thumbnail(path: Path) -> NDArray[np.uint8]:
    return read_thumbnail(path, SIDE)


@dataclass(frozen=True)
class _Comparison:
    """Candidates (N, 3) as `_candidates` gives them, and the thumbnails of both sides."""

    candidates: NDArray[np.int64]
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]


def _comparisons(thumbnails: NDArray[np.uint8], size: int = 128) -> Iterator[_Comparison]:
    for candidates in _candidates(thumbnails):
        for start in range(0, len(candidates), size):
            part = candidates[start : start + size]
            yield _Comparison(part, thumbnails[part[:, 0]], thumbnails[part[:, 1]])


def _compare(comparison: _Comparison) -> tuple[NDArray[np.int64], Values]:
    """The pairs of photos (N, 2), and their similarities (N,)."""
    windows = comparison.candidates[:, 2]
    return comparison.candidates[:, :2], _similarity(comparison.first, comparison.second, windows)


# --- Which pairs to look at -----------------------------------------------------------------------


def _candidates(thumbnails: NDArray[np.uint8], block: int = 1024) -> Iterator[NDArray[np.int64]]:
    """Pairs whose signatures are alike, as rows (i, j, window): that window of i looks like j.

    Windows from len(WINDOWS) on are those of the mirrored photo. Of each i, the NEAREST j.
    """
    signatures = _signatures(thumbnails)
    whole = signatures[0].T.copy()
    for start in range(0, len(thumbnails), block):
        rows = np.concatenate([signature[start : start + block] for signature in signatures])
        found = []
        for other in range(0, len(thumbnails), block):
            columns = whole[:, other : other + block]
            alike = (rows @ columns).reshape(len(signatures), -1, columns.shape[1])
            i, j = np.nonzero(alike.max(axis=0) >= CANDIDATE * _SCALE**2)
            windows = alike[:, i, j]
            found.append([i + start, j + other, windows.argmax(axis=0), windows.max(axis=0)])
        i, j, window, most = np.concatenate(found, axis=1).astype(np.int64)
        order = np.lexsort((j, -most, i))
        pairs = np.stack([i, j, window], axis=1)[order][(i != j)[order]]
        rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
        yield pairs[rank < NEAREST]


def _signatures(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The low frequencies of all windows of all photos, mirrored as well, (2 windows, N, D).

    Frequencies are weighted such that each counts alike in photos (whose spectrum falls as 1/f:
    Field, 1987), and scaled to a length of _SCALE. They are whole numbers, so that their products
    are exact, and the same on every machine.
    """
    basis = dct(np.eye(SIDE), axis=0, norm="ortho")[:FREQUENCIES]
    down, across = np.mgrid[:FREQUENCIES, :FREQUENCIES]
    left, right, top, bottom = WINDOWS.T
    rows, columns = basis @ _sampling(top, bottom, SIDE), basis @ _sampling(left, right, SIDE)
    weights = np.hypot(down, across)
    found = np.empty((2, len(WINDOWS), len(thumbnails), FREQUENCIES**2), np.float32)
    for place, thumbnail in enumerate(thumbnails):
        values = rows @ thumbnail.astype(float) @ columns.transpose(0, 2, 1) * weights
        length = np.linalg.norm(values, axis=(1, 2), keepdims=True)
        values *= _SCALE / np.maximum(length, 1)  # a photo of one colour is like no other
        for mirrored, signs in enumerate((1, (-1.0) ** across)):
            found[mirrored, :, place] = np.rint(values * signs).reshape(len(WINDOWS), -1)
    return found.reshape(2 * len(WINDOWS), len(thumbnails), FREQUENCIES**2)


# --- Whether they are near-duplicates -------------------------------------------------------------


def _similarity(
    first: NDArray[np.uint8], second: NDArray[np.uint8], windows: NDArray[np.int64]
) -> Values:
    """How well the windows of the first photos (N, SIDE, SIDE), moved to where they fit best, agree
    with the second ones: (N,) correlations of the details, where both show something."""
    mirrored, windows = np.divmod(windows, len(WINDOWS))
    margins = WINDOWS[windows]
    flipped = np.where(mirrored == 1)
    moving, still = first.astype(float), second.astype(float)
    moving[flipped] = moving[flipped][:, :, ::-1]
    margins[flipped] = margins[flipped][:, [1, 0, 2, 3]]
    margins = _align(_half(moving), _half(still), margins)
    rows = _sampling(margins[:, 2], margins[:, 3], SIDE)
    columns = _sampling(margins[:, 0], margins[:, 1], SIDE)
    both = (rows.sum(axis=2)[:, :, None] * columns.sum(axis=2)[:, None, :]) > 0.99
    moved = np.where(both, rows @ moving @ columns.transpose(0, 2, 1), still)
    details = [_normalized(_details(photo) * both) for photo in (moved, still)]
    correlation: Values = (details[0] * details[1]).sum(axis=(1, 2))
    return correlation


def _align(moving: Values, still: Values, margins: Values, steps: int = 4) -> Values:
    """The margins (N, 4) by which windows of `moving` (N, S, S) come nearest to `still`.

    Least squares by Gauss-Newton steps in the four margins (Lucas and Kanade, 1981), brightness and
    contrast apart.
    """
    side = moving.shape[1]
    grid = (np.arange(side) + 0.5) / side
    slope_down, slope_across = (slope * side for slope in np.gradient(moving, axis=(1, 2)))
    wanted = _normalized(still)
    for _ in range(steps):
        rows = _sampling(margins[:, 2], margins[:, 3], side)
        columns = _sampling(margins[:, 0], margins[:, 1], side).transpose(0, 2, 1)
        moved = rows @ moving @ columns
        contrast = _length(_centered(moved))
        across, down = rows @ slope_across @ columns, rows @ slope_down @ columns
        slopes = [
            across * (1 - grid),
            -across * grid,
            down * (1 - grid[:, None]),
            -down * grid[:, None],
        ]
        changes = _centered(np.stack(slopes, axis=1)) / contrast[:, None]
        changes = changes.reshape(len(moving), 4, -1)
        missing = (wanted - _normalized(moved)).reshape(len(moving), -1, 1)
        curvature = changes @ changes.transpose(0, 2, 1) + 1e-6 * np.eye(4)
        step = np.linalg.solve(curvature, changes @ missing)[:, :, 0]
        margins = np.clip(margins + np.clip(step, -0.05, 0.05), -_MARGIN, _MARGIN)
    return margins


def _sampling(before: Values, behind: Values, side: int) -> Values:
    """(N, side, side) matrices that take `side` samples of as many pixels, linearly interpolated,
    between margins given as shares of the side. Samples beyond the pixels are 0."""
    grid = (np.arange(side) + 0.5) / side
    places = (before[:, None] + grid * (1 - before - behind)[:, None]) * side - 0.5
    weights: Values = np.maximum(0, 1 - np.abs(places[:, :, None] - np.arange(side)))
    return weights


def _half(photos: Values) -> Values:
    """Photos (N, S, S) at half the size and smooth, so that slopes lead to the fit from afar."""
    side = photos.shape[1] // 2
    halved: Values = photos.reshape(-1, side, 2, side, 2).mean(axis=(2, 4))
    return _smooth(halved, 1)


def _details(photos: Values) -> Values:
    """What is finer than a sixteenth of the side, but for the noise of single pixels."""
    return _smooth(photos, 0.7) - _smooth(photos, 4)


def _smooth(photos: Values, sigma: float) -> Values:
    smoothed: Values = gaussian_filter(photos, (0, sigma, sigma), mode="nearest", truncate=2)
    return smoothed


def _normalized(photos: Values) -> Values:
    centered = _centered(photos)
    return centered / _length(centered)


def _centered(photos: Values) -> Values:
    centered: Values = photos - photos.mean(axis=(-2, -1), keepdims=True)
    return centered


def _length(photos: Values) -> Values:
    lengths: Values = np.maximum(np.linalg.norm(photos, axis=(1, 2), keepdims=True), 1e-9)
    return lengths
