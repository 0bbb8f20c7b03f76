"""Inference in tiles: weights, seams, and bounded memory."""

import gc
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cocoseg.inference.tiling import Axis, Grid, blend_tiles, tile_grids, tiled_logits
from cocoseg.models.networks import ModelCard


def colors(tiles: Sequence[Tensor]) -> Tensor:
    """Logits of a network that returns the three color values of each pixel."""
    return torch.stack(list(tiles)).float()


def coarse_colors(tiles: Sequence[Tensor]) -> Tensor:
    """The same in 8 x 8 positions per tile."""
    return torch.nn.functional.adaptive_avg_pool2d(colors(tiles), 8)


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def joined(strips: object) -> Tensor:
    """Join strips of logits, which must follow one another without gaps."""
    rows = list(strips)  # type: ignore[call-overload]
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


@pytest.mark.parametrize(
    ("height", "width", "tiles", "z"),
    [(256, 512, 64, 4), (512, 256, 64, 4), (48, 200, 64, 1), (256, 512, "full", 8)],
)
def test_the_whole_image_has_the_weight_of_its_pixels_per_pixel_of_the_tiles(
    height: int, width: int, tiles: int, z: int
) -> None:
    """At 1/z of the scale of the tiles, the network sees 1/z² of the pixels."""
    whole, tiled = tile_grids(height, width, tiles, 32)
    assert (whole.rows.starts, whole.columns.starts) == ((0,), (0,))
    assert whole.weight / tiled.weight == 1 / z**2


def test_grids_are_averaged_by_their_weights() -> None:
    """The whole image returns 0, its 64 x 64 tiles return 1."""

    def network(tiles: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.full((1, 4, 4), float(tile.shape[1] == 64)) for tile in tiles])

    blended = joined(blend_tiles(network, noise(128, 256), tile_grids(128, 256, 64, 32), 8))
    assert torch.allclose(blended, torch.tensor(4 / 5))


@pytest.mark.parametrize(("height", "width"), [(150, 260), (64, 64), (40, 333), (333, 40), (1, 90)])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_blending_equal_logits_does_not_change_them(
    height: int, width: int, batch_size: int
) -> None:
    image = noise(height, width)
    grids = tile_grids(height, width, 64, 96)
    blended = joined(blend_tiles(colors, image, grids, batch_size))
    assert torch.allclose(blended, image.float(), atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "tiles", "size", "expected"),
    [
        ((48, 64), "full", 64, [(3, 48, 64)]),
        ((48, 200), 64, 32, [(3, 48, 200), *[(3, 48, 64)] * 6]),
    ],
    ids=["fits into a tile", "larger than a tile"],
)
def test_the_network_gets_the_whole_image_and_tiles_of_one_shape(
    shape: tuple[int, int], tiles: int, size: int, expected: list[tuple[int, ...]]
) -> None:
    inputs: list[tuple[int, ...]] = []

    def network(batch: Sequence[Tensor]) -> Tensor:
        inputs.extend(tuple(tile.shape) for tile in batch)
        return coarse_colors(batch)

    image = noise(*shape)
    blended = joined(blend_tiles(network, image, tile_grids(*shape, tiles, size), 8))
    assert sorted(inputs, reverse=True) == expected
    if len(expected) == 1:
        upsampled = torch.nn.functional.interpolate(coarse_colors([image]), shape, mode="bilinear")
        assert torch.allclose(blended, upsampled[0], atol=1e-3)


def test_tiles_with_different_logits_are_joined_smoothly() -> None:
    numbers = iter([0.0, 1.0])

    def network(tiles: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.full((1, 4, 4), next(numbers)) for _ in tiles])

    grid = Grid(Axis(64, 64, (0,)), Axis(112, 64, (0, 48)))
    line = joined(blend_tiles(network, noise(64, 112), [grid], 1))[0, 0]
    assert (line[:48] == 0).all() and (line[64:] == 1).all()
    steps = line.diff()
    assert (steps >= 0).all() and steps.max() < 0.15


@pytest.mark.parametrize("shift", [5, 8, 16])
def test_few_labels_depend_on_the_position_of_the_grid(shift: int) -> None:
    """For a network with an output stride of 8 and a receptive field of 33 pixels."""
    coarse = noise(12, 16)[None].float()
    image = torch.nn.functional.interpolate(coarse, (300, 400), mode="bicubic")[0]

    def network(tiles: Sequence[Tensor]) -> Tensor:
        return torch.nn.functional.avg_pool2d(torch.stack(list(tiles)), 33, 8, 16)

    def labels(shift: int) -> Tensor:
        grid = tile_grids(300, 400, 96, 96)[-1]
        shifted = Grid(shift_axis(grid.rows, shift), shift_axis(grid.columns, shift))
        return joined(blend_tiles(network, image, [shifted], 8)).max(dim=0).indices

    assert (labels(shift) != labels(0)).float().mean() < 0.02


def shift_axis(axis: Axis, shift: int) -> Axis:
    """Shift all tiles; the first and the last remain as well, so that they cover the image."""
    *others, last = axis.starts
    starts = {0, *(start + shift for start in others), last}
    return Axis(axis.length, axis.side, tuple(sorted(starts)))


@pytest.mark.parametrize(("height", "width"), [(6_400, 64), (64, 6_400)])
def test_memory_holds_few_rows_of_tiles(height: int, width: int) -> None:
    (grid,) = tile_grids(height, width, 64, 64)[1:]
    assert len(grid.rows.starts) * len(grid.columns.starts) == 199
    calls = alive = 0

    def network(tiles: Sequence[Tensor]) -> Tensor:
        nonlocal calls, alive
        calls += len(tiles)
        if calls % 64 == 0:
            row = (3, 8, width)  # the logits of a row of tiles
            tensors = [item for item in gc.get_objects() if type(item) is Tensor]
            alive = max(alive, sum(tensor.shape == row for tensor in tensors))
        return coarse_colors(tiles)

    for _ in blend_tiles(network, noise(height, width), [grid], 1):
        pass
    assert 1 <= alive <= 3


def test_inference_mode_does_not_leak_from_a_suspended_generator() -> None:
    modes = []

    def network(inputs: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        modes.append(torch.is_inference_mode_enabled())
        (images,) = inputs
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), size)

    card = ModelCard("deeplabv3_mobilenet_v3_large", ("background", "red", "blue"), 64)
    strips = tiled_logits(network, card, noise(64, 300), 64, 4, [64])
    next(strips)
    assert modes and all(modes)
    assert not torch.is_inference_mode_enabled()
    weight = torch.ones(1, requires_grad=True)
    (2 * weight).sum().backward()
    assert weight.grad == 2
