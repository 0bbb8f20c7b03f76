"""Inference on large images in overlapping tiles, whose logits are blended.

Each tile is weighted by a smooth window, sin² along each axis: high in the middle, low at the edge.
Weighting and upsampling are separable. The tiles of a row are therefore joined along the columns
first, at the resolution of their logits; the joined rows are then upsampled and blended into strips
of image rows. Beyond the image itself, memory grows with its width and not with its height.
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

TileNetwork = Callable[[Sequence[Tensor]], Tensor]
"""A function from B tiles of one shape, uint8 (3, h, w), to logits (B, classes, h', w')."""

MultiScaleNetwork = Callable[[Sequence[Tensor], tuple[int, int]], Tensor]
"""A function from B images at one or more scales, each uint8 (B, 3, h, w), and an output size to
logits (B, classes, *size)."""

OVERLAP = 0.5
"""The minimum overlap of adjacent tiles, as a fraction of their side."""

STRIP_VALUES = 2**23
"""The maximum number of values in a strip, unless a single row has more."""


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis of an image.

    Attributes:
        length: the pixels of the image along the axis.
        side: the pixels of each tile.
        starts: the first pixel of each tile.
    """

    length: int
    side: int
    starts: tuple[int, ...]

    def weights(self) -> Tensor:
        """The weight of each tile at each of its pixels, float32 (tiles, side).

        At each pixel of the image, the weights of all tiles add up to 1.
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
    """Tiles in rows and columns.

    Attributes:
        rows: the vertical axis.
        columns: the horizontal axis.
        weight: the weight of this grid's logits relative to other grids.
    """

    rows: Axis
    columns: Axis
    weight: float = 1.0


def tile_grids(height: int, width: int, tiles: Tiles, size: int) -> list[Grid]:
    """Divide an image into tiles, next to the whole image as a single tile.

    The whole image shows large objects in context, but at a lower resolution. If its scale is 1/z
    of the scale of the tiles, the network sees 1/z² of the pixels, and this is its weight.

    Args:
        height: the rows of the image.
        width: the columns of the image.
        tiles: the side of a tile in pixels of the image. `full` is `size`, at which the network
            sees the image at its full resolution.
        size: the shorter side in pixels to which the network's inputs are resized.

    Returns:
        The whole image and the tiles, or only the whole image if it fits into a tile.
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
    network: TileNetwork, image: Tensor, grids: Sequence[Grid], batch_size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Compute the logits of an image, averaged over its tiles.

    Args:
        network: computes the logits of tiles.
        image: uint8 (3, H, W).
        grids: the tiles.
        batch_size: the maximum number of tiles per call of `network`.

    Yields:
        Ranges of image rows from top to bottom, and their logits, float32 (classes, rows, W), on
        the device of the network's logits.
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
            joined = _join_row(network, image[:, top:bottom], columns, batch_size)
            upsampling = _upsampling(joined.shape[1], weights.to(joined.device))
            live.append((top, bottom, upsampling, joined))
        for strip in strips(after - top, joined.shape[0] * joined.shape[2]):
            rows = slice(top + strip.start, top + strip.stop)
            layers = [
                upsampling[rows.start - first : rows.stop - first] @ joined
                for first, _, upsampling, joined in live
            ]
            yield rows, functools.reduce(torch.add, layers)


@torch.inference_mode()  # as a decorator, it is off while the generator is suspended
def tiled_logits(
    network: MultiScaleNetwork,
    card: ModelCard,
    image: Tensor,
    tiles: Tiles,
    batch_size: int,
    sizes: Sequence[int],
) -> Iterator[tuple[slice, Tensor]]:
    """Compute the logits of an image as a whole and in tiles.

    Args:
        network: computes the logits of tiles at each of `sizes`.
        card: the metadata of the network.
        image: RGB, uint8 (3, H, W).
        tiles: the side of a tile, as in `tile_grids`.
        batch_size: the maximum number of tiles in a batch.
        sizes: the shorter sides in pixels to which tiles are resized.

    Yields:
        Ranges of rows and their logits, as in `blend_tiles`.
    """

    def tile_logits(views: Sequence[Tensor]) -> Tensor:
        inputs = [torch.stack([resize_shorter_side(v, size) for v in views]) for size in sizes]
        return network(inputs, coarse_size(card, inputs[0]))

    height, width = image.shape[1:]
    grids = tile_grids(height, width, tiles, card.size)
    yield from blend_tiles(tile_logits, image, grids, batch_size)


def _join_row(network: TileNetwork, row: Tensor, columns: Axis, batch_size: int) -> Tensor:
    """Blend the tiles of image rows (3, h, W) along the columns: logits (classes, h', W)."""
    weights = columns.weights()
    for first in range(0, len(weights), batch_size):
        starts = columns.starts[first : first + batch_size]
        batch = network([row[:, :, start : start + columns.side] for start in starts])
        if not first:
            joined = batch.new_zeros(*batch.shape[1:3], columns.length)
        for start, weight, logits in zip(starts, weights[first:], batch, strict=False):
            upsampling = _upsampling(logits.shape[2], weight.to(logits.device))
            joined[:, :, start : start + columns.side] += logits @ upsampling.T
    return joined


def _upsampling(inputs: int, weights: Tensor) -> Tensor:
    """The matrix (outputs, inputs) that resizes one axis and weights its pixels."""
    identity = torch.eye(inputs, device=weights.device)[None, None]
    return weights[:, None] * resize_bilinear(identity, len(weights), inputs)[0, 0]


def strips(rows: int, row_values: int) -> Iterator[slice]:
    """Divide rows into ranges of at most STRIP_VALUES values, or of one row."""
    step = max(1, STRIP_VALUES // row_values)
    for top in range(0, rows, step):
        yield slice(top, min(top + step, rows))
