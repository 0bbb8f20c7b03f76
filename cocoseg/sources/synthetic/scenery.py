"""Backgrounds of the sample: sky, ground, buildings and trees in three kinds of light.

Soft areas (sky, ground) are painted at the size of the image, everything with edges at DETAIL times
that size. The caller reduces the result to the size of the image after it has drawn the objects.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cocoseg.sources.synthetic.objects import (
    Color,
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

GRASS: Color = (104, 138, 66)
ASPHALT: Color = (104, 105, 110)
PAVING: Color = (176, 170, 160)
SOIL: Color = (168, 142, 104)
WATER: Color = (92, 126, 148)
SAND: Color = (206, 190, 148)
ROAD_PAINT: Color = (226, 224, 214)
FACADES: tuple[Color, ...] = (
    *((170, 98, 76), (194, 156, 118), (220, 208, 184), (156, 148, 142)),
    *((202, 180, 146), (132, 114, 108), (176, 184, 188), (212, 166, 134)),
)
LEAVES: Color = (88, 122, 58)


@dataclass(frozen=True)
class Light:
    """Weather and time of day.

    Attributes:
        sky_top: the color of the sky at the top of the image.
        sky_low: the color of the sky at the horizon.
        cloud: the color of the clouds.
        cover: the fraction of the sky that clouds cover.
        glow: the color of the sky around the sun.
        tint: factors for red, green and blue.
        shadow: the darkness of cast shadows, 0 to 1.
        shadow_depth: how far shadows fall towards the viewer, in heights of the object.
        sun: -1 for light from the left, 1 for light from the right.
        evening: whether windows and lamps are lit.
    """

    sky_top: Color
    sky_low: Color
    cloud: Color
    cover: float
    glow: Color
    tint: tuple[float, float, float]
    shadow: float
    shadow_depth: float
    sun: int
    evening: bool


@dataclass(frozen=True)
class View:
    """A camera above flat ground: pixels per meter grow linearly below the horizon.

    Attributes:
        width: of the image, in pixels.
        height: of the image, in pixels.
        horizon: pixels from the top.
        camera: meters above the ground.
        center: pixels from the left to the vanishing point.
    """

    width: int
    height: int
    horizon: float
    camera: float
    center: float

    @property
    def focal(self) -> float:
        """Pixels per meter at a distance of one meter."""
        return 1.2 * self.height

    def ground_at(self, scale: float) -> float:
        """Return the y in pixels at which the ground has `scale` pixels per meter."""
        return self.horizon + self.camera * scale

    def project(self, x: float, y: float, z: float) -> Point:
        """Project a point to pixels: x meters to the right, y above the ground and z away."""
        scale = self.focal / z
        return self.center + x * scale, self.horizon + (self.camera - y) * scale


def make_light(rng: Generator) -> Light:
    """Choose a sunny day, an overcast day or dusk."""
    weather = pick(rng, ("day", "day", "day", "overcast", "dusk"))
    sun, depth = pick(rng, (-1, 1)), pick(rng, (0.28, 0.2, -0.16))
    if weather == "overcast":
        top, low = vary(rng, (168, 178, 190), amount=8), vary(rng, (214, 218, 222), amount=6)
        tint = (0.98, 1.0, 1.03)
        return Light(top, low, (232, 234, 236), 0.72, low, tint, 0.0, depth, sun, False)
    if weather == "dusk":
        low = pick(rng, ((252, 190, 128), (246, 168, 132), (248, 206, 160)))
        top, tint = vary(rng, (88, 104, 156), amount=10), (1.06, 0.95, 0.88)
        return Light(top, low, (240, 176, 148), 0.4, (255, 226, 170), tint, 0.3, depth, sun, True)
    top = vary(rng, (78, 136, 204), (104, 158, 214), (66, 122, 192), amount=8)
    low, cover = vary(rng, (206, 226, 240), amount=8), between(rng, 0.1, 0.6)
    shadow, tint = between(rng, 0.36, 0.5), (1.06, 1.03, 0.98)
    return Light(top, low, (252, 252, 252), cover, (255, 250, 236), tint, shadow, depth, sun, False)


def noise(rng: Generator, width: int, height: int, columns: int, rows: int) -> Pixels:
    """Draw smooth noise from a grid of `rows` x `columns` random values.

    Returns:
        float64 (height, width), about -1 to 1.
    """
    grid = rng.integers(0, 256, (max(rows, 2), max(columns, 2)), dtype=np.uint8)
    resized = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float64) / 127.5 - 1.0


def _blend(pixels: Pixels, color: Color, fraction: Pixels) -> None:
    """Paint over `pixels` (rows, columns, 3); `fraction` (rows, columns) is the opacity."""
    for channel in range(3):
        plane = pixels[..., channel]
        plane += (color[channel] - plane) * fraction


def _sky(rng: Generator, view: View, light: Light, rows: int) -> Pixels:
    """The sky above the horizon, shape (rows, width, 3)."""
    down = (np.arange(rows) + 0.5)[:, None] / max(view.horizon, 1.0)
    across = (np.arange(view.width) + 0.5)[None, :] / view.width
    pixels = np.empty((rows, view.width, 3))
    pixels[:] = light.sky_top
    _blend(pixels, light.sky_low, np.broadcast_to(down**0.8, pixels.shape[:2]))
    distance = (across - 0.5 - 0.38 * light.sun) ** 2 + (
        down - (0.95 if light.evening else 0.1)
    ) ** 2
    _blend(pixels, light.glow, 0.6 * np.exp(-distance * 7.0))
    billows = np.zeros((rows, view.width))
    for octave in range(4):
        cells = 3 * 2**octave
        layer = noise(rng, view.width, rows, cells, cells * 2 * rows // view.height)
        billows += layer / (1.0, 2.0, 4.5, 10.0)[octave]
    cover = np.clip((billows + 2.2 * light.cover - 1.1) * 1.5, 0.0, 1.0)
    step = max(1, view.height // 40)
    above = np.concatenate([np.repeat(billows[:1], step, axis=0), billows])[:rows]
    _blend(pixels, light.cloud, cover * 0.85)
    pixels += (np.clip(billows - above, -0.5, 0.5) * cover * 34.0)[..., None]
    return pixels


class _Ground:
    """The pixels of the ground, and the position of each: `x` meters across, `z` meters away."""

    def __init__(self, rng: Generator, view: View, color: Color, roughness: float) -> None:
        self.top = min(view.height, max(0, math.ceil(view.horizon)))
        below = np.arange(self.top, view.height) + 0.5 - view.horizon
        self.scale = np.maximum(below, 0.25)[:, None] / view.camera  # pixels per meter
        self._camera = view.camera
        self.z = view.focal / self.scale
        self.x = (np.arange(view.width)[None, :] + 0.5 - view.center) / self.scale
        grain = rng.integers(0, 256, (256, 256), dtype=np.uint8) / 127.5 - 1.0
        patches = noise(rng, 256, 256, 28, 28)
        near = np.clip(self.scale / (0.25 * view.height), 0.0, 1.0)
        middle = np.clip(self.scale / (0.06 * view.height), 0.0, 1.0)
        self.far = (1.0 - near) ** 4  # 1 at the horizon, 0 near the viewer
        self.texture = self._looked_up(grain, 22.0) * near * 0.7
        self.texture += self._looked_up(patches, 5.0) * middle
        self.pixels = np.empty((*self.x.shape, 3))
        self.pixels[:] = color
        self.pixels += (self.texture * roughness)[..., None]

    def _looked_up(self, tile: Pixels, texels: float) -> Pixels:
        """A 256 x 256 texture on the ground, with `texels` of its pixels per meter.

        Every second tile is mirrored to avoid visible seams.
        """
        columns = 255 - np.abs(255 - (self.x * texels).astype(np.int64) % 510)
        rows = 255 - np.abs(255 - (self.z * texels).astype(np.int64) % 510)
        rows = np.broadcast_to(rows, columns.shape)
        texture: Pixels = tile[rows, columns]
        return texture

    def along(self, color: Color, x: Pixels | float, width: float, fraction: float = 1.0) -> None:
        """Paint a strip that runs away from the viewer, `width` meters wide around `x`."""
        self._paint(
            color, fraction * np.clip((width / 2 - np.abs(self.x - x)) * self.scale + 0.5, 0, 1)
        )

    def across(self, color: Color, near: float, far: float, fraction: Pixels | float = 1.0) -> None:
        """Paint a strip from left to right, between the scales `far` and `near`."""
        row = 1.0 / self._camera
        inside = np.clip((self.scale - far) / row, 0, 1) * np.clip((near - self.scale) / row, 0, 1)
        self._paint(color, np.broadcast_to(inside * fraction, self.x.shape))

    def _paint(self, color: Color, fraction: Pixels) -> None:
        for channel in range(3):
            plane = self.pixels[..., channel]
            plane += (color[channel] + self.texture * 7.0 - plane) * fraction


def _paint_ground(rng: Generator, ground: _Ground, setting: str, height: int) -> None:
    """Paint roads, paths, runways and shores; strips across are placed by their scale."""
    meter = height / 100
    sidewalk, curb = vary(rng, PAVING, amount=8), lighter(PAVING, 0.25)
    if setting == "street":
        ground.across(sidewalk, 10.5 * meter, 0)
        ground.across(curb, 10.9 * meter, 10.5 * meter)
        dashes = (ground.x % 3.6 < 2.0).astype(np.float64)
        ground.across(ROAD_PAINT, 21 * meter, 20 * meter, dashes * 0.8)
        if chance(rng, 0.6):
            ground.across(curb, 45 * meter, 43 * meter)
            ground.across(sidewalk, math.inf, 45 * meter)
    elif setting == "avenue":
        for side in (-1, 1):
            ground.along(sidewalk, side * 14.0, 19.0)
            ground.along(curb, side * 4.5, 0.25)
        ground.along(ROAD_PAINT, 0.0, 0.16, 0.8)
    elif setting == "park" and chance(rng, 0.75):
        bend, phase = between(rng, -3, 3), between(rng, 0, 6.28)
        curve = between(rng, -2, 2) + bend * np.sin(ground.z * 0.2 + phase)
        ground.along(darker(SOIL, 0.2), curve, 2.5, 0.5)
        ground.along(vary(rng, SOIL, PAVING, amount=8), curve, 2.2)
    elif setting == "airfield":
        ground.across(vary(rng, ASPHALT, amount=10), 40 * meter, 3.2 * meter)
        ground.across(ROAD_PAINT, 3.8 * meter, 3.5 * meter, 0.85)
        ground.across(ROAD_PAINT, 38 * meter, 36.5 * meter, 0.85)
        dashes = (ground.x % 7.0 < 4.0).astype(np.float64)
        ground.across(ROAD_PAINT, 13.5 * meter, 12.5 * meter, dashes * 0.8)
    elif setting == "lake":
        ripples = noise(rng, ground.x.shape[1], ground.x.shape[0], 24, 70)
        ground.pixels += (ripples * np.clip(ground.scale / (10 * meter), 0.2, 1.0) * 16.0)[
            ..., None
        ]
        ground.across(SAND, 18 * meter, 15.5 * meter)
        ground.across(vary(rng, GRASS, amount=12), math.inf, 17.5 * meter)


@dataclass(frozen=True)
class _Canvas:
    """Draws shapes with edges; coordinates are in pixels of the final image."""

    draw: ImageDraw.ImageDraw
    view: View
    light: Light

    def polygon(self, corners: list[Point], color: Color) -> None:
        self.draw.polygon([(x * DETAIL, y * DETAIL) for x, y in corners], fill=color)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        corners = [left * DETAIL, top * DETAIL, right * DETAIL - 1, bottom * DETAIL - 1]
        if corners[2] >= corners[0] and corners[3] >= corners[1]:
            self.draw.rectangle(corners, fill=color)

    def blob(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        corners = [(x - rx) * DETAIL, (y - ry) * DETAIL, (x + rx) * DETAIL, (y + ry) * DETAIL]
        self.draw.ellipse(corners, fill=color)

    def hazy(self, color: Color, fraction: float) -> Color:
        return mix(color, self.light.sky_low, fraction)


def _hills(rng: Generator, canvas: _Canvas, color: Color, rise: float) -> None:
    """A mountain range on the horizon; `rise` is its height as a fraction of the image."""
    view, crest = canvas.view, []
    waves = [
        (between(rng, 3, 20), between(rng, 0, 6.28), between(rng, 0.1, 0.35)) for _ in range(4)
    ]
    for step in range(41):
        lift = sum(size * math.sin(often * step / 40 + phase) for often, phase, size in waves)
        crest.append((view.width * step / 40, view.horizon - view.height * rise * (1.0 + lift)))
    canvas.polygon([*crest, (view.width, view.horizon + 2), (0, view.horizon + 2)], color)


def _tree(rng: Generator, canvas: _Canvas, x: float, base: float, size: float, haze: float) -> None:
    """A tree `size` pixels high with its foot at (x, base)."""
    leaf, conifer, half = vary(rng, LEAVES, amount=18), chance(rng, 0.2), size * 0.032
    top = base - size * 0.62
    trunk = [(x - half, base), (x + half, base), (x + half * 0.6, top), (x - half * 0.6, top)]
    canvas.polygon(trunk, canvas.hazy((96, 76, 58), haze))
    for index in range(44):
        fraction = index / 43
        angle, away = between(rng, 0, 6.28), math.sqrt(between(rng, 0, 1))
        spot, y = (
            x + math.cos(angle) * away * size * 0.28,
            top - math.sin(angle) * away * size * 0.28,
        )
        radius = size * between(rng, 0.05, 0.1)
        if conifer:
            y = base - size * (0.2 + 0.8 * fraction)
            spot = x + math.cos(angle) * away * size * 0.2 * (1.02 - fraction)
            radius = size * 0.1 * (1.2 - fraction)
        # Leaves are lighter on the side of the sun and the sky, and in front, where later ones are.
        lit = (spot - x) / size * canvas.light.sun + (top - y) / size
        lit = lit * 1.1 + between(rng, -0.08, 0.08) + (fraction - 0.75) * 0.5
        tone = lighter(leaf, min(lit, 0.35)) if lit > 0 else darker(leaf, min(-lit, 0.5))
        canvas.blob(spot, y, radius, radius * 0.85, canvas.hazy(tone, haze))


def _tree_line(rng: Generator, canvas: _Canvas, size: float, haze: float) -> None:
    """Woods on the horizon; `size` is their height as a fraction of the image."""
    base, size = canvas.view.horizon + 2, size * canvas.view.height
    leaf, x = vary(rng, (70, 98, 56), amount=12), -size * between(rng, 0, 1)
    while x < canvas.view.width + size:
        tone, tall = canvas.hazy(vary(rng, leaf, amount=10), haze), size * between(rng, 0.5, 1.1)
        canvas.blob(x, base - tall * 0.45, tall * 0.4, tall * 0.55, darker(tone, 0.12))
        lit = x + canvas.light.sun * tall * 0.1
        canvas.blob(lit, base - tall * 0.6, tall * 0.26, tall * 0.34, tone)
        x += size * between(rng, 0.2, 0.6)


def _window_color(rng: Generator, canvas: _Canvas) -> Color:
    if canvas.light.evening and chance(rng, 0.4):
        return vary(rng, (250, 206, 128), amount=16)
    return canvas.hazy(vary(rng, (66, 80, 94)), between(rng, 0.0, 0.35))


def _building(rng: Generator, canvas: _Canvas, left: float, wide: float, meter: float) -> None:
    """A facade `wide` pixels wide behind the sidewalk; `meter` is one meter in pixels."""
    right, base = left + wide, canvas.view.ground_at(meter)
    wall, floors, story = vary(rng, *FACADES, amount=12), int(rng.integers(2, 6)), 3.1 * meter
    roof, bright, dim = base - floors * story - 0.5 * meter, lighter(wall, 0.4), darker(wall, 0.28)
    canvas.box(left, roof, right, base, wall)
    shaded = right - 0.06 * wide if canvas.light.sun < 0 else left
    canvas.box(shaded, roof, shaded + 0.06 * wide, base, darker(wall, 0.16))
    canvas.box(left - 0.15 * meter, roof - 0.3 * meter, right + 0.15 * meter, roof, bright)
    canvas.box(left, roof, right, roof + 0.2 * meter, dim)
    if chance(rng, 0.4):
        ridge, eaves = roof - 1.8 * meter, 0.3 * meter
        slope = [
            (left - eaves, roof),
            (left + meter, ridge),
            (right - meter, ridge),
            (right + eaves, roof),
        ]
        canvas.polygon(slope, vary(rng, (128, 70, 56), (86, 88, 96), amount=10))
    pitch, pane = between(rng, 2.2, 3.2) * meter, between(rng, 0.9, 1.4) * meter
    tall, edge = between(rng, 1.4, 1.9) * meter, 0.1 * meter
    columns = max(1, int((wide - 0.8 * meter) / pitch))
    margin = left + (wide - columns * pitch) / 2
    for floor in range(1, floors):
        for column in range(columns):
            x, y = margin + column * pitch + (pitch - pane) / 2, base - floor * story - 0.8 * meter
            canvas.box(x - edge, y - tall - edge, x + pane + edge, y + edge, bright)
            canvas.box(x, y - tall, x + pane, y, _window_color(rng, canvas))
            canvas.box(x + pane * 0.46, y - tall, x + pane * 0.54, y, bright)
            canvas.box(x - 2 * edge, y + edge, x + pane + 2 * edge, y + 2 * edge, dim)
    canvas.box(left, base - 0.4 * meter, right, base, dim)
    door = int(rng.integers(columns))
    for column in range(columns):
        x = margin + (column + 0.12) * pitch
        if column == door:
            canvas.box(
                x, base - 2.2 * meter, x + 1.1 * meter, base, vary(rng, (96, 64, 50), amount=20)
            )
        else:
            shop = _window_color(rng, canvas)
            canvas.box(x, base - 2.4 * meter, x + 0.76 * pitch, base - 0.7 * meter, shop)
    if chance(rng, 0.5):
        cloth = vary(rng, (160, 50, 46), (50, 92, 74), (60, 80, 120), (190, 150, 70))
        canvas.box(
            left + 0.4 * meter, base - 3 * meter, right - 0.4 * meter, base - 2.45 * meter, cloth
        )


def _street(rng: Generator, canvas: _Canvas) -> None:
    """Facades along a road that runs from left to right."""
    view, meter = canvas.view, 0.062 * canvas.view.height
    base = view.ground_at(meter)
    _tree_line(rng, canvas, 0.16, 0.5)
    x = -6 * meter * between(rng, 0, 1)
    while x < view.width:
        wide = between(rng, 7, 14) * meter
        if chance(rng, 0.86):
            _building(rng, canvas, x, wide, meter)
        else:
            canvas.box(x, base - 1.2 * meter, x + wide, base, vary(rng, (140, 126, 112)))
        x += wide
    for _ in range(int(rng.integers(0, 4))):
        spot = between(rng, 0, 1) * view.width
        _tree(rng, canvas, spot, base + 0.6 * meter, between(rng, 5, 8) * meter, 0.05)
    if chance(rng, 0.5):
        lamp, top = between(rng, 0.1, 0.9) * view.width, base - 6 * meter
        canvas.box(lamp, top, lamp + 0.16 * meter, base + meter, (64, 68, 70))
        bulb = (252, 236, 190) if canvas.light.evening else (206, 208, 204)
        canvas.blob(lamp + 0.08 * meter, top, 0.35 * meter, 0.3 * meter, bulb)


def _avenue(rng: Generator, canvas: _Canvas) -> None:
    """Facades on both sides of a road that runs away from the viewer."""
    _tree_line(rng, canvas, 0.1, 0.5)
    for side in (-1, 1):
        _row_of_houses(rng, canvas, side * between(rng, 7.0, 9.5))
        for z in (40.0, 26.0, 17.0, 11.0):
            if chance(rng, 0.5):
                x, y = canvas.view.project(side * 5.4, 0, z)
                _tree(rng, canvas, x, y, 5.5 * canvas.view.focal / z, min(0.4, z / 120))


def _row_of_houses(rng: Generator, canvas: _Canvas, x: float) -> None:
    """A row of facades away from the viewer, `x` meters to the right of the vanishing point."""

    def front(low: float, high: float, near: float, far: float, color: Color) -> None:
        corners = [(low, near), (high, near), (high, far), (low, far)]
        haze = min(0.5, near / 140)
        canvas.polygon(
            [canvas.view.project(x, *corner) for corner in corners], canvas.hazy(color, haze)
        )

    far = 90.0
    while far > 2.2:
        near = max(far - between(rng, 7, 13), 2.2)
        wall, tall = vary(rng, *FACADES, amount=12), between(rng, 7, 15)
        wall = darker(wall, 0.22) if x * canvas.light.sun > 0 else wall
        front(0, tall, near, far, wall)
        front(tall - 0.5, tall, near, far, lighter(wall, 0.2))
        front(0, 0.5, near, far, darker(wall, 0.25))
        bays = max(1, int((far - near) / 3))
        step = (far - near) / bays
        for bay in range(bays):
            start, end = near + step * (bay + 0.25), near + step * (bay + 0.75)
            for floor in range(int(tall / 3.2)):
                low = 0.8 + floor * 3.2
                if far < 60:
                    front(low - 0.12, low + 1.82, start - 0.12, end + 0.12, lighter(wall, 0.3))
                front(low, low + 1.7, start, end, _window_color(rng, canvas))
        far = near


def _park(rng: Generator, canvas: _Canvas) -> None:
    """Hills, woods and single trees, and sometimes a fence."""
    view, light = canvas.view, canvas.light
    _hills(rng, canvas, canvas.hazy(vary(rng, (96, 122, 112)), 0.45), between(rng, 0.05, 0.12))
    _hills(rng, canvas, canvas.hazy(vary(rng, (98, 128, 80)), 0.2), between(rng, 0.02, 0.05))
    _tree_line(rng, canvas, between(rng, 0.06, 0.14), 0.25)
    if chance(rng, 0.5):
        meter, wood = 0.085 * view.height, vary(rng, (158, 134, 104), (218, 214, 206), amount=8)
        base = view.ground_at(meter)
        for rail in (0.45, 0.9):
            canvas.box(0, base - (rail + 0.12) * meter, view.width, base - rail * meter, wood)
        for post in range(int(view.width / (1.8 * meter)) + 1):
            x = post * 1.8 * meter
            canvas.box(x, base - 1.15 * meter, x + 0.14 * meter, base, darker(wood, 0.15))
    for fraction in sorted(between(rng, 0.03, 0.1) for _ in range(int(rng.integers(1, 5)))):
        meter = fraction * view.height
        size, x = between(rng, 5, 8) * meter, between(rng, -0.05, 1.05) * view.width
        shadow = mix(GRASS, (30, 44, 30), 0.25 + light.shadow / 2)
        fallen = x - light.sun * size * 0.1
        canvas.blob(fallen, view.ground_at(meter), size * 0.3, size * 0.03, shadow)
        _tree(rng, canvas, x, view.ground_at(meter), size, max(0.0, 0.3 - fraction * 3))


def _airfield(rng: Generator, canvas: _Canvas) -> None:
    """Hangars and a tower far behind the runway."""
    view = canvas.view
    if chance(rng, 0.6):
        _hills(rng, canvas, canvas.hazy(vary(rng, (100, 116, 130)), 0.45), between(rng, 0.05, 0.13))
    _tree_line(rng, canvas, between(rng, 0.03, 0.06), 0.3)
    x, base = between(rng, -0.1, 0.5) * view.width, view.horizon + 3
    for _ in range(int(rng.integers(0, 3))):
        wide, tall = between(rng, 0.15, 0.3) * view.width, between(rng, 0.05, 0.1) * view.height
        wall = canvas.hazy(vary(rng, *FACADES), 0.2)
        canvas.box(x, base - tall, x + wide, base, wall)
        canvas.blob(x + wide / 2, base - tall, wide / 2, tall * 0.4, wall)
        canvas.box(x + wide * 0.15, base - tall * 0.75, x + wide * 0.85, base, darker(wall, 0.25))
        x += wide * between(rng, 1.0, 1.4)
    if chance(rng, 0.5):
        unit, top = 0.012 * view.height, view.horizon - 18 * 0.012 * view.height
        canvas.box(x, top + 4 * unit, x + 3 * unit, base, canvas.hazy((196, 194, 190), 0.2))
        cab = [
            (x - 2 * unit, top),
            (x + 5 * unit, top),
            (x + 4 * unit, top + 5 * unit),
            (x - unit, top + 5 * unit),
        ]
        canvas.polygon(cab, canvas.hazy((70, 92, 108), 0.2))


def _lake(rng: Generator, canvas: _Canvas) -> None:
    _hills(rng, canvas, canvas.hazy(vary(rng, (90, 112, 118)), 0.4), between(rng, 0.08, 0.16))
    _hills(rng, canvas, canvas.hazy(vary(rng, (78, 106, 70)), 0.15), between(rng, 0.02, 0.05))
    _tree_line(rng, canvas, 0.05, 0.2)


def _sky_only(rng: Generator, canvas: _Canvas) -> None:
    if canvas.view.horizon < canvas.view.height:
        _hills(rng, canvas, canvas.hazy((98, 122, 96), 0.3), 0.03)


def _grass_blades(rng: Generator, canvas: _Canvas, far_scale: float) -> None:
    """Blades of grass and a few flowers where the scale is above `far_scale` pixels per meter."""
    view = canvas.view
    top = view.ground_at(far_scale)
    if top >= view.height:
        return
    for down, across, kind in rng.random((int(120 * view.width / view.height), 3)).tolist():
        x, y = across * view.width, top + (view.height - top) * math.sqrt(down)
        size = 0.09 * (y - view.horizon) / view.camera
        if kind < 0.06:
            petals = pick(rng, ((238, 226, 120), (240, 240, 236), (206, 120, 150)))
            canvas.blob(x, y, size * 0.22, size * 0.2, petals)
        else:
            tone = lighter(GRASS, 0.22 * kind) if kind > 0.5 else darker(GRASS, 0.3 * (1 - kind))
            tip = (x + size * (kind - 0.5) * 1.5, y - size)
            canvas.polygon([(x - size * 0.1, y), (x + size * 0.1, y), tip], tone)


_SETTINGS = {
    "street": _street,
    "avenue": _avenue,
    "park": _park,
    "airfield": _airfield,
    "lake": _lake,
    "sky": _sky_only,
}


def paint_scenery(rng: Generator, setting: str, view: View, light: Light) -> Image.Image:
    """Paint the background of a scene.

    Args:
        rng: the random generator of the scenery.
        setting: street, avenue, park, airfield, lake or sky.
        view: the camera.
        light: weather and time of day.

    Returns:
        An RGB image, DETAIL times as wide and high as the view.
    """
    grassy = setting in ("park", "airfield", "sky")
    color = vary(rng, GRASS if grassy else ASPHALT, amount=10)
    if setting == "lake":
        color = mix(WATER, light.sky_top, 0.3)
    ground = _Ground(rng, view, color, 15.0 if grassy else 8.0)
    if ground.scale.size:
        _paint_ground(rng, ground, setting, view.height)
    _blend(ground.pixels, light.sky_low, np.broadcast_to(0.3 * ground.far, ground.x.shape))
    sky = _sky(rng, view, light, max(ground.top, 1))[: ground.top]
    pixels = np.clip(np.concatenate([sky, ground.pixels]), 0, 255).astype(np.uint8)
    size = (view.width * DETAIL, view.height * DETAIL)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
    canvas = _Canvas(ImageDraw.Draw(image), view, light)
    _SETTINGS[setting](rng, canvas)
    if grassy or setting == "lake":
        nearest = {"airfield": 0.42, "lake": 0.2}.get(setting, 0.12)
        _grass_blades(rng, canvas, nearest * view.height)
    return image
