"""A photo in overlapping tiles: each is seen as if it were a photo, and the logits are blended.

A tile counts by a smooth window, sin² along each axis: most in its middle, little at its edge.
Windows and enlargement work on one axis at a time. So the tiles of a row are joined along the
columns first, at the logits' own rows, and few such joined rows are kept until the photo's rows are
made of them, a strip at a time. What is held beside the photo grows with its width, not its height.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from cocoseg.inference.dataset import resize_shorter_side
from cocoseg.models.heads import resize_bilinear
from cocoseg.models.networks import ModelCard, coarse_size

Tiles = int | Literal["full"]

SeeTiles = Callable[[Sequence[Tensor]], Tensor]
"""From tiles of one shape, uint8 (3, h, w) each, to their logits (B, classes, h', w')."""

OVERLAP = 0.5
"""The least share of its side that a tile has in common with the next."""

STRIP_VALUES = 2**23
"""So many numbers has a strip of rows at most, but for one row."""


@dataclass(frozen=True)
class Axis:
    """One axis of a photo, `length` pixels, and where its tiles of `side` pixels start."""

    length: int
    side: int
    starts: tuple[int, ...]

    def weights(self) -> Tensor:
        """What each tile counts at each of its pixels, float32 (tiles, side).

        At each pixel of the photo, the weights of the tiles that show it add up to 1.
        """
        angle = (torch.arange(self.side, dtype=torch.float64) + 0.5) * torch.pi / self.side
        window = angle.sin() ** 2
        total = torch.zeros(self.length, dtype=torch.float64)
        for start in self.starts:
            total[start : start + self.side] += window
        fractions = [window / total[start : start + self.side] for start in self.starts]
        return torch.stack(fractions).float()


@dataclass(frozen=True)
class Grid:
    """Tiles in rows and columns; `weight` is what the grid counts beside others."""

    rows: Axis
    columns: Axis
    weight: float = 1.0


def tile_grids(height: int, width: int, tiles: Tiles, size: int) -> list[Grid]:
    """The grids in which a photo is seen by a network of input `size`: as a whole, and in tiles.

    `tiles` is the side of a tile in pixels of the photo, `full` the network's own size, so that it
    sees the photo's pixels as they are. A photo that fits into a tile is seen as a whole only. The
    whole shows where large things are, but all else worse: where its scale is 1/z of the tiles', it
    counts 1/z² of them, as the network gets so many fewer pixels for the same place.
    """
    side = size if tiles == "full" else tiles
    whole = Grid(_axis(height, height), _axis(width, width))
    if side >= max(height, width):
        return [whole]
    weight = (min(side, height, width) / min(height, width)) ** 2
    return [replace(whole, weight=weight), Grid(_axis(height, side), _axis(width, side))]


def _axis(length: int, side: int) -> Axis:
    side = min(side, length)
    steps = -(-(length - side) // max(1, int(side * (1 - OVERLAP))))
    starts = [round(step * (length - side) / steps) for step in range(1, steps + 1)]
    return Axis(length, side, (0, *starts))


def blend_tiles(
    see: SeeTiles, photo: Tensor, grids: Sequence[Grid], batch_size: int
) -> Iterator[tuple[slice, Tensor]]:
    """The logits of a photo, uint8 (3, H, W), averaged over the grids by their weights.

    Gives ranges of rows from top to bottom, and of each the logits, float32 (classes, rows, W), on
    the device where `see` leaves them. `see` gets at most `batch_size` tiles at a time.
    """
    total = sum(grid.weight for grid in grids)
    waiting = sorted(
        (
            (top, top + grid.rows.side, weights * (grid.weight / total), grid.columns)
            for grid in grids
            for top, weights in zip(grid.rows.starts, grid.rows.weights(), strict=True)
        ),
        key=lambda row: row[0],
    )
    edges = sorted({edge for top, bottom, *_ in waiting for edge in (top, bottom)})
    live: list[tuple[int, int, Tensor, Tensor]] = []
    for top, after in itertools.pairwise(edges):
        live = [row for row in live if row[1] > top]
        while waiting and waiting[0][0] == top:
            _, bottom, weights, columns = waiting.pop(0)
            joined = _join_row(see, photo[:, top:bottom], columns, batch_size)
            upsampling = _upsampling(joined.shape[1], weights.to(joined.device))
            live.append((top, bottom, upsampling, joined))
        for strip in strips(after - top, joined.shape[0] * joined.shape[2]):
            rows = slice(top + strip.start, top + strip.stop)
            parts = [
                upsampling[rows.start - first : rows.stop - first] @ joined
                for first, _, upsampling, joined in live
            ]
            yield rows, functools.reduce(torch.add, parts)


def tiled_logits(
    network: Callable[[Sequence[Tensor], tuple[int, int]], Tensor],
    card: ModelCard,
    image: Tensor,
    tiles: Tiles,
    batch_size: int,
    sizes: Sequence[int],
) -> Iterator[tuple[slice, Tensor]]:
    """The logits of an image seen as a whole and in tiles, as `blend_tiles` yields them.

    Args:
        network: from the tiles at each of `sizes`, uint8 (B, 3, h, w), to logits of the given size.
        card: the card of the network.
        image: uint8 (3, H, W).
        tiles: the side of a tile, as in `tile_grids`.
        batch_size: the number of tiles in a batch.
        sizes: the shorter sides in pixels to which tiles are resized.
    """

    def see(views: Sequence[Tensor]) -> Tensor:
        inputs = [torch.stack([resize_shorter_side(v, size) for v in views]) for size in sizes]
        return network(inputs, coarse_size(card, inputs[0]))

    height, width = image.shape[1:]
    with torch.inference_mode():
        yield from blend_tiles(see, image, tile_grids(height, width, tiles, card.size), batch_size)


def _join_row(see: SeeTiles, row: Tensor, columns: Axis, batch_size: int) -> Tensor:
    """The logits (classes, h', W) of a row of tiles, (3, h, W), blended along the columns."""
    weights = columns.weights()
    for first in range(0, len(weights), batch_size):
        starts = columns.starts[first : first + batch_size]
        seen = see([row[:, :, start : start + columns.side] for start in starts])
        if not first:
            joined = seen.new_zeros(*seen.shape[1:3], columns.length)
        for start, weight, logits in zip(starts, weights[first:], seen, strict=False):
            upsampling = _upsampling(logits.shape[2], weight.to(logits.device))
            joined[:, :, start : start + columns.side] += logits @ upsampling.T
    return joined


def _upsampling(inputs: int, weights: Tensor) -> Tensor:
    """The matrix (outputs, inputs) that resizes along an axis and gives each output its weight."""
    identity = torch.eye(inputs, device=weights.device)[None, None]
    return weights[:, None] * resize_bilinear(identity, len(weights), inputs)[0, 0]


def strips(rows: int, row_values: int) -> Iterator[slice]:
    """Ranges that make up the rows, each of STRIP_VALUES numbers at most, or of one row."""
    step = max(1, STRIP_VALUES // row_values)
    for top in range(0, rows, step):
        yield slice(top, min(top + step, rows))
