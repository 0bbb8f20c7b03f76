"""Shapes of the sample's objects: colored polygons in meters, x to the right and y up.

Every object faces right, rests on y = 0 around x = 0, and is a list of parts, which are painted in
order. Each part states whether it belongs to the silhouette of the object, so that the annotated
polygons always agree with the image.

Shapes that never change are written in a compact notation, one part per line (see `sketch`).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from numpy.random import Generator

from cocoseg.core.labels import Color

Point = tuple[float, float]
Polygon = Sequence[Point]
ChoiceT = TypeVar("ChoiceT")


@dataclass(frozen=True, slots=True)
class Part:
    """One polygon of an object.

    Attributes:
        polygon: in meters, or in pixels after it is placed in a scene.
        color: none for an invisible part of the silhouette, such as the air between spokes.
        shading: the bright side, "side" (towards the sun) or "top", or "flat" for none.
        outlined: whether the part belongs to the silhouette; False if other parts enclose it.
    """

    polygon: Polygon
    color: Color | None
    shading: str = "flat"
    outlined: bool = True


def detail(polygon: Polygon, color: Color, shading: str = "flat") -> Part:
    """Create a part that other parts enclose."""
    return Part(polygon, color, shading, outlined=False)


# Clothes and vehicles share these colors, so that shapes, not colors, distinguish the classes.
PAINTS: tuple[Color, ...] = (
    *((176, 38, 36), (206, 92, 38), (219, 170, 58), (66, 116, 62), (38, 104, 116), (42, 76, 142)),
    *((98, 62, 122), (190, 98, 120), (224, 222, 214), (168, 172, 176), (92, 98, 106), (40, 42, 48)),
)
TROUSERS: tuple[Color, ...] = (
    *((46, 58, 88), (70, 88, 122), (38, 38, 44), (96, 92, 86), (140, 120, 92), (66, 58, 50)),
)
SKINS: tuple[Color, ...] = ((236, 190, 160), (214, 160, 124), (168, 114, 80), (110, 72, 52))
HAIRS: tuple[Color, ...] = (
    (34, 26, 24),
    (78, 50, 32),
    (130, 86, 46),
    (196, 160, 96),
    (128, 124, 120),
)
SHOES: tuple[Color, ...] = ((40, 38, 40), (90, 62, 44), (210, 208, 204))
WHITE: Color = (236, 236, 232)
TIRE: Color = (34, 34, 37)
STEEL: Color = (150, 154, 160)
GLASS: Color = (62, 80, 96)
RED_LAMP: Color = (198, 34, 30)
WHITE_LAMP: Color = (250, 244, 214)


def pick(rng: Generator, choices: Sequence[ChoiceT]) -> ChoiceT:
    return choices[int(rng.integers(len(choices)))]


def chance(rng: Generator, probability: float) -> bool:
    return float(rng.random()) < probability


def between(rng: Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def mix(first: Color, second: Color, fraction: float) -> Color:
    """Blend two colors; `fraction` (0 to 1) is the weight of `second`."""
    red, green, blue = (round(a + (b - a) * fraction) for a, b in zip(first, second, strict=True))
    return red, green, blue


def lighter(color: Color, fraction: float) -> Color:
    return mix(color, (255, 255, 255), fraction)


def darker(color: Color, fraction: float) -> Color:
    return mix(color, (12, 14, 22), fraction)


def vary(rng: Generator, *colors: Color, amount: int = 14) -> Color:
    """Pick one of `colors` and change each channel by up to `amount` levels."""
    steps = rng.integers(-amount, amount + 1, 3).tolist()
    values = [value + step for value, step in zip(pick(rng, colors), steps, strict=True)]
    red, green, blue = (min(255, max(0, value)) for value in values)
    return red, green, blue


@cache
def _unit_circle(sides: int) -> tuple[Point, ...]:
    angles = [2 * math.pi * side / sides for side in range(sides)]
    return tuple((math.cos(angle), math.sin(angle)) for angle in angles)


def ellipse(x: float, y: float, rx: float, ry: float, sides: int = 20) -> list[Point]:
    return [(x + rx * cosine, y + ry * sine) for cosine, sine in _unit_circle(sides)]


def disc(x: float, y: float, radius: float, sides: int = 20) -> list[Point]:
    return ellipse(x, y, radius, radius, sides)


def ring(x: float, y: float, outer: float, inner: float) -> list[Point]:
    """A ring as one polygon with a slit, because a polygon has no holes."""
    rim, hole = disc(x, y, outer, 32), disc(x, y, inner, 32)
    return [*rim, rim[0], hole[0], *reversed(hole)]


def box(left: float, bottom: float, right: float, top: float) -> list[Point]:
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


def band(path: Sequence[Point], widths: Sequence[float]) -> list[Point]:
    """A limb or tube along `path`, `widths[i]` wide at `path[i]`, with rounded ends."""
    left: list[Point] = []
    right: list[Point] = []
    last = len(path) - 1
    for index, ((x, y), width) in enumerate(zip(path, widths, strict=True)):
        (ax, ay), (bx, by) = path[max(index - 1, 0)], path[min(index + 1, last)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        dx, dy = (bx - ax) / length * width / 2, (by - ay) / length * width / 2
        rounded = {0: [(-0.75, 0.55), (0.0, 1.0)], last: [(0.0, 1.0), (0.75, 0.55)]}
        for along, across in rounded.get(index, [(0.0, 1.0)]):
            left.append((x + along * dx - across * dy, y + along * dy + across * dx))
            right.append((x + along * dx + across * dy, y + along * dy - across * dx))
    return [*left, *reversed(right)]


def tube(ax: float, ay: float, bx: float, by: float, width: float) -> list[Point]:
    return band([(ax, ay), (bx, by)], [width, width])


def smooth(polygon: Sequence[Point], rounds: int = 2) -> list[Point]:
    """Cut the corners of a closed polygon `rounds` times (similar to Chaikin, 1974)."""
    for _ in range(rounds):
        cut: list[Point] = []
        for (ax, ay), (bx, by) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            cut.append((0.8 * ax + 0.2 * bx, 0.8 * ay + 0.2 * by))
            cut.append((0.2 * ax + 0.8 * bx, 0.2 * ay + 0.8 * by))
        polygon = cut
    return list(polygon)


def points(text: str) -> list[Point]:
    """Parse points in the notation of SVG's attribute `points`: `"0,.3 1.2,.5 …"`."""
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def _shape(kind: str, at: list[Point]) -> list[Point]:
    if kind == "disc":
        return ellipse(*at[0], *at[1])
    if kind == "box":
        return box(*at[0], *at[1])
    if kind == "tube":
        path, (start, end) = at[:-1], at[-1]
        return band(path, [start + (end - start) * i / (len(path) - 1) for i in range(len(path))])
    return smooth(at, {"poly": 0, "soft": 1, "curve": 2}[kind])


@cache
def _parsed(text: str) -> list[tuple[bool, str, int, str, list[Point]]]:
    lines = re.sub(r"\n\s*\.\.\.", "", text).split("\n")
    parsed = []
    for where, tone, shading, kind, at in (line.split(None, 4) for line in lines if line.strip()):
        name, sign, fraction = re.split(r"([+-]|$)", tone, maxsplit=1)
        shade = int(f"{sign}{fraction or 0}")
        parsed.append((where == "out", name, shade, shading, _shape(kind, points(at))))
    return parsed


def sketch(text: str, **colors: Color) -> list[Part]:
    """Draw parts from a compact notation, one part per line.

    The columns are place, color, shading, kind of shape, and points:

        out paint    top  curve 0,0 1,.2 .5,.8        in the silhouette, corners cut twice
        in  glass+30 flat tube  0,0 1,0 .1,.2         enclosed, 30% lighter, .1 to .2 m wide

    `soft` cuts corners once, `poly` never; `disc` has a center and two radii, `box` two corners. A
    line that starts with `...` continues the previous one.

    Args:
        text: the notation.
        colors: a color for each name in `text`.
    """
    parts = []
    for outlined, name, shade, shading, polygon in _parsed(text):
        color = (
            darker(colors[name], -shade / 100) if shade < 0 else lighter(colors[name], shade / 100)
        )
        parts.append(Part(polygon, color, shading, outlined))
    return parts


# People


@dataclass(frozen=True, slots=True)
class Pose:
    """The joints of a person in meters; of two limbs, the one farther from the viewer is first."""

    hip: Point
    neck: Point
    hands: tuple[Point, Point]
    feet: tuple[Point, Point]
    sideways: bool


def _joint(start: Point, end: Point, upper: float, lower: float, forward: bool) -> Point:
    """The knee or elbow between two ends, where circles with the lengths of the bones intersect."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    distance = min(math.hypot(dx, dy), 0.999 * (upper + lower)) or 0.001
    along = (upper**2 - lower**2 + distance**2) / (2 * distance)
    across = math.sqrt(max(upper**2 - along**2, 0.0)) * (1 if forward else -1)
    dx, dy = dx / distance, dy / distance
    return start[0] + along * dx - across * dy, start[1] + along * dy + across * dx


def _standing(rng: Generator) -> Pose:
    spread, lean = between(rng, 0.07, 0.15), between(rng, -0.04, 0.04)
    hands = []
    for side in (-1, 1):
        gestures = (
            (between(rng, 0.24, 0.32), 0.83),  # hanging
            (between(rng, 0.24, 0.32), 0.83),
            (0.17, 1.0),  # on the hip
            (0.08, 1.22),  # in front of the chest
            (between(rng, 0.3, 0.5), between(rng, 1.6, 1.9)),  # waving
        )
        out, up = pick(rng, gestures)
        hands.append((side * out + lean, up))
    feet = ((-spread, 0.07), (spread, 0.07))
    return Pose((0.0, 0.92), (lean, 1.45), (hands[0], hands[1]), feet, False)


def _walking(rng: Generator) -> Pose:
    stride, swing, ahead = between(rng, 0.16, 0.36), between(rng, 0.1, 0.34), pick(rng, (-1, 1))
    # The heel of the rear foot is off the ground.
    far, near = ((side * stride, 0.07 if side > 0 else 0.15) for side in (ahead, -ahead))
    hands = ((-ahead * swing, 0.9 + swing * 0.3), (ahead * swing, 0.9 + swing * 0.3))
    return Pose((0.0, 0.93), (between(rng, 0.02, 0.08), 1.45), hands, (far, near), True)


# Hair and helmets around the center of the head; the keys are (seen from the side, long).
_HAIR = {
    (
        False,
        False,
    ): "-.11,-.02 -.115,.07 -.07,.14 .02,.15 .095,.11 .11,.05 .05,.06 -.03,.05 -.07,-.03",
    (True, False): "-.12,-.09 -.13,.05 -.08,.14 .02,.15 .09,.12 .1,.07 .02,.06 -.02,-.01 -.05,-.1",
    (True, True): "-.13,-.2 -.14,.05 -.08,.14 .02,.15 .09,.12 .1,.07 .02,.06 -.01,-.02 -.03,-.2",
}
_HAIR[False, True] = _HAIR[False, False]
_HELMET = "-.13,-.02 -.135,.08 -.08,.165 .03,.17 .11,.12 .125,.05 .16,.03 .1,.015"


@dataclass(frozen=True, slots=True)
class _Figure:
    """The pose, build and clothes of a person, without details that are drawn at random later."""

    pose: Pose
    skirt: bool
    skin: Color
    hair: Color
    top: Color
    trousers: Color
    shoes: Color
    long_sleeves: bool
    shorts: bool
    long_hair: bool
    build: float  # 1 is average

    @property
    def width(self) -> float:
        return (0.25 if self.pose.sideways else 0.37) * self.build

    @property
    def up(self) -> Point:
        """The direction of the spine."""
        (hx, hy), (nx, ny) = self.pose.hip, self.pose.neck
        length = math.hypot(nx - hx, ny - hy)
        return (nx - hx) / length, (ny - hy) / length

    @property
    def head(self) -> Point:
        (nx, ny), (ux, _) = self.pose.neck, self.up
        return nx + ux * 0.17 + 0.02 * self.pose.sideways, ny + 0.175

    def along_spine(self, fraction: float, back: float = 0.0) -> Point:
        """A point between hip (0) and neck (1), `back` meters behind the spine."""
        (hx, hy), (nx, ny), (ux, uy) = self.pose.hip, self.pose.neck, self.up
        length = math.hypot(nx - hx, ny - hy)
        return hx + ux * length * fraction - uy * back, hy + uy * length * fraction + ux * back

    def arm(self, index: int, shade: float) -> list[Part]:
        sideways, (nx, ny), (ux, uy) = self.pose.sideways, self.pose.neck, self.up
        side = 0.0 if sideways else (-1, 1)[index] * self.width * 0.46
        hand = self.pose.hands[index]
        shoulder = (nx - ux * 0.07 + side * uy, ny - uy * 0.07 - side * ux)
        elbow = _joint(shoulder, hand, 0.3, 0.28, forward=not sideways and index == 0)
        sleeve, bare = darker(self.top, shade), darker(self.skin, shade)
        whole = band([shoulder, elbow, hand], [0.125 * self.build, 0.1, 0.075])
        parts = [
            Part(disc(*hand, 0.05, 10), bare),
            Part(whole, sleeve if self.long_sleeves else bare, "side"),
        ]
        if not self.long_sleeves:
            parts.append(Part(band([shoulder, elbow], [0.14 * self.build, 0.12]), sleeve, "side"))
        return parts

    def leg(self, index: int, shade: float) -> list[Part]:
        sideways, (hx, hy), (x, y) = self.pose.sideways, self.pose.hip, self.pose.feet[index]
        side = 0 if sideways else (-1, 1)[index]
        hip, toe = (hx + side * 0.09 * self.build, hy), x + (0.17 if sideways else side * 0.05)
        knee = _joint(hip, (x, y), 0.445, 0.43, True) if sideways else ((hip[0] + x) / 2, 0.5)
        cloth, bare = darker(self.trousers, shade), darker(self.skin, shade)
        shoe = band([(x - 0.03, y), (toe, y - 0.03)], [0.115, 0.075])
        whole = band([hip, knee, (x, y)], [0.19 * self.build, 0.145, 0.095])
        parts = [
            Part(shoe, darker(self.shoes, shade), "top"),
            Part(whole, bare if self.shorts or self.skirt else cloth, "side"),
        ]
        if self.shorts:
            parts.append(Part(band([hip, knee], [0.2 * self.build, 0.165]), cloth, "side"))
        return parts


def person(rng: Generator, pose: Pose | None = None, helmet: bool = False) -> list[Part]:
    """A person 1.75 m tall in random clothes, standing or walking if no pose is given."""
    skirt = pose is None and chance(rng, 0.2)
    figure = _Figure(
        pose=pose or (_walking(rng) if chance(rng, 0.5) else _standing(rng)),
        skirt=skirt,
        skin=vary(rng, *SKINS, amount=8),
        hair=vary(rng, *HAIRS, amount=8),
        top=vary(rng, *PAINTS),
        trousers=vary(rng, *TROUSERS),
        shoes=vary(rng, *SHOES),
        long_sleeves=chance(rng, 0.6),
        shorts=chance(rng, 0.22),
        long_hair=chance(rng, 0.4),
        build=between(rng, 0.9, 1.15),
    )
    sideways = figure.pose.sideways
    parts = [*figure.arm(0, 0.22 * sideways), *figure.leg(0, 0.25 * sideways), *figure.leg(1, 0.0)]
    return [*parts, *_torso(rng, figure), *_head(rng, figure, helmet), *figure.arm(1, 0.0)]


def _torso(rng: Generator, figure: _Figure) -> list[Part]:
    """The torso in front of a backpack, a skirt and long hair."""
    sideways, wide, (_, hy), (x, y) = (
        figure.pose.sideways,
        figure.width,
        figure.pose.hip,
        figure.head,
    )
    parts = []
    if sideways and chance(rng, 0.25):
        backpack = [figure.along_spine(0.3, 0.19), figure.along_spine(0.78, 0.19)]
        parts.append(Part(band(backpack, [0.2, 0.18]), vary(rng, *PAINTS), "side"))
    if figure.skirt:
        waist, hem = wide * 0.45, between(rng, 0.24, 0.32)
        cloth = [(-hem, 0.48), (hem, 0.48), (waist, hy + 0.12), (-waist, hy + 0.12)]
        parts.append(Part(cloth, vary(rng, *PAINTS), "side"))
    if figure.long_hair and not sideways:
        parts.append(Part(ellipse(x, y - 0.06, 0.135, 0.2, 16), figure.hair, "side"))
    spine = [figure.along_spine(fraction) for fraction in (0.0, 0.3, 0.72, 0.92)]
    widths = [wide * fraction for fraction in (0.92, 0.86, 1.08, 0.86)]
    return [*parts, Part(band(spine, widths), figure.top, "side")]


def _head(rng: Generator, figure: _Figure, helmet: bool) -> list[Part]:
    """Neck, face, and hair or headgear."""
    sideways, skin, (nx, ny) = figure.pose.sideways, figure.skin, figure.pose.neck
    (x, y), (ux, _) = figure.head, figure.up
    parts = [
        Part(tube(nx - ux * 0.05, ny - 0.04, x, y, 0.09), darker(skin, 0.15)),
        Part(ellipse(x, y, 0.098, 0.128, 18), skin, "side"),
    ]
    if sideways:
        nose = [(x + 0.08, y + 0.02), (x + 0.125, y - 0.035), (x + 0.08, y - 0.045)]
        parts.append(Part(nose, skin))
    for eye in (0.058,) if sideways else (-0.04, 0.04):
        parts.append(detail(ellipse(x + eye, y + 0.015, 0.013, 0.017, 8), (40, 32, 30)))
    covered = helmet or chance(rng, 0.15)
    crown = points(_HELMET if covered else _HAIR[sideways, figure.long_hair])
    crown = smooth([(x + px, y + py) for px, py in crown], 1)
    return [*parts, Part(crown, vary(rng, *PAINTS) if covered else figure.hair, "side")]


# Vehicles


def bicycle(rng: Generator) -> list[Part]:
    """A bicycle 1.75 m long. As in COCO, the silhouette includes the inside of wheels and frame."""
    frame, tire = vary(rng, *PAINTS), vary(rng, TIRE, amount=6)
    parts: list[Part] = []
    for x in (-0.52, 0.54):
        parts.append(Part(disc(x, 0.34, 0.345), None))
        for cosine, sine in _unit_circle(14)[:7]:
            dx, dy = 0.31 * cosine, 0.31 * sine
            spoke = tube(x - dx, 0.34 - dy, x + dx, 0.34 + dy, 0.007)
            parts.append(detail(spoke, (172, 174, 178)))
        parts.append(detail(ring(x, 0.34, 0.318, 0.288), STEEL))
        parts.append(detail(ring(x, 0.34, 0.345, 0.305), tire))
        parts.append(detail(disc(x, 0.34, 0.04, 10), STEEL))
    parts.append(Part(points("-.52,.34 -.09,.29 .42,.66 .37,.8 -.25,.8"), None))
    top_tube = f"{pick(rng, ('-.24,.74', '-.24,.74', '-.2,.62', '-.14,.46'))} .38,.77"
    width = between(rng, 0.038, 0.055)
    stays = ("-.52,.34 -.09,.29", "-.52,.34 -.25,.8", "-.09,.29 .4,.66", "-.09,.29 -.25,.8")
    for ends in (top_tube, *stays):
        parts.append(detail(band(points(ends), (width, width)), frame, "top"))
    parts += sketch(
        """
        out frame  side tube .37,.84 .42,.66 .54,.34 .055,.04
        out steel  flat tube -.25,.8 -.27,.88 .035,.035
        out saddle top  soft -.42,.93 -.42,.88 -.3,.87 -.12,.89 -.12,.92 -.26,.93
        out steel-40 flat disc -.09,.29 .09,.09
        out steel  flat tube -.09,.29 0,.14 .03,.03
        out tire   flat tube -.05,.13 .06,.13 .035,.035
        """,
        frame=frame,
        steel=STEEL,
        saddle=(42, 36, 34),
        tire=TIRE,
    )
    straight, dropped = "0,.84 -.03,1 -.13,1.02", "0,.84 -.02,.94 .13,.95 .16,.86 .08,.82"
    bar = points(pick(rng, (straight, straight, dropped)))
    bar = [(x + 0.37, y) for x, y in bar]
    parts.append(Part(band(bar, [0.04] * len(bar)), (48, 48, 52)))
    if chance(rng, 0.2):
        parts.append(Part(box(0.4, 0.78, 0.66, 0.98), (136, 102, 62), "top"))
    return parts


def bicycle_rider(rng: Generator) -> list[Part]:
    turn = between(rng, 0, 6.28)
    x, y = 0.15 * math.cos(turn), 0.15 * math.sin(turn)
    feet = ((-0.09 - x, 0.31 - y), (-0.09 + x, 0.31 + y))
    neck = (between(rng, 0.0, 0.14), between(rng, 1.42, 1.5))
    pose = Pose((-0.26, 1.0), neck, ((0.35, 1.06), (0.32, 1.04)), feet, True)
    return person(rng, pose, helmet=chance(rng, 0.5))


_SCOOTER = """
    out steel  side tube .72,.26 .5,.95 .07,.07
    out paint  top  curve -1,.6 -.95,.8 -.4,.84 -.15,.72 -.1,.42 .2,.34 .3,.4 .42,.95 .55,.9
    ... .6,.5 .45,.22 -.2,.2 -.55,.24 -.9,.36
    in  paint+35 flat soft -.9,.7 -.5,.74 -.3,.68 -.5,.66
    out black  top  soft -.95,.8 -.9,.9 -.3,.9 -.2,.8
    out black  flat tube .5,.9 .46,1.05 .34,1.07 .08,.05
    out lamp   flat disc .56,.92 .08,.08
    out red    flat soft -1.03,.62 -1,.74 -.92,.72 -.94,.6
    out paint  top  soft 1,.42 .9,.56 .72,.6 .54,.54 .5,.44 .72,.5
"""
_ENGINE = """
    out metal  top  tube -.1,.4 -.7,.32 .12,.07
    out black  top  curve -.3,.28 -.34,.6 -.1,.7 .25,.7 .36,.5 .3,.26 .1,.2 -.2,.2
    in  metal  top  disc -.08,.38 .14,.14
    in  metal-15 side tube .08,.42 .2,.68 .2,.22
    in  black+12 flat tube .02,.47 .24,.44 .016,.016
    in  black+12 flat tube .05,.53 .27,.5 .016,.016
    in  black+12 flat tube .08,.58 .3,.55 .016,.016
    in  black+12 flat tube .11,.64 .33,.61 .016,.016
    out paint-45 flat tube -.62,.64 -.1,.62 .4,.74 .06,.1
    out steel  top  tube .26,.46 .2,.22 -.2,.2 -.86,.36 .05,.12
    out steel  side tube .72,.32 .42,.86 .075,.075
    out paint  top  curve -.12,.7 -.08,.9 .1,1 .34,.98 .46,.88 .4,.74 .1,.68
    in  paint+40 flat soft -.02,.88 .1,.95 .32,.94 .36,.9 .1,.9
"""
_MOTORCYCLES = {
    "sport": """
    out paint  top  curve -.95,.98 -.88,1.04 -.4,.9 -.1,.84 -.1,.72 -.5,.72
    out black  flat soft -.6,.93 -.12,.86 -.1,.79 -.5,.8
    out paint  top  curve 0,.28 .02,.62 .3,.86 .46,1.08 .62,1.02 .76,.84 .62,.64 .5,.36 .2,.2
    in  paint-50 flat soft 0,.4 .1,.52 .5,.56 .46,.42 .2,.3
    out steel-20 flat soft .42,1.06 .4,1.2 .5,1.18 .64,1 .58,.96
    """,
    "roadster": """
    out black  top  curve -.98,.82 -.9,.94 -.5,.84 -.12,.82 -.08,.72 -.6,.68
    out lamp   top  disc .56,.86 .105,.105
    out metal  top  disc .53,.86 .105,.105
    """,
    "cruiser": """
    out black  top  curve -.9,.78 -.86,1.02 -.72,.88 -.5,.7 -.16,.74 -.1,.66 -.8,.6
    out paint  top  soft -1,.66 -.94,.8 -.5,.74 -.4,.64
    out lamp   top  disc .58,.9 .12,.12
    out metal  top  disc .55,.9 .12,.12
    """,
}
_FENDERS = """
    out paint  top  tube 1.03,.48 .88,.63 .7,.66 .48,.56 .03,.06
    out paint  top  tube -.49,.6 -.7,.68 -.92,.59 -1.04,.44 .07,.04
    out black  flat tube -.84,.84 -.93,.62 .07,.05
    out red    flat disc -.95,.7 .045,.055
    out black  flat tube .4,.94 .36,1.08 .22,1.08 .06,.055
    out black  flat tube .36,1.06 .42,1.2 .02,.02
    out metal  flat disc .42,1.21 .05,.035
"""


def motorcycle(rng: Generator) -> list[Part]:
    """A motorcycle about 2.1 m long: a roadster, sport bike, cruiser or scooter."""
    kind = pick(rng, ("roadster", "roadster", "sport", "cruiser", "scooter"))
    tones = {"paint": vary(rng, *PAINTS), "metal": vary(rng, (128, 130, 136)), "steel": STEEL}
    tones |= {"black": vary(rng, (42, 42, 46), amount=6), "red": RED_LAMP, "lamp": WHITE_LAMP}
    radius = 0.26 if kind == "scooter" else between(rng, 0.3, 0.34)
    parts: list[Part] = []
    for x in (-0.7, 0.72):
        parts.append(Part(disc(x, radius, radius, 24), TIRE))
        parts.append(detail(disc(x, radius, radius * 0.66), (96, 98, 102), "top"))
        parts.append(detail(disc(x, radius, radius * 0.57), (58, 59, 62)))
        for cosine, sine in _unit_circle(6)[:3]:
            dx, dy = 0.6 * radius * cosine, 0.6 * radius * sine
            parts.append(detail(tube(x - dx, radius - dy, x + dx, radius + dy, 0.03), STEEL))
        parts.append(detail(disc(x, radius, radius * 0.22, 12), tones["metal"]))
    if kind == "scooter":
        return parts + sketch(_SCOOTER, **tones)
    return (
        parts
        + sketch(_ENGINE, **tones)
        + sketch(_MOTORCYCLES[kind], **tones)
        + sketch(_FENDERS, **tones)
    )


def motorcycle_rider(rng: Generator) -> list[Part]:
    neck = (between(rng, -0.12, 0.08), between(rng, 1.36, 1.46))
    pose = Pose(
        (-0.36, 0.96), neck, ((0.27, 1.1), (0.24, 1.08)), ((-0.05, 0.36), (0.0, 0.32)), True
    )
    return person(rng, pose, helmet=chance(rng, 0.75))


def _road_wheel(x: float, radius: float) -> list[Part]:
    rim, gap = (180, 183, 188), (84, 86, 92)
    parts = [
        Part(disc(x, radius, radius, 22), TIRE),
        detail(disc(x, radius, radius * 0.66, 18), rim, "top"),
        detail(disc(x, radius, radius * 0.54, 18), gap),
    ]
    for cosine, sine in _unit_circle(5):
        end = (x + radius * 0.58 * cosine, radius + radius * 0.58 * sine)
        parts.append(detail(tube(x, radius, *end, radius * 0.17), rim))
    return [*parts, detail(disc(x, radius, radius * 0.14, 10), gap)]


# Cars from the side: body, wheels (x of the rear wheel, x of the front wheel, radius), windows.
_CARS = {
    "sedan": (
        "-2.22,.3 -2.26,.7 -2.16,.95 -1.5,1 -1,1.36 -.6,1.46 .2,1.46 .55,1.36 1.1,1 1.95,.88"
        " 2.22,.74 2.26,.38 2.18,.22 -2.14,.22",
        (-1.36, 1.38, 0.33),
        ("-1.3,1 -.92,1.32 -.62,1.38 -.38,1.38 -.38,1", "-.28,1 -.28,1.38 .2,1.38 .46,1.3 .9,1"),
    ),
    "hatchback": (
        "-1.86,.3 -1.9,.84 -1.78,1.08 -1.4,1.42 -1,1.5 .1,1.5 .5,1.38 1.05,1 1.6,.9 1.9,.74"
        " 1.94,.36 1.86,.22 -1.8,.22",
        (-1.18, 1.2, 0.33),
        ("-1.6,1.04 -1.3,1.36 -1,1.42 -.5,1.42 -.5,1.02",
         "-.4,1.02 -.4,1.42 .12,1.42 .42,1.32 .84,1.02"),
    ),
    "off-roader": (
        "-2.2,.42 -2.24,.96 -2.14,1.3 -1.86,1.68 -1.5,1.76 .3,1.74 .7,1.6 1.2,1.16 2,1.06"
        " 2.24,.9 2.28,.46 2.2,.3 -2.12,.3",
        (-1.36, 1.4, 0.4),
        ("-2,1.2 -1.78,1.6 -1.16,1.64 -1.16,1.18", "-1.06,1.18 -1.06,1.64 -.3,1.64 -.3,1.18",
         "-.2,1.18 -.2,1.64 .3,1.62 .6,1.5 .96,1.18"),
    ),
    "van": (
        "-2.3,.36 -2.34,1.3 -2.28,1.86 -2,1.98 1,1.96 1.4,1.74 1.86,1.2 2.2,1.04 2.36,.84"
        " 2.38,.42 2.3,.26 -2.22,.26",
        (-1.46, 1.48, 0.35),
        ("-2.1,1.28 -2.06,1.76 -1.2,1.8 -1.2,1.26", "-1.08,1.26 -1.08,1.8 -.1,1.8 -.1,1.26",
         ".02,1.26 .02,1.8 .96,1.78 1.24,1.62 1.6,1.24"),
    ),
    "pickup": (
        "-2.5,.46 -2.54,.98 -2.46,1.06 -.9,1.06 -.84,1.1 -.74,1.62 -.5,1.72 .4,1.7 .7,1.6"
        " 1.2,1.14 2.2,1.04 2.46,.88 2.5,.5 2.42,.32 -2.4,.32",
        (-1.56, 1.56, 0.4),
        ("-.66,1.14 -.56,1.58 -.06,1.6 -.06,1.14", ".04,1.14 .04,1.6 .4,1.6 .6,1.5 .96,1.14"),
    ),
}  # fmt: skip


def car(rng: Generator) -> list[Part]:
    """A car seen from the side, with one of five bodies, or from the front or back."""
    paint, glass = vary(rng, *PAINTS), vary(rng, GLASS, amount=10)
    if chance(rng, 0.2):
        return _car_from_the_front(rng, paint, glass)
    body, (*wheels, radius), windows = pick(rng, list(_CARS.values()))
    outline = smooth(points(body))
    left, right = min(x for x, _ in outline), max(x for x, _ in outline)
    sill, belt = min(y for _, y in outline), points(windows[0])[0][1]
    nose = max(y for x, y in outline if x > right - 0.25)
    parts = [
        Part(outline, paint, "top"),
        detail(tube(left + 0.08, belt - 0.13, right - 0.3, belt - 0.19, 0.06), lighter(paint, 0.3)),
        detail(box(left + 0.12, sill, right - 0.12, sill + 0.12), darker(paint, 0.6)),
    ]
    for window in windows:
        pane = smooth(points(window), 1)
        bottom, top = min(y for _, y in pane), max(y for _, y in pane)
        end, middle = max(x for x, _ in pane), sum(x for x, _ in pane) / len(pane)
        shine = tube(middle - 0.08, bottom + 0.1, middle + 0.08, top - 0.12, 0.14)
        parts += [
            detail(pane, glass, "top"),
            detail(shine, lighter(glass, 0.25)),
            detail(tube(end + 0.05, sill + 0.18, end + 0.05, belt, 0.018), darker(paint, 0.4)),
            detail(box(end - 0.3, belt - 0.14, end - 0.12, belt - 0.1), darker(paint, 0.45)),
        ]
    for x in wheels:
        arch = disc(x, radius, radius * 1.2, 32)[:17]
        parts += [
            detail([(px, max(py, sill)) for px, py in arch], (22, 22, 26)),
            *_road_wheel(x, radius),
        ]
    return [
        *parts,
        detail(tube(right - 0.24, nose - 0.15, right - 0.1, nose - 0.2, 0.14), WHITE_LAMP),
        detail(box(left + 0.02, belt - 0.32, left + 0.13, belt - 0.08), RED_LAMP),
        detail(tube(right - 0.2, sill + 0.1, right - 0.06, sill + 0.1, 0.1), darker(paint, 0.7)),
        detail(tube(0.74, belt + 0.07, 0.88, belt + 0.07, 0.12), darker(paint, 0.25)),
    ]


def _car_from_the_front(rng: Generator, paint: Color, glass: Color) -> list[Part]:
    behind, taller = chance(rng, 0.4), between(rng, 1.0, 1.22)
    parts = sketch(
        """
        out tire  flat box -.86,0 -.6,.4
        out tire  flat box .6,0 .86,.4
        out paint-30 flat disc -.83,1.02 .12,.08
        out paint-30 flat disc .83,1.02 .12,.08
        out paint top  curve -.88,.24 -.93,.7 -.86,.92 -.7,1 -.58,1.36 -.4,1.47 .4,1.47 .58,1.36
        ... .7,1 .86,.92 .93,.7 .88,.24 .8,.18 -.8,.18
        in  glass top  soft -.62,1 -.5,1.34 -.4,1.38 .4,1.38 .5,1.34 .62,1
        in  glass+25 flat poly -.3,1.04 -.12,1.34 .1,1.34 -.08,1.04
        in  paint+30 flat poly -.84,.9 .84,.9 .7,.96 -.7,.96
        in  lamp  flat soft -.86,.62 -.84,.8 -.56,.76 -.5,.62
        in  lamp  flat soft .86,.62 .84,.8 .56,.76 .5,.62
        in  paint-50 flat box -.86,.26 .86,.42
        in  grille flat soft -.44,.58 -.4,.76 .4,.76 .44,.58
        in  plate flat box -.24,.44 .24,.55
        """,
        tire=TIRE,
        paint=paint,
        glass=glass,
        plate=WHITE,
        lamp=RED_LAMP if behind else WHITE_LAMP,
        grille=darker(paint, 0.1 if behind else 0.8),
    )
    return [
        Part([(x, y * taller) for x, y in p.polygon], p.color, p.shading, p.outlined) for p in parts
    ]


_AIRLINER_TAIL = """
    out metal-15 flat poly -16.4,5 -13.4,5 -16.8,6.5 -18,6.5
    out livery top  poly -17.4,5.2 -18.9,10.4 -16.6,10.6 -13.2,6.4 -10.6,5.5
"""
_AIRLINER_WHEELS = """
    out metal-40 flat box 12.6,.5 12.95,2.4
    out tire  flat disc 12.75,.62 .62,.62
    out metal-40 flat box -2,.5 -1.6,2.4
    out tire  flat disc -2.3,.66 .66,.66
    out tire  flat disc -.9,.66 .66,.66
"""
_AIRLINER_HULL = """
    out hull   top  curve -19,5.1 -18.6,5.7 -12,5.8 11,5.8 14.6,5.6 16.8,4.7 18.1,3.6 17.4,2.7
    ... 15,2.1 11,1.85 -7,1.85 -11,2.3 -15,3.6
    in  hull-22 flat box -12.4,3.5 -11.65,5.1
    in  hull-22 flat box 13.3,3.5 14.05,5.1
    in  glass  flat poly 14.7,4.75 16.4,4.55 16,5.05 15,5.3
    out metal  top  poly -12.6,4.6 -15.6,4.9 -19.2,4.15 -18,3.9
"""
_LIVERIES = (
    "in livery flat poly -16.5,4.1 -14,3.55 15.6,3.55 17.4,3.7 15.8,3.95 -13,3.95",
    "in livery flat soft -13.6,3.1 -7,1.9 11,1.88 15,2.15 17,2.75 10,2.7 -8,2.8",
)


def airliner(rng: Generator, flying: bool) -> list[Part]:
    """An airliner 36 m long, flying or on its wheels."""
    tones = {"hull": vary(rng, WHITE, WHITE, WHITE, STEEL, *PAINTS[:7], amount=6)}
    tones |= {"livery": vary(rng, *PAINTS), "metal": vary(rng, (172, 178, 186), amount=8)}
    tones |= {"glass": (50, 62, 78), "tire": TIRE}
    reach = between(rng, 1.2, 3.6) if flying else between(rng, 0.9, 1.6)
    far_tip, tip, pod = 5.2 + reach * between(rng, 0.6, 1.1), 2.9 - reach, 2.4 - reach * 0.5
    parts = [
        Part(
            [(2.5, 4.6), (-2.5, 4.8), (-7.2, far_tip), (-5.8, far_tip)],
            darker(tones["metal"], 0.15),
        )
    ]
    parts += sketch(_AIRLINER_TAIL + ("" if flying else _AIRLINER_WHEELS) + _AIRLINER_HULL, **tones)
    parts += sketch(pick(rng, _LIVERIES), **tones)
    for index in range(21):
        x = -10.4 + index * 1.12
        parts.append(detail(box(x, 4.35, x + 0.55, 5.0), tones["glass"]))
    engine = tones[pick(rng, ("livery", "metal"))]
    wing = [(4.2, 3.0), (-3.8, 2.6), (-8.6, tip), (-7.0, tip - 0.1)]
    edge = [(4.2, 3.0), (3.2, 2.9), (-7.4, tip), (-7.0, tip - 0.1)]
    return [
        *parts,
        Part(band([(-1.2, pod + 0.1), (2.9, pod)], [1.0, 1.9]), engine, "top"),
        detail(ellipse(3.45, pod, 0.3, 0.85, 14), (46, 50, 58)),
        Part(wing, tones["metal"], "top"),
        detail(edge, lighter(tones["metal"], 0.4)),
    ]


_LIGHT_AIRCRAFT = """
    out paint-30 flat poly -3.2,1.7 -2.6,1.7 -3.3,2.3 -3.8,2.3
    out livery top  poly -3.9,1.6 -4.4,2.95 -3.7,3 -2.4,1.95
    out metal  flat tube .5,.2 .45,.9 .1,.1
    out metal  flat tube 2.5,.2 2.45,.9 .1,.1
    out tire   flat disc .5,.24 .24,.24
    out tire   flat disc 2.5,.24 .24,.24
    in  metal  flat disc .5,.24 .1,.1
    in  metal  flat disc 2.5,.24 .1,.1
    out metal  flat disc 3.42,1.25 .05,.95
    out paint  top  curve -4.1,1.8 -3.8,1.45 -.5,.75 1.8,.66 2.9,.8 3.3,1.1 3.3,1.4 3,1.66
    ... 1.9,1.78 1,1.9 -1.4,1.95
    out glass  top  soft 1.9,1.74 1.2,2.3 .6,2.42 -.4,2.4 -1.5,1.9 -.6,1.8
    in  paint  flat tube .35,1.8 .3,2.4 .08,.08
    in  livery flat poly -3.6,1.62 -.5,1.2 2.8,1.18 3.25,1.26 2.8,1.36 -.5,1.42
    out livery top  soft 3.3,1 3.7,1.24 3.3,1.46
    out paint  top  poly -2.6,1.6 -3.5,1.68 -4.5,1.38 -3.8,1.3
"""


def light_aircraft(rng: Generator, flying: bool) -> list[Part]:
    """A low-wing propeller aircraft 8 m long; its wheels are always down."""
    paint, livery = vary(rng, *PAINTS, WHITE, WHITE), vary(rng, *PAINTS)
    reach = between(rng, 0.5, 1.5) if flying else between(rng, 0.3, 0.6)
    far_wing = [(1.3, 1.3), (-0.2, 1.4), (-0.9, 1.9 + reach), (-0.1, 1.9 + reach)]
    wing = [(1.5, 1.02), (-0.5, 0.94), (-1.3, 0.98 - reach), (-0.2, 0.94 - reach)]
    edge = [(1.5, 1.02), (1.2, 0.99), (-0.4, 0.95 - reach), (-0.2, 0.94 - reach)]
    tones = {
        "paint": paint,
        "livery": livery,
        "glass": GLASS,
        "tire": TIRE,
        "metal": (120, 122, 128),
    }
    return [
        Part(far_wing, darker(paint, 0.3)),
        *sketch(_LIGHT_AIRCRAFT, **tones),
        Part(wing, lighter(paint, 0.15), "top"),
        detail(edge, lighter(paint, 0.5)),
    ]


# Objects of classes that the sample annotates but does not select


_COATS: dict[str, tuple[Color, ...]] = {
    "bird": (WHITE, (60, 58, 60), (120, 100, 84)),
    "dog": ((150, 104, 60), (60, 48, 42), (206, 186, 152)),
    "sheep": ((228, 222, 208), (214, 206, 190)),
    "cow": ((118, 74, 50), (226, 222, 216), (52, 44, 42)),
    "horse": ((112, 66, 40), (70, 46, 36), (200, 190, 176)),
}
_THINGS = {
    "bird": """
    out coat-30 flat poly .2,.02 .07,.24 -.18,.32 -.08,.18 0,.02
    out coat  top  soft -.34,.03 -.3,-.03 -.05,-.07 .15,-.03 .25,.02 .2,.08 .1,.06 -.1,.06
    out amber flat poly .23,.04 .33,.02 .23,0
    out coat+10 top poly .08,.02 -.05,.28 -.3,.4 -.2,.2 -.12,.02
    """,
    "dog": """
    out coat-30 flat tube -.27,.44 -.44,.62 .07,.03
    out coat-35 side tube -.2,.36 -.26,.18 -.18,.03 .13,.05
    out coat-35 side tube .24,.34 .2,.16 .28,.03 .11,.05
    out coat  side tube -.24,.36 -.33,.18 -.3,.03 .16,.05
    out coat  side tube .21,.36 .25,.18 .2,.03 .13,.05
    out coat  top  tube .2,.42 .36,.66 .22,.14
    out coat  top  tube -.25,.43 0,.41 .24,.43 .19,.24
    out coat  top  tube .35,.65 .54,.6 .16,.09
    out coat-45 flat soft .27,.74 .34,.75 .36,.6 .29,.55
    in  black flat disc .56,.61 .022,.02
    in  black flat disc .43,.68 .014,.014
    """,
    "sheep": """
    out black side tube -.24,.4 -.22,.03 .1,.07
    out black side tube .3,.4 .32,.03 .1,.07
    out black side tube -.34,.42 -.36,.03 .11,.08
    out black side tube .22,.42 .2,.03 .11,.08
    out coat  top  curve -.52,.55 -.5,.78 -.2,.88 .2,.86 .46,.84 .52,.6 .3,.34 -.32,.34
    out black top  tube .5,.84 .72,.72 .2,.13
    out black flat tube .46,.86 .34,.8 .07,.04
    out coat-8 top disc .48,.91 .11,.08
    """,
    "cow": """
    out coat-35 flat tube -.84,1.25 -.97,.95 -.94,.5 .07,.08
    out coat-35 side tube -.5,.8 -.56,.4 -.5,.06 .26,.11
    out coat-35 side tube .64,.8 .66,.4 .7,.06 .22,.11
    out pink  flat disc -.36,.72 .16,.12
    out coat  side tube -.66,.9 -.72,.45 -.68,.06 .34,.12
    out coat  side tube .52,.8 .5,.4 .48,.06 .24,.12
    out coat  top  tube .66,1.1 1.08,1.34 .6,.36
    out coat  top  curve -.88,.9 -.88,1.34 -.4,1.38 .5,1.36 .86,1.34 .9,.95 .5,.72 -.5,.74
    out coat  top  tube 1.06,1.38 1.4,1.14 .32,.22
    out pink  flat disc 1.42,1.12 .1,.1
    out coat-40 flat tube 1,1.42 .8,1.4 .1,.05
    out horn  flat tube 1.06,1.5 1.12,1.66 .06,.03
    in  spot  top  soft -.7,1.3 -.3,1.34 -.24,1.1 -.5,.95 -.76,1.1
    in  spot  top  soft .1,1.33 .5,1.33 .5,1.1 .2,1.04
    in  black flat disc 1.16,1.38 .03,.03
    """,
    "horse": """
    out coat-55 flat tube -.8,1.42 -1,1.15 -.98,.6 .12,.2
    out coat-35 side tube -.5,1.05 -.62,.55 -.5,.06 .3,.11
    out coat-35 side tube .6,1.05 .7,.56 .62,.06 .24,.1
    out coat  side tube -.62,1.15 -.78,.58 -.74,.06 .4,.12
    out coat  side tube .5,1.05 .48,.55 .42,.06 .28,.11
    out coat  top  tube .55,1.24 1,1.92 .62,.28
    out coat  top  curve -.84,1.1 -.84,1.46 -.45,1.54 .3,1.46 .7,1.5 .84,1.15 .4,.9 -.4,.94
    out coat  top  tube .98,1.94 1.32,1.64 .3,.17
    out coat-20 flat poly .92,2.04 .95,2.22 1.05,2.04
    out coat-55 flat tube .4,1.5 .62,1.78 .88,2.08 .1,.12
    in  black flat disc 1.08,1.92 .028,.028
    """,
    "bench": """
    out metal side box -.72,0 -.64,.85
    out metal side box .64,0 .72,.85
    out wood  top  box -.85,.42 .85,.53
    out wood-8 top box -.85,.58 .85,.69
    out wood  top  box -.85,.74 .85,.85
    """,
    "traffic light": """
    out metal side box -.05,0 .05,2.5
    out black side box -.17,2.4 .17,3.35
    in  green flat disc 0,2.57 .11,.11
    in  amber flat disc 0,2.87 .11,.11
    in  red   flat disc 0,3.17 .11,.11
    """,
    "stop sign": """
    out steel side box -.035,0 .035,2
    out white flat poly .37,2.25 .15,2.47 -.15,2.47 -.37,2.25 -.37,1.95 -.15,1.73 .15,1.73 .37,1.95
    in  red   top  poly .33,2.24 .13,2.43 -.13,2.43 -.33,2.24 -.33,1.96 -.13,1.77 .13,1.77 .33,1.96
    in  white flat box -.26,2.02 -.17,2.18
    in  white flat box -.12,2.02 -.03,2.18
    in  white flat box .03,2.02 .12,2.18
    in  white flat box .17,2.02 .26,2.18
    """,
    "fire hydrant": """
    out paint-30 side box -.2,0 .2,.09
    out paint-15 top  box -.28,.4 .28,.56
    out paint side soft -.15,.05 -.15,.6 -.12,.74 0,.82 .12,.74 .15,.6 .15,.05
    in  paint+30 flat disc 0,.48 .085,.085
    """,
    "boat": """
    out wood  flat box -.05,.5 .05,5.2
    out sail  side poly -.15,.95 -.15,5 -1.9,1
    out sail+20 side poly .15,.95 .12,4.6 1.7,1
    out paint top  soft -2,.72 2.2,.78 1.6,.05 -1.5,0
    in  paint+50 flat poly -1.75,.58 1.9,.62 2,.7 -1.8,.66
    """,
    "kite": """
    out sail  flat tube 0,-.6 .12,-.85 -.06,-1.1 .1,-1.4 .05,.02
    out paint side poly 0,.6 .45,.15 0,-.6 -.45,.15
    in  sail  flat poly 0,.6 .45,.15 0,.15
    in  sail  flat poly 0,.15 0,-.6 -.45,.15
    """,
}


def thing(rng: Generator, kind: str) -> list[Part]:
    """A flying bird, dog, sheep, cow, horse, bench, sailboat, kite, or an object of the street."""
    tones: dict[str, Color] = {"metal": (70, 73, 76), "steel": STEEL, "black": (38, 40, 42)}
    tones |= {"white": WHITE, "pink": (204, 156, 144), "horn": (216, 206, 180)}
    tones |= {"green": (90, 220, 120), "amber": (236, 180, 60), "red": RED_LAMP}
    tones |= {"wood": vary(rng, (138, 92, 54)), "paint": vary(rng, *PAINTS[:8])}
    tones["sail"] = vary(rng, *(PAINTS[:7] if kind == "kite" else (WHITE, WHITE, *PAINTS[:4])))
    tones["coat"] = coat = vary(rng, *_COATS.get(kind, (WHITE,)))
    tones["spot"] = WHITE if sum(coat) < 300 else (46, 40, 40)
    if kind == "traffic light":
        lit = pick(rng, ("green", "amber", "red"))
        for name in {"green", "amber", "red"} - {lit}:
            tones[name] = darker(tones[name], 0.7)
    return sketch(_THINGS[kind], **tones)


def bus(rng: Generator) -> list[Part]:
    """A bus 10 m long, seen from the side."""
    paint, glass = vary(rng, *PAINTS[:9]), vary(rng, GLASS, amount=8)
    body = """
    out paint top  soft -5,.35 -5.05,2.9 -4.9,3.15 4.7,3.15 5,2.95 5.1,1.4 5.1,.35
    in  paint+50 flat box -4.98,.75 5.04,1
    in  glass+10 top poly 4.1,1.3 4.1,2.75 4.85,2.75 5.02,1.3
    in  glass-20 side box 2.9,.45 3.9,2.75
    """
    parts = sketch(body, paint=paint, glass=glass)
    for index in range(6):
        left = -4.8 + index * 1.25
        parts.append(detail(box(left, 1.45, left + 1.12, 2.7), glass, "top"))
    return [*parts, *_road_wheel(-3.2, 0.5), *_road_wheel(2.2, 0.5)]
