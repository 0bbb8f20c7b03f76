"""Near-duplicate images: copies, also rescaled, recompressed, mirrored or cropped by up to a tenth.

    pairs = find_near_duplicates({"a": Path("images/a.jpg"), …}, workers=2)

All pairs are compared, in two steps. The first step compares the low frequencies of each image with
the low frequencies of a few crops of every other image; rescaling and recompression hardly change
them. The second step aligns each candidate pair and compares its details. Bursts and frames of a
video are found only if little has moved.
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
from cocoseg.core.progress import show_progress

logger = logging.getLogger(__name__)

Values = NDArray[np.float64]

SIDE = 64
"""Images are compared as square gray thumbnails with this side, in pixels."""

FREQUENCIES = 7
"""Frequencies per direction of the discrete cosine transform that form the signature of an image.
They distinguish images, and tolerate that a crop differs somewhat from the nearest window."""

_L, _R = 0.015, 0.085
WINDOWS = np.array(
    [
        (0, 0, 0, 0),
        (0.08, 0.08, 0.08, 0.08),
        *((left, 0.1 - left, top, 0.1 - top) for left in (_L, _R) for top in (_L, _R)),
    ]
)
"""Crops to search for, as the fractions cut off at left, right, top and bottom. Any crop by up to a
tenth of each side is close to one of them."""

CANDIDATE = 0.78
"""Minimum correlation of the signatures of a candidate pair. Nearly all planted crops by up to a
tenth of each side reach it, and a few in 100,000 pairs of unrelated images."""

NEAREST = 20
"""Maximum number of candidates per image; those with the highest correlation are kept. Without the
limit, all images with the same frame or bars would be candidates of each other."""

SIMILAR = 0.9
"""Minimum correlation of the details of near-duplicates. 99% of planted crops reach 0.92, and 99%
of other copies 0.96. Unrelated COCO images stay below 0.7, scenes of the sample below 0.85."""

DARK = 32
"""An image is almost black if no part of its thumbnail reaches this value of 0 to 255."""

_MARGIN = 0.15  # the largest margin that alignment can find, as a fraction of the side
_SCALE = 1000.0  # length of signatures: float32 products of integers this small are exact


@dataclass(frozen=True)
class NearDuplicate:
    """A pair of images that are nearly the same.

    Attributes:
        first: name of one image.
        second: name of the other image, which sorts after `first`.
        similarity: correlation of the details, from SIMILAR to 1.
    """

    first: str
    second: str
    similarity: float


def find_near_duplicates(images: Mapping[str, Path], workers: int) -> list[NearDuplicate]:
    """Find near-duplicates among image files.

    Memory is about 7 kB per image. Time grows with the square of the number of images; `python -m
    benchmarks.near_duplicates` measures it.

    Args:
        images: paths of the image files by name.
        workers: number of processes; up to 1 means the calling process. The result is the same.

    Returns:
        Pairs of names, sorted. If an image has more than NEAREST near-duplicates, some of its pairs
        may be missing.

    Raises:
        UserError: a file is missing or is not an image.
    """
    names = sorted(images)
    thumbnails = np.zeros((len(names), SIDE, SIDE), np.uint8)
    paths = (images[name] for name in names)
    read = in_processes(_read_thumbnail, paths, workers)
    for place, thumbnail in enumerate(show_progress(read, "reading images", len(names))):
        thumbnails[place] = thumbnail
    _warn_of_dark([names[i] for i in np.flatnonzero(thumbnails.max(axis=(1, 2)) < DARK)])
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


def _warn_of_dark(names: Sequence[str]) -> None:
    if names:
        logger.warning(
            "%d images are almost black, the first: %s. If they have 12-bit values in 16 bits, "
            "scale them or save them as 8 bits",
            len(names),
            names[0],
        )


def write_near_duplicates(path: Path, pairs: Iterable[NearDuplicate]) -> None:
    """Write a CSV file with one row per pair: first, second, similarity."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["first", "second", "similarity"])
        writer.writerows(astuple(pair) for pair in pairs)


def read_near_duplicates(path: Path) -> list[NearDuplicate]:
    """Read a file that `write_near_duplicates` wrote.

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
    """Count the pairs of near-duplicates, and log the counts.

    Args:
        pairs: near-duplicates among the images of the splits.
        splits: names of the images of each split.

    Returns:
        The entry `near_duplicates` of `metrics/split.json`: the number of `pairs`, and the number
        of pairs `across_splits`.
    """
    split_of = {name: split for split, names in splits.items() for name in names}
    across = sum(split_of[pair.first] != split_of[pair.second] for pair in pairs)
    logger.info("%d pairs of near-duplicates, %d across splits", len(pairs), across)
    return {"pairs": len(pairs), "across_splits": across}


def _read_thumbnail(path: Path) -> NDArray[np.uint8]:
    return read_thumbnail(path, SIDE)


@dataclass(frozen=True)
class _Comparison:
    """Candidates (N, 3) of `_candidates`, and the thumbnails (N, SIDE, SIDE) of both images."""

    candidates: NDArray[np.int64]
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]


def _comparisons(thumbnails: NDArray[np.uint8], size: int = 128) -> Iterator[_Comparison]:
    for candidates in _candidates(thumbnails):
        for start in range(0, len(candidates), size):
            part = candidates[start : start + size]
            yield _Comparison(part, thumbnails[part[:, 0]], thumbnails[part[:, 1]])


def _compare(comparison: _Comparison) -> tuple[NDArray[np.int64], Values]:
    """The pairs of images (N, 2) and their similarities (N,)."""
    windows = comparison.candidates[:, 2]
    return comparison.candidates[:, :2], _similarity(comparison.first, comparison.second, windows)


# --- Candidate pairs ------------------------------------------------------------------------------


def _candidates(thumbnails: NDArray[np.uint8], block: int = 1024) -> Iterator[NDArray[np.int64]]:
    """Candidate pairs as rows (i, j, window): that window of image i resembles image j.

    A window of len(WINDOWS) or more is a window of the mirrored image. Each i has up to NEAREST j.
    """
    signatures = _signatures(thumbnails)
    whole = signatures[0].T.copy()
    starts = range(0, len(thumbnails), block)
    for start in show_progress(starts, "comparing images", unit="blocks"):
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
    """Low frequencies of all windows of all images and mirrored images, (2 windows, N, D).

    Weights give all frequencies the same influence, since the amplitudes of natural images fall as
    1/f (Field, 1987). Signatures have the length _SCALE. They are integers, so that their products
    are exact and the same on every machine.
    """
    basis = dct(np.eye(SIDE), axis=0, norm="ortho")[:FREQUENCIES]
    down, across = np.mgrid[:FREQUENCIES, :FREQUENCIES]
    left, right, top, bottom = WINDOWS.T
    rows, columns = basis @ _sampling(top, bottom, SIDE), basis @ _sampling(left, right, SIDE)
    weights = np.hypot(down, across)
    found = np.empty((2, len(WINDOWS), len(thumbnails), FREQUENCIES**2), np.float32)
    for place, thumbnail in enumerate(show_progress(thumbnails, "transforming images")):
        values = rows @ thumbnail.astype(float) @ columns.transpose(0, 2, 1) * weights
        length = np.linalg.norm(values, axis=(1, 2), keepdims=True)
        values *= _SCALE / np.maximum(length, 1)  # a uniform image gets 0: no candidates
        for mirrored, signs in enumerate((1, (-1.0) ** across)):
            found[mirrored, :, place] = np.rint(values * signs).reshape(len(WINDOWS), -1)
    return found.reshape(2 * len(WINDOWS), len(thumbnails), FREQUENCIES**2)


# --- Similarity -----------------------------------------------------------------------------------


def _similarity(
    first: NDArray[np.uint8], second: NDArray[np.uint8], windows: NDArray[np.int64]
) -> Values:
    """Correlations (N,) of the details of aligned pairs, where the images of a pair overlap.

    `windows` (N,) of the images `first` (N, SIDE, SIDE) are aligned with the images `second`.
    """
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
    details = [_normalized(_details(image) * both) for image in (moved, still)]
    correlation: Values = (details[0] * details[1]).sum(axis=(1, 2))
    return correlation


def _align(moving: Values, still: Values, margins: Values, steps: int = 4) -> Values:
    """Refine the margins (N, 4) that align windows of `moving` (N, S, S) with `still` (N, S, S).

    Gauss-Newton steps minimize the squared difference (Lucas and Kanade, 1981), independent of
    brightness and contrast.
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
    """Matrices (N, side, side) that resample a side between two margins, by linear interpolation.

    Margins (N,) are fractions of the side. Samples beyond the image are 0.
    """
    grid = (np.arange(side) + 0.5) / side
    places = (before[:, None] + grid * (1 - before - behind)[:, None]) * side - 0.5
    weights: Values = np.maximum(0, 1 - np.abs(places[:, :, None] - np.arange(side)))
    return weights


def _half(images: Values) -> Values:
    """Halve and smooth images (N, S, S), so that alignment converges from larger offsets."""
    side = images.shape[1] // 2
    halved: Values = images.reshape(-1, side, 2, side, 2).mean(axis=(2, 4))
    return _smooth(halved, 1)


def _details(images: Values) -> Values:
    """Structures finer than a sixteenth of the side, without the noise of single pixels."""
    return _smooth(images, 0.7) - _smooth(images, 4)


def _smooth(images: Values, sigma: float) -> Values:
    smoothed: Values = gaussian_filter(images, (0, sigma, sigma), mode="nearest", truncate=2)
    return smoothed


def _normalized(images: Values) -> Values:
    centered = _centered(images)
    return centered / _length(centered)


def _centered(images: Values) -> Values:
    centered: Values = images - images.mean(axis=(-2, -1), keepdims=True)
    return centered


def _length(images: Values) -> Values:
    lengths: Values = np.maximum(np.linalg.norm(images, axis=(1, 2), keepdims=True), 1e-9)
    return lengths
