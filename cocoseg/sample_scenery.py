"""The sample's backgrounds: sky, ground in perspective, buildings, trees, under one of three lights.

A background is painted at the size of the picture where it is soft (sky, ground), and with DETAIL times
as many pixels each way where it has edges; the caller reduces it when the objects are drawn too.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cocoseg.sample_objects import (
    Colour,
    Point,
    between,
    chance,
    darker,
    lighter,
    mix,
    pick,
    vary,
)

DETAIL = 3
Pixels = NDArray[np.float64]

GRASS: Colour = (98, 128, 62)
ASPHALT: Colour = (98, 99, 104)
PAVING: Colour = (168, 162, 152)
SOIL: Colour = (164, 138, 100)
WATER: Colour = (86, 118, 138)
WHITE_PAINT: Colour = (222, 220, 210)
FACADES: tuple[Colour, ...] = (
    (164, 92, 70), (188, 150, 112), (214, 202, 178), (150, 142, 136), (196, 174, 140), (122, 104, 98),
    (170, 178, 182), (206, 160, 128),
)  # fmt: skip


@dataclass(frozen=True)
class Light:
    """What the weather and the hour do to a scene. `sun` -1: light from the left, 1: right."""

    sky_top: Colour
    sky_low: Colour
    cloud: Colour
    cover: float  # share of clouds, 0 to 1
    tint: tuple[float, float, float]
    shadow: float  # darkness of cast shadows, 0 to 1
    sun: int
    shadow_depth: float  # how far shadows fall towards the viewer, in heights of the object
    evening: bool


@dataclass(frozen=True)
class View:
    """A camera over flat ground: pixels per metre grow linearly below the horizon."""

    width: int
    height: int
    horizon: float  # pixels from the top
    camera: float  # metres above the ground
    centre: float  # pixels from the left to the vanishing point

    def ground_at(self, scale: float) -> float:
        """The y in pixels where ground is seen at `scale` pixels per metre."""
        return self.horizon + self.camera * scale

    def scale_at(self, y: float) -> float:
        return max(y - self.horizon, 0.0) / self.camera


def make_light(rng: Generator) -> Light:
    weather = pick(rng, ("day", "day", "day", "overcast", "dusk"))
    sun, depth = pick(rng, (-1, 1)), pick(rng, (0.28, 0.2, -0.16))
    if weather == "overcast":
        low = vary(rng, (206, 210, 214), 6)
        return Light(
            vary(rng, (158, 168, 180), 8),
            low,
            (222, 224, 226),
            0.75,
            (0.96, 0.98, 1.0),
            0.0,
            sun,
            depth,
            False,
        )
    if weather == "dusk":
        low = pick(rng, ((250, 184, 120), (244, 160, 124), (246, 200, 150)))
        return Light(
            vary(rng, (84, 98, 146), 10),
            low,
            (238, 170, 140),
            0.4,
            (1.0, 0.88, 0.8),
            0.32,
            sun,
            depth,
            True,
        )
    low = vary(rng, (200, 220, 234), 8)
    top = vary(rng, pick(rng, ((72, 128, 196), (96, 150, 206), (58, 112, 180))), 8)
    return Light(
        top,
        low,
        (250, 250, 250),
        between(rng, 0.1, 0.6),
        (1.03, 1.0, 0.95),
        between(rng, 0.4, 0.55),
        sun,
        depth,
        False,
    )


def noise(rng: Generator, width: int, height: int, columns: int, rows: int) -> Pixels:
    """Smooth noise in [-1, 1], shape (height, width), from a grid of `rows` by `columns` values."""
    grid = rng.integers(0, 256, (max(rows, 2), max(columns, 2)), dtype=np.uint8)
    resized = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float64) / 127.5 - 1.0


def _blend(pixels: Pixels, colour: Colour, share: Pixels) -> None:
    """Paint `colour` over `pixels` (rows, columns, 3) where `share` (rows, columns) is not 0."""
    for channel in range(3):
        plane = pixels[..., channel]
        plane += (colour[channel] - plane) * share


def _sky(rng: Generator, view: View, light: Light, rows: int) -> Pixels:
    fall = np.linspace(0.0, 1.0, rows)[:, None] ** 0.8
    top, low = np.array(light.sky_top, np.float64), np.array(light.sky_low, np.float64)
    pixels = np.repeat((top + (low - top) * fall)[:, None, :], view.width, axis=1)
    billows = np.zeros((rows, view.width))
    for octave in range(4):
        cells = 3 * 2**octave
        billows += (
            noise(rng, view.width, rows, cells, max(2, cells * rows // view.height)) / 2**octave
        )
    cover = np.clip((billows + 2.2 * light.cover - 1.1) * 1.5, 0.0, 1.0)
    step = max(1, rows // 24)
    lit = np.clip(billows - np.roll(billows, step, axis=0), -0.5, 0.5)
    _blend(pixels, light.cloud, cover * 0.85)
    pixels += (lit * cover * 34.0)[..., None]
    return pixels


class _Ground:
    """The ground's pixels with each pixel's place: metres across (x) and away (z)."""

    def __init__(
        self, rng: Generator, view: View, light: Light, colour: Colour, rough: float
    ) -> None:
        self.top = min(view.height, max(0, math.ceil(view.horizon)))
        rows = view.height - self.top
        below = np.arange(self.top, view.height) + 0.5 - view.horizon
        self.scale = np.maximum(below, 0.25)[:, None] / view.camera  # pixels per metre
        self.z = 1.2 * view.height / self.scale
        self.x = (np.arange(view.width)[None, :] + 0.5 - view.centre) / self.scale
        self.pixels = np.empty((rows, view.width, 3))
        self.pixels[:] = colour
        grain = rng.integers(0, 256, (256, 256), dtype=np.uint8).astype(np.float64) / 127.5 - 1.0
        patches = noise(rng, 256, 256, 28, 28)
        column = (self.x * 22.0).astype(np.int64) % 256
        row = np.broadcast_to((self.z * 22.0).astype(np.int64) % 256, column.shape)
        wide = (self.x * 5.0).astype(np.int64) % 256
        deep = np.broadcast_to((self.z * 5.0).astype(np.int64) % 256, column.shape)
        near = np.clip(self.scale / (0.25 * view.height), 0.0, 1.0)
        mid = np.clip(self.scale / (0.06 * view.height), 0.0, 1.0)
        self.texture = grain[row, column] * near * 0.7 + patches[deep, wide] * mid
        self.pixels += (self.texture * rough)[..., None]
        self._haze, self._near = light.sky_low, near

    def stripe(
        self, colour: Colour, centre: Pixels | float, width: float, share: float = 1.0
    ) -> None:
        """A way `width` metres wide that leads away from the viewer, around x = `centre`."""
        inside = np.clip((width / 2 - np.abs(self.x - centre)) * self.scale + 0.5, 0.0, 1.0)
        self._paint(colour, inside * share)

    def across(self, colour: Colour, near: float, far: float, share: Pixels | float = 1.0) -> None:
        """A way from side to side, between the pixels per metre `far` and `near`."""
        edge = 1.0 / np.maximum(np.gradient(self.scale[:, 0])[:, None], 1e-9)
        inside = np.clip((self.scale - far) * edge, 0.0, 1.0) * np.clip(
            (near - self.scale) * edge, 0.0, 1.0
        )
        self._paint(colour, np.broadcast_to(inside * share, self.texture.shape))

    def _paint(self, colour: Colour, share: Pixels) -> None:
        for channel in range(3):
            plane = self.pixels[..., channel]
            plane += (colour[channel] + self.texture * 7.0 - plane) * share

    def finished(self) -> Pixels:
        _blend(
            self.pixels,
            self._haze,
            np.broadcast_to(0.3 * (1.0 - self._near) ** 4, self.texture.shape),
        )
        return self.pixels


@dataclass(frozen=True)
class _Canvas:
    """What has edges is drawn here, in pixels of the picture."""

    draw: ImageDraw.ImageDraw
    view: View
    light: Light

    def polygon(self, corners: list[Point], colour: Colour) -> None:
        self.draw.polygon([(x * DETAIL, y * DETAIL) for x, y in corners], fill=colour)

    def rectangle(
        self, left: float, top: float, right: float, bottom: float, colour: Colour
    ) -> None:
        if right > left and bottom > top:
            self.draw.rectangle(
                [left * DETAIL, top * DETAIL, right * DETAIL - 1, bottom * DETAIL - 1], fill=colour
            )

    def blob(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self.draw.ellipse(
            [(x - rx) * DETAIL, (y - ry) * DETAIL, (x + rx) * DETAIL, (y + ry) * DETAIL],
            fill=colour,
        )

    def far(self, colour: Colour, share: float) -> Colour:
        """`colour` seen through haze."""
        return mix(colour, self.light.sky_low, share)


def _hills(rng: Generator, canvas: _Canvas, colour: Colour, rise: float, base: float) -> None:
    view = canvas.view
    waves = [
        (between(rng, 0.5, 3.2), between(rng, 0, 6.28), between(rng, 0.2, 1.0)) for _ in range(4)
    ]
    crest = []
    for step in range(41):
        share = step / 40
        lift = sum(size * math.sin(6.28 * often * share + phase) for often, phase, size in waves)
        crest.append((share * view.width, base - view.height * rise * (1.0 + 0.35 * lift)))
    canvas.polygon([*crest, (view.width, base + 2), (0, base + 2)], colour)


def _tree(
    rng: Generator, canvas: _Canvas, x: float, base: float, size: float, leaf: Colour, haze: float
) -> None:
    """A tree `size` pixels high that stands at (x, base)."""
    trunk = canvas.far((92, 72, 54), haze)
    half = size * 0.035
    canvas.polygon(
        [
            (x - half, base),
            (x + half, base),
            (x + half * 0.6, base - size * 0.6),
            (x - half * 0.6, base - size * 0.6),
        ],
        trunk,
    )
    conifer = chance(rng, 0.2)
    for index in range(26):
        share = index / 25
        if conifer:
            y = base - size * (0.2 + 0.8 * share)
            across = size * 0.24 * (1.05 - share)
            spot, radius = x + between(rng, -1, 1) * across, size * 0.09 * (1.15 - share)
        else:
            angle, away = between(rng, 0, 6.28), between(rng, 0.0, 1.0) ** 0.5
            spot = x + math.cos(angle) * away * size * 0.26
            y = base - size * 0.64 - math.sin(angle) * away * size * 0.25
            radius = size * between(rng, 0.07, 0.13)
        towards_sun = (spot - x) / size * canvas.light.sun + (base - size * 0.6 - y) / size
        shade = towards_sun * 1.3 + between(rng, -0.1, 0.1) + (share - 0.7) * 0.4
        tone = lighter(leaf, min(shade, 0.35)) if shade > 0 else darker(leaf, min(-shade, 0.55))
        canvas.blob(spot, y, radius, radius * 0.85, canvas.far(tone, haze))


def _tree_line(rng: Generator, canvas: _Canvas, base: float, size: float, haze: float) -> None:
    leaf = vary(rng, (70, 96, 54), 12)
    x = between(rng, -size, 0)
    while x < canvas.view.width + size:
        tone = canvas.far(vary(rng, leaf, 10), haze)
        tall = size * between(rng, 0.5, 1.1)
        canvas.blob(x, base - tall * 0.45, tall * 0.4, tall * 0.55, darker(tone, 0.12))
        canvas.blob(
            x + canvas.light.sun * tall * 0.1, base - tall * 0.6, tall * 0.26, tall * 0.34, tone
        )
        x += size * between(rng, 0.2, 0.6)


def _window_colour(rng: Generator, canvas: _Canvas) -> Colour:
    if canvas.light.evening and chance(rng, 0.4):
        return vary(rng, (250, 206, 128), 16)
    return mix(vary(rng, (66, 80, 94), 14), canvas.light.sky_low, between(rng, 0.0, 0.35))


def _building(
    rng: Generator, canvas: _Canvas, left: float, right: float, base: float, metre: float
) -> None:
    """A house front between `left` and `right`, standing on `base`; `metre` in pixels."""
    wall = vary(rng, pick(rng, FACADES), 12)
    floors = int(rng.integers(2, 6))
    storey = 3.1 * metre
    roof = base - floors * storey - 0.5 * metre
    canvas.rectangle(left, roof, right, base, wall)
    side = 0.06 * (right - left)
    canvas.rectangle(
        right - side if canvas.light.sun < 0 else left,
        roof,
        right if canvas.light.sun < 0 else left + side,
        base,
        darker(wall, 0.16),
    )
    canvas.rectangle(
        left - 0.15 * metre,
        roof - 0.3 * metre,
        right + 0.15 * metre,
        roof + 0.12 * metre,
        lighter(wall, 0.25),
    )
    canvas.rectangle(left, roof + 0.12 * metre, right, roof + 0.3 * metre, darker(wall, 0.25))
    if chance(rng, 0.4):
        tiles = vary(rng, pick(rng, ((120, 62, 50), (78, 80, 88))), 10)
        canvas.polygon(
            [
                (left - 0.3 * metre, roof),
                (left + metre, roof - 1.8 * metre),
                (right - metre, roof - 1.8 * metre),
                (right + 0.3 * metre, roof),
            ],
            tiles,
        )
    pitch, wide, tall = (
        between(rng, 2.2, 3.2) * metre,
        between(rng, 0.9, 1.4) * metre,
        between(rng, 1.4, 1.9) * metre,
    )
    columns = max(1, int((right - left - 0.8 * metre) / pitch))
    margin = (right - left - columns * pitch) / 2
    frame = lighter(wall, 0.45)
    for floor in range(1, floors):
        for column in range(columns):
            x, y = (
                left + margin + column * pitch + (pitch - wide) / 2,
                base - floor * storey - 0.8 * metre,
            )
            if y > -tall and x < canvas.view.width and x + wide > 0:
                edge = 0.1 * metre
                canvas.rectangle(x - edge, y - tall - edge, x + wide + edge, y + edge, frame)
                canvas.rectangle(x, y - tall, x + wide, y, _window_colour(rng, canvas))
                canvas.rectangle(x + wide * 0.46, y - tall, x + wide * 0.54, y, frame)
                canvas.rectangle(
                    x - 2 * edge, y + edge, x + wide + 2 * edge, y + 2 * edge, darker(wall, 0.3)
                )
    canvas.rectangle(left, base - 0.4 * metre, right, base, darker(wall, 0.3))
    door = left + margin + int(rng.integers(columns)) * pitch + 0.3 * metre
    canvas.rectangle(
        door, base - 2.2 * metre, door + 1.1 * metre, base, vary(rng, (88, 58, 44), 20)
    )
    for column in range(columns):
        x = left + margin + column * pitch + 0.15 * pitch
        if abs(x - door) > 0.3 * pitch:
            canvas.rectangle(
                x,
                base - 2.4 * metre,
                x + 0.75 * pitch,
                base - 0.7 * metre,
                _window_colour(rng, canvas),
            )
    if chance(rng, 0.5):
        awning = vary(
            rng, pick(rng, ((160, 50, 46), (50, 92, 74), (60, 80, 120), (190, 150, 70))), 14
        )
        canvas.rectangle(
            left + 0.4 * metre, base - 3.0 * metre, right - 0.4 * metre, base - 2.45 * metre, awning
        )


def _street(rng: Generator, canvas: _Canvas) -> None:
    """House fronts along a road that runs from side to side."""
    view = canvas.view
    metre = 0.062 * view.height
    base = view.ground_at(metre)
    _tree_line(rng, canvas, view.horizon + 2, 0.16 * view.height, 0.5)
    x = between(rng, -6, 0) * metre
    while x < view.width:
        wide = between(rng, 7, 14) * metre
        if chance(rng, 0.86):
            _building(rng, canvas, x, x + wide, base, metre)
        else:
            canvas.rectangle(x, base - 1.2 * metre, x + wide, base, vary(rng, (132, 118, 104)))
        x += wide
    for _ in range(int(rng.integers(0, 4))):
        size = between(rng, 5, 8) * metre
        _tree(
            rng,
            canvas,
            between(rng, 0, 1) * view.width,
            base + 0.6 * metre,
            size,
            vary(rng, (86, 116, 58), 16),
            0.05,
        )
    if chance(rng, 0.5):
        lamp = between(rng, 0.1, 0.9) * view.width
        canvas.rectangle(lamp, base - 6 * metre, lamp + 0.16 * metre, base + metre, (64, 68, 70))
        canvas.blob(
            lamp + 0.08 * metre,
            base - 6 * metre,
            0.35 * metre,
            0.3 * metre,
            (252, 236, 190) if canvas.light.evening else (206, 208, 204),
        )


def _avenue(rng: Generator, canvas: _Canvas) -> None:
    """House fronts on both sides of a road that leads away from the viewer."""
    view = canvas.view
    focal = 1.2 * view.height
    _tree_line(rng, canvas, view.horizon + 2, 0.1 * view.height, 0.5)

    def project(x: float, y: float, z: float) -> Point:
        scale = focal / z
        return view.centre + x * scale, view.horizon + (view.camera - y) * scale

    for side in (-1, 1):
        edge, z = side * between(rng, 7.0, 9.5), 90.0
        while z > 4.0:
            near = max(z - between(rng, 7, 13), 2.2)
            wall, tall = vary(rng, pick(rng, FACADES), 12), between(rng, 7, 15)
            wall = darker(wall, 0.22) if side == canvas.light.sun else wall
            haze = min(0.5, z / 160)
            canvas.polygon(
                [
                    project(edge, 0, near),
                    project(edge, tall, near),
                    project(edge, tall, z),
                    project(edge, 0, z),
                ],
                canvas.far(wall, haze),
            )
            canvas.polygon(
                [
                    project(edge, tall - 0.5, near),
                    project(edge, tall, near),
                    project(edge, tall, z),
                    project(edge, tall - 0.5, z),
                ],
                canvas.far(lighter(wall, 0.2), haze),
            )
            bays = max(1, int((z - near) / 3))
            for bay in range(bays):
                front = near + (z - near) * (bay + 0.25) / bays
                back = near + (z - near) * (bay + 0.75) / bays
                for floor in range(int(tall / 3.2)):
                    bottom = 0.8 + floor * 3.2
                    corners = [
                        project(edge, bottom, front),
                        project(edge, bottom + 1.7, front),
                        project(edge, bottom + 1.7, back),
                        project(edge, bottom, back),
                    ]
                    canvas.polygon(corners, canvas.far(_window_colour(rng, canvas), haze))
            z = near if near > 2.2 else 0.0
        for z in (40.0, 26.0, 17.0, 11.0):
            if chance(rng, 0.5):
                x, y = project(side * 5.4, 0, z)
                _tree(
                    rng,
                    canvas,
                    x,
                    y,
                    5.5 * focal / z,
                    vary(rng, (86, 116, 58), 16),
                    min(0.4, z / 120),
                )


def _park(rng: Generator, canvas: _Canvas) -> None:
    view = canvas.view
    _hills(
        rng,
        canvas,
        canvas.far(vary(rng, (96, 122, 112), 10), 0.45),
        between(rng, 0.05, 0.12),
        view.horizon,
    )
    _hills(
        rng,
        canvas,
        canvas.far(vary(rng, (92, 120, 74), 10), 0.2),
        between(rng, 0.02, 0.05),
        view.horizon,
    )
    _tree_line(rng, canvas, view.horizon + 3, between(rng, 0.06, 0.14) * view.height, 0.25)
    if chance(rng, 0.5):
        metre = 0.085 * view.height
        base, wood = (
            view.ground_at(metre),
            vary(rng, pick(rng, ((150, 126, 96), (214, 210, 202))), 8),
        )
        for rail in (0.45, 0.9):
            canvas.rectangle(0, base - (rail + 0.12) * metre, view.width, base - rail * metre, wood)
        for post in range(int(view.width / (1.8 * metre)) + 2):
            x = post * 1.8 * metre
            canvas.rectangle(x, base - 1.15 * metre, x + 0.14 * metre, base, darker(wood, 0.15))
    for scale in sorted(between(rng, 0.03, 0.1) for _ in range(int(rng.integers(1, 5)))):
        metre = scale * view.height
        size, x = between(rng, 5, 8) * metre, between(rng, -0.05, 1.05) * view.width
        shadow = mix(GRASS, (30, 44, 30), 0.5)
        canvas.blob(
            x - canvas.light.sun * size * 0.1,
            view.ground_at(metre),
            size * 0.3,
            size * 0.03,
            shadow,
        )
        _tree(
            rng,
            canvas,
            x,
            view.ground_at(metre),
            size,
            vary(rng, (88, 120, 54), 18),
            max(0.0, 0.3 - scale * 3),
        )


def _airfield(rng: Generator, canvas: _Canvas) -> None:
    view = canvas.view
    if chance(rng, 0.6):
        _hills(
            rng,
            canvas,
            canvas.far(vary(rng, (100, 116, 130), 10), 0.45),
            between(rng, 0.05, 0.13),
            view.horizon,
        )
    _tree_line(rng, canvas, view.horizon + 2, between(rng, 0.03, 0.06) * view.height, 0.3)
    x = between(rng, -0.1, 0.5) * view.width
    for _ in range(int(rng.integers(0, 3))):
        wide, tall = between(rng, 0.15, 0.3) * view.width, between(rng, 0.05, 0.1) * view.height
        wall, base = canvas.far(vary(rng, pick(rng, FACADES)), 0.2), view.horizon + 3
        roof = [
            (x + wide * share, base - tall * (1 + 0.35 * math.sin(math.pi * share)))
            for share in (0, 0.2, 0.4, 0.6, 0.8, 1)
        ]
        canvas.polygon([*roof, (x + wide, base), (x, base)], wall)
        canvas.rectangle(
            x + wide * 0.15, base - tall * 0.75, x + wide * 0.85, base, darker(wall, 0.25)
        )
        x += wide * between(rng, 1.0, 1.4)
    if chance(rng, 0.5):
        unit = 0.012 * view.height
        canvas.rectangle(
            x,
            view.horizon - 14 * unit,
            x + 3 * unit,
            view.horizon + 2,
            canvas.far((190, 188, 184), 0.2),
        )
        canvas.polygon(
            [
                (x - 2 * unit, view.horizon - 18 * unit),
                (x + 5 * unit, view.horizon - 18 * unit),
                (x + 4 * unit, view.horizon - 13 * unit),
                (x - unit, view.horizon - 13 * unit),
            ],
            canvas.far((70, 92, 108), 0.2),
        )


def _lake(rng: Generator, canvas: _Canvas) -> None:
    view = canvas.view
    _hills(
        rng,
        canvas,
        canvas.far(vary(rng, (90, 112, 118), 10), 0.4),
        between(rng, 0.08, 0.16),
        view.horizon,
    )
    _hills(
        rng,
        canvas,
        canvas.far(vary(rng, (74, 100, 66), 10), 0.15),
        between(rng, 0.02, 0.05),
        view.horizon,
    )
    _tree_line(rng, canvas, view.horizon + 2, 0.05 * view.height, 0.2)


def _tufts(rng: Generator, canvas: _Canvas, far_scale: float) -> None:
    """Blades of grass and a few flowers on the nearest ground."""
    view = canvas.view
    top = view.ground_at(far_scale)
    for share, x, kind in rng.random((int(90 * view.width / view.height), 3)).tolist():
        y = top + (view.height - top) * share**0.7
        size = 0.1 * view.scale_at(y)
        x *= view.width
        if kind < 0.08:
            canvas.blob(
                x,
                y,
                size * 0.22,
                size * 0.2,
                pick(rng, ((238, 226, 120), (240, 240, 236), (206, 120, 150))),
            )
        else:
            tone = lighter(GRASS, 0.25 * kind) if kind > 0.5 else darker(GRASS, 0.4 * (1 - kind))
            canvas.polygon(
                [(x - size * 0.2, y), (x + size * 0.2, y), (x + size * (kind - 0.5), y - size)],
                tone,
            )


def paint_scenery(rng: Generator, setting: str, view: View, light: Light) -> Image.Image:
    """The background, RGB, DETAIL times the view's width and height.

    `setting` is street, avenue, park, airfield, lake or sky.
    """
    grassy = setting in ("park", "airfield", "sky")
    colour = vary(rng, GRASS, 12) if grassy else vary(rng, ASPHALT, 8)
    metre = view.height / 100
    if setting == "lake":
        colour = mix(WATER, light.sky_top, 0.3)
    ground = _Ground(rng, view, light, colour, 16.0 if grassy else 8.0)
    if setting == "street":
        ground.across(vary(rng, PAVING, 8), 10.5 * metre, 0)
        ground.across(lighter(PAVING, 0.25), 10.9 * metre, 10.5 * metre)
        dashes = (ground.x % 3.6 < 2.0).astype(np.float64)
        ground.across(WHITE_PAINT, 21.0 * metre, 20.0 * metre, dashes * 0.8)
        if chance(rng, 0.6):
            ground.across(lighter(PAVING, 0.25), 45.0 * metre, 43.0 * metre)
            ground.across(vary(rng, PAVING, 8), 999.0 * metre, 45.0 * metre)
    elif setting == "avenue":
        pavement = vary(rng, PAVING, 8)
        for side in (-1, 1):
            ground.stripe(pavement, side * 14.0, 19.0)
            ground.stripe(lighter(PAVING, 0.25), side * 4.5, 0.25)
        ground.stripe(WHITE_PAINT, 0.0, 0.16, 0.8)
    elif setting == "park" and chance(rng, 0.75):
        bend, phase = between(rng, -3, 3), between(rng, 0, 6.28)
        curve = between(rng, -2, 2) + bend * np.sin(ground.z * 0.2 + phase)
        ground.stripe(darker(SOIL, 0.2), curve, 2.5, 0.5)
        ground.stripe(vary(rng, pick(rng, (SOIL, PAVING)), 8), curve, 2.2)
    elif setting == "airfield":
        ground.across(vary(rng, ASPHALT, 10), 40.0 * metre, 3.2 * metre)
        for near, far in ((3.8, 3.5), (38.0, 36.5)):
            ground.across(WHITE_PAINT, near * metre, far * metre, 0.85)
        ground.across(
            WHITE_PAINT, 13.5 * metre, 12.5 * metre, (ground.x % 7 < 4).astype(np.float64) * 0.8
        )
    elif setting == "lake":
        ripples = noise(rng, view.width, max(1, view.height - ground.top), 24, 70)
        ground.pixels += (ripples * np.clip(ground.scale / (0.1 * view.height), 0.2, 1.0) * 16.0)[
            ..., None
        ]
        ground.across(vary(rng, (196, 180, 140), 8), 24.0 * metre, 21.0 * metre)
        ground.across(vary(rng, GRASS, 12), 999.0 * metre, 23.5 * metre)
    sky = _sky(rng, view, light, max(ground.top, 2))[: ground.top]
    pixels = np.concatenate([sky, ground.finished()]) if ground.top < view.height else sky
    soft = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image = soft.resize((view.width * DETAIL, view.height * DETAIL), Image.Resampling.NEAREST)
    canvas = _Canvas(ImageDraw.Draw(image), view, light)
    scenes = {
        "street": _street,
        "avenue": _avenue,
        "park": _park,
        "airfield": _airfield,
        "lake": _lake,
    }
    if setting in scenes:
        scenes[setting](rng, canvas)
    elif view.horizon < view.height:
        _hills(rng, canvas, canvas.far((98, 122, 96), 0.3), 0.03, view.horizon)
    if grassy:
        _tufts(rng, canvas, 0.42 * view.height if setting == "airfield" else 0.12 * view.height)
    return image
