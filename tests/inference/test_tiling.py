"""A photo in tiles: every pixel gets its share of each, whatever the grid, in bounded memory."""

import gc
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cocoseg.inference.tiling import Axis, Grid, blend_tiles, tile_grids


def see_colors(tiles: Sequence[Tensor]) -> Tensor:
    """Logits of a network that sees each pixel by itself: its three colours."""
    return torch.stack(list(tiles)).float()


def see_coarsely(tiles: Sequence[Tensor]) -> Tensor:
    """The same at an eighth of the resolution."""
    return torch.nn.functional.adaptive_avg_pool2d(see_colors(tiles), 8)


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def whole(rows_of: object) -> Tensor:
    """All rows, which must come in order and once."""
    rows = list(rows_of)  # type: ignore[call-overload]
    tops, stops = [row.start for row, _ in rows], [row.stop for row, _ in rows]
    assert tops == [0, *stops[:-1]]
    return torch.cat([logits for _, logits in rows], dim=1)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 100, 128, 129, 1000])
def test_weights_add_up_to_one_at_every_pixel(length: int) -> None:
    axis = tile_grids(length, 2000, 64, 64)[1].rows
    total = torch.zeros(length)
    weights = axis.weights()
    for start, weight in zip(axis.starts, weights, strict=True):
        assert weight.min() > 0
        total[start : start + axis.side] += weight
    assert torch.allclose(total, torch.ones(length), atol=1e-6)
    assert axis.starts[-1] + axis.side == length
    gaps = [later - start for start, later in zip(axis.starts, axis.starts[1:], strict=False)]
    assert max(gaps, default=0) <= axis.side / 2


@pytest.mark.parametrize(("height", "width"), [(150, 260), (64, 64), (40, 333), (333, 40), (1, 90)])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_what_each_tile_sees_alike_is_what_the_photo_shows(
    height: int, width: int, batch_size: int
) -> None:
    """No seams: where tiles agree, blending changes nothing, at any pixel."""
    photo = noise(height, width)
    grids = tile_grids(height, width, 64, 96)
    blended = whole(blend_tiles(see_colors, photo, grids, batch_size))
    assert torch.allclose(blended, photo.float(), atol=1e-3)


def test_a_photo_that_fits_into_a_tile_is_seen_once_and_as_a_whole() -> None:
    photo = noise(48, 64)
    seen: list[tuple[int, ...]] = []

    def see(tiles: Sequence[Tensor]) -> Tensor:
        seen.extend(tuple(tile.shape) for tile in tiles)
        return see_coarsely(tiles)

    blended = whole(blend_tiles(see, photo, tile_grids(48, 64, "full", 64), 8))
    assert seen == [(3, 48, 64)]
    expected = torch.nn.functional.interpolate(see_coarsely([photo]), (48, 64), mode="bilinear")
    assert torch.allclose(blended, expected[0], atol=1e-3)


def test_a_larger_photo_is_seen_as_a_whole_and_in_tiles_of_one_shape() -> None:
    seen: list[tuple[int, ...]] = []

    def see(tiles: Sequence[Tensor]) -> Tensor:
        seen.extend(tuple(tile.shape) for tile in tiles)
        return see_coarsely(tiles)

    whole(blend_tiles(see, noise(48, 200), tile_grids(48, 200, 64, 32), 8))
    assert seen.count((3, 48, 200)) == 1
    assert set(seen) == {(3, 48, 200), (3, 48, 64)}


def test_a_step_between_tiles_becomes_a_slope() -> None:
    """Tiles that contradict each other meet in a smooth transition, not in an edge."""
    numbers = iter([0.0, 1.0])

    def see(tiles: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.full((1, 4, 4), next(numbers)) for _ in tiles])

    axis = Axis(112, 64, (0, 48))
    grid = Grid(Axis(64, 64, (0,)), axis)
    line = whole(blend_tiles(see, noise(64, 112), [grid], 1))[0, 0]
    assert (line[:48] == 0).all() and (line[64:] == 1).all()
    steps = line.diff()
    assert (steps >= 0).all() and steps.max() < 0.15


@pytest.mark.parametrize("shift", [5, 8, 16])
def test_few_labels_depend_on_where_the_grid_starts(shift: int) -> None:
    """Of a network that sees 33 pixels around, at an eighth of the resolution, and at a tile's edge
    only half of them; docs/deployment.md states the share for a trained network."""
    coarse = noise(12, 16)[None].float()
    photo = torch.nn.functional.interpolate(coarse, (300, 400), mode="bicubic")[0]

    def see(tiles: Sequence[Tensor]) -> Tensor:
        return torch.nn.functional.avg_pool2d(torch.stack(list(tiles)), 33, 8, 16)

    def labels(shift: int) -> Tensor:
        grid = tile_grids(300, 400, 96, 96)[-1]
        shifted = Grid(shift_axis(grid.rows, shift), shift_axis(grid.columns, shift))
        return whole(blend_tiles(see, photo, [shifted], 8)).max(dim=0).indices

    assert (labels(shift) != labels(0)).float().mean() < 0.02


def shift_axis(axis: Axis, shift: int) -> Axis:
    """The first and the last tile stay, so that all is covered."""
    *others, last = axis.starts
    starts = {0, *(start + shift for start in others), last}
    return Axis(axis.length, axis.side, tuple(sorted(starts)))


@pytest.mark.parametrize(("height", "width"), [(6_400, 64), (64, 6_400)])
def test_few_rows_of_tiles_live_at_a_time_however_long_the_photo_is(
    height: int, width: int
) -> None:
    (grid,) = tile_grids(height, width, 64, 64)[1:]
    assert len(grid.rows.starts) * len(grid.columns.starts) == 199
    seen = alive = 0

    def see(tiles: Sequence[Tensor]) -> Tensor:
        nonlocal seen, alive
        seen += len(tiles)
        if seen % 64 == 0:
            rows = (3, 8, width)  # the logits of a row of tiles, joined
            tensors = [part for part in gc.get_objects() if type(part) is Tensor]
            alive = max(alive, sum(part.shape == rows for part in tensors))
        return see_coarsely(tiles)

    for _ in blend_tiles(see, noise(height, width), [grid], 1):
        pass
    assert 1 <= alive <= 3
