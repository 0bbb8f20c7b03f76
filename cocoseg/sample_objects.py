"""The shapes of the sample's objects: coloured polygons in metres, x to the right, y up.

Every function draws one object that faces right and stands on y = 0 around x = 0, as a list of parts
that are painted in order. Which part shows an object's silhouette is part of its drawing, so that the
annotated polygons and the picture cannot drift apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

from numpy.random import Generator

Point = tuple[float, float]
Polygon = Sequence[Point]
Colour = tuple[int, int, int]
Shading = Literal["flat", "side", "top"]
Item = TypeVar("Item")

# Clothes and vehicles share these colours, so that a class must be learned by its shape.
PAINTS: tuple[Colour, ...] = (
    (176, 38, 36), (206, 92, 38), (219, 170, 58), (66, 116, 62), (38, 104, 116), (42, 76, 142),
    (98, 62, 122), (190, 98, 120), (224, 222, 214), (168, 172, 176), (92, 98, 106), (40, 42, 48),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (46, 58, 88), (70, 88, 122), (38, 38, 44), (96, 92, 86), (140, 120, 92), (66, 58, 50),
)  # fmt: skip
SKINS: tuple[Colour, ...] = ((236, 190, 160), (214, 160, 124), (168, 114, 80), (110, 72, 52))
HAIRS: tuple[Colour, ...] = (
    (34, 26, 24),
    (78, 50, 32),
    (130, 86, 46),
    (196, 160, 96),
    (128, 124, 120),
)
TYRE: Colour = (34, 34, 37)
STEEL: Colour = (150, 154, 160)
GLASS: Colour = (62, 80, 96)


@dataclass(frozen=True, slots=True)
class Part:
    """One polygon of an object. `colour` None: silhouette only, such as the air between spokes."""

    polygon: Polygon
    colour: Colour | None
    shading: Shading = "flat"
    outlined: bool = True


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a person's joints are; of each pair, the limb farther from the viewer comes first."""

    hip: Point
    neck: Point
    elbows: tuple[Point, Point]
    hands: tuple[Point, Point]
    knees: tuple[Point, Point]
    feet: tuple[Point, Point]
    sideways: bool


def pick(rng: Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def chance(rng: Generator, probability: float) -> bool:
    return float(rng.random()) < probability


def between(rng: Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with `share` (0 to 1) of `second` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def lighter(colour: Colour, share: float) -> Colour:
    return mix(colour, (255, 255, 255), share)


def darker(colour: Colour, share: float) -> Colour:
    return mix(colour, (12, 14, 22), share)


def vary(rng: Generator, colour: Colour, amount: int = 14) -> Colour:
    """A neighbour of `colour`, up to `amount` levels away in each channel."""
    red, green, blue = (
        min(255, max(0, value + int(step)))
        for value, step in zip(colour, rng.integers(-amount, amount + 1, 3), strict=True)
    )
    return red, green, blue


@cache
def points(text: str) -> tuple[Point, ...]:
    """Points in the notation of SVG's `points` attribute: `"0,.3 1.2,.5 …"`."""
    return tuple((float(x), float(y)) for x, y in (pair.split(",") for pair in text.split()))


@cache
def smooth(text: str, rounds: int = 2) -> tuple[Point, ...]:
    """The closed polygon `text` with its corners cut `rounds` times (Chaikin's algorithm)."""
    polygon = points(text)
    for _ in range(rounds):
        cut: list[Point] = []
        for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            cut.append((0.8 * ax + 0.2 * bx, 0.8 * ay + 0.2 * by))
            cut.append((0.2 * ax + 0.8 * bx, 0.2 * ay + 0.8 * by))
        polygon = tuple(cut)
    return polygon


@cache
def _unit_circle(sides: int) -> tuple[Point, ...]:
    angles = [2 * math.pi * side / sides for side in range(sides)]
    return tuple((math.cos(angle), math.sin(angle)) for angle in angles)


def ellipse(x: float, y: float, rx: float, ry: float, sides: int = 20) -> Polygon:
    return [(x + rx * cosine, y + ry * sine) for cosine, sine in _unit_circle(sides)]


def disc(x: float, y: float, radius: float, sides: int = 20) -> Polygon:
    return ellipse(x, y, radius, radius, sides)


def ring(x: float, y: float, outer: float, inner: float) -> Polygon:
    """A ring as one polygon with a slit, since a polygon has no holes."""
    there, back = list(disc(x, y, outer, 32)), list(disc(x, y, inner, 32))
    return [*there, there[0], back[0], *reversed(back)]


def box(left: float, bottom: float, right: float, top: float) -> Polygon:
    return [(left, bottom), (right, bottom), (right, top), (left, top)]


def band(path: Sequence[Point], widths: Sequence[float]) -> Polygon:
    """A limb or tube: the line through `path`, `widths[i]` thick at `path[i]`, with round ends."""
    left: list[Point] = []
    right: list[Point] = []
    last = len(path) - 1
    for index, ((x, y), width) in enumerate(zip(path, widths, strict=True)):
        (ax, ay), (bx, by) = path[max(index - 1, 0)], path[min(index + 1, last)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        dx, dy = (bx - ax) / length * width / 2, (by - ay) / length * width / 2
        if index == 0:
            left.append((x - 0.75 * dx - 0.55 * dy, y - 0.75 * dy + 0.55 * dx))
            right.append((x - 0.75 * dx + 0.55 * dy, y - 0.75 * dy - 0.55 * dx))
        left.append((x - dy, y + dx))
        right.append((x + dy, y - dx))
        if index == last:
            left.append((x + 0.75 * dx - 0.55 * dy, y + 0.75 * dy + 0.55 * dx))
            right.append((x + 0.75 * dx + 0.55 * dy, y + 0.75 * dy - 0.55 * dx))
    return [*left, *reversed(right)]


def tube(ax: float, ay: float, bx: float, by: float, width: float) -> Polygon:
    return band([(ax, ay), (bx, by)], [width, width])


def moved(parts: list[Part], x: float, y: float) -> list[Part]:
    return [
        Part(
            [(px + x, py + y) for px, py in part.polygon], part.colour, part.shading, part.outlined
        )
        for part in parts
    ]


def _joint(start: Point, end: Point, upper: float, lower: float, forward: bool) -> Point:
    """Knee or elbow between two ends: where circles of the two bones' lengths cross."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    distance = min(math.hypot(dx, dy), 0.999 * (upper + lower)) or 0.001
    along = (upper**2 - lower**2 + distance**2) / (2 * distance)
    across = math.sqrt(max(upper**2 - along**2, 0.0)) * (1 if forward else -1)
    dx, dy = dx / distance, dy / distance
    return start[0] + along * dx - across * dy, start[1] + along * dy + across * dx


def _standing(rng: Generator) -> Pose:
    spread, lean = between(rng, 0.07, 0.15), between(rng, -0.04, 0.04)
    hands, elbows = [], []
    for side in (-1, 1):
        gesture = pick(rng, ("down", "down", "down", "hip", "chest", "wave"))
        hand = {
            "down": (side * between(rng, 0.24, 0.34), 0.82),
            "hip": (side * 0.19, 0.98),
            "chest": (side * 0.1, 1.22),
            "wave": (side * between(rng, 0.3, 0.5), between(rng, 1.6, 1.9)),
        }[gesture]
        hands.append((hand[0] + lean, hand[1]))
        shoulder = (side * 0.2 + lean, 1.4)
        elbows.append(_joint(shoulder, hands[-1], 0.3, 0.28, forward=side < 0))
    feet = ((-spread, 0.07), (spread, 0.07))
    knees = ((-spread * 0.95 - 0.01, 0.5), (spread * 0.95 + 0.01, 0.5))
    return Pose(
        (0.0, 0.92), (lean, 1.45), (elbows[0], elbows[1]), (hands[0], hands[1]), knees, feet, False
    )


def _walking(rng: Generator) -> Pose:
    stride, swing = between(rng, 0.16, 0.38), between(rng, 0.1, 0.34)
    swing = swing if chance(rng, 0.5) else -swing
    front = 1 if swing < 0 else -1
    feet = (
        (-front * stride, 0.07 if front < 0 else 0.13),
        (front * stride, 0.13 if front < 0 else 0.07),
    )
    hip, neck = (0.0, 0.91), (between(rng, 0.02, 0.08), 1.44)
    hands = ((-swing, 0.9 + abs(swing) * 0.3), (swing, 0.9 + abs(swing) * 0.3))
    knees = tuple(_joint(hip, foot, 0.45, 0.44, forward=True) for foot in feet)
    elbows = tuple(_joint((neck[0], 1.38), hand, 0.3, 0.28, forward=False) for hand in hands)
    return Pose(hip, neck, (elbows[0], elbows[1]), hands, (knees[0], knees[1]), feet, True)


def _riding(hip: Point, neck: Point, hand: Point, feet: tuple[Point, Point]) -> Pose:
    far_hand = (hand[0] + 0.03, hand[1] + 0.02)
    elbows = tuple(
        _joint((neck[0], neck[1] - 0.06), end, 0.32, 0.3, False) for end in (far_hand, hand)
    )
    knees = tuple(_joint(hip, foot, 0.45, 0.44, True) for foot in feet)
    return Pose(
        hip, neck, (elbows[0], elbows[1]), (far_hand, hand), (knees[0], knees[1]), feet, True
    )


def person(rng: Generator, pose: Pose | None = None, helmet: bool = False) -> list[Part]:
    """Someone 1.75 m tall, standing or walking when no pose is given."""
    if pose is None:
        pose = _walking(rng) if chance(rng, 0.5) else _standing(rng)
        grown = True
    else:
        grown = False
    skin, hair = vary(rng, pick(rng, SKINS), 8), vary(rng, pick(rng, HAIRS), 8)
    top, trousers = vary(rng, pick(rng, PAINTS)), vary(rng, pick(rng, TROUSERS))
    shoes = vary(rng, pick(rng, ((40, 38, 40), (90, 62, 44), (210, 208, 204))))
    long_sleeves, shorts, skirt = chance(rng, 0.6), chance(rng, 0.22), grown and chance(rng, 0.2)
    long_hair, cap, backpack = chance(rng, 0.4), chance(rng, 0.15), chance(rng, 0.2)
    build = between(rng, 0.9, 1.15)
    (hx, hy), (nx, ny) = pose.hip, pose.neck
    axis = math.hypot(nx - hx, ny - hy)
    ux, uy = (nx - hx) / axis, (ny - hy) / axis
    wide = (0.25 if pose.sideways else 0.37) * build

    def arm(index: int, shade: float) -> list[Part]:
        side = 0.0 if pose.sideways else (-1, 1)[index] * wide * 0.46
        shoulder = (nx - ux * 0.07 + side * uy, ny - uy * 0.07 - side * ux)
        elbow, hand = pose.elbows[index], pose.hands[index]
        sleeve, bare = darker(top, shade), darker(skin, shade)
        whole = band([shoulder, elbow, hand], [0.125 * build, 0.1, 0.075])
        parts = [
            Part(disc(*hand, 0.052, 10), bare),
            Part(whole, sleeve if long_sleeves else bare, "side"),
        ]
        if not long_sleeves:
            parts.append(Part(band([shoulder, elbow], [0.14 * build, 0.12]), sleeve, "side"))
        return parts

    def leg(index: int, shade: float) -> list[Part]:
        side = 0.0 if pose.sideways else (-1, 1)[index] * 0.09 * build
        hip, knee, foot = (hx + side, hy), pose.knees[index], pose.feet[index]
        toe = 0.17 if pose.sideways else (-1, 1)[index] * 0.05
        cloth, bare = darker(trousers, shade), darker(skin, shade)
        whole = band([hip, knee, foot], [0.19 * build, 0.145, 0.095])
        sole = [(foot[0] - 0.03, foot[1]), (foot[0] + toe, foot[1] - 0.03)]
        parts = [
            Part(band(sole, [0.115, 0.075]), darker(shoes, shade), "top"),
            Part(whole, bare if shorts or skirt else cloth, "side"),
        ]
        if shorts:
            parts.append(Part(band([hip, knee], [0.2 * build, 0.165]), cloth, "side"))
        return parts

    parts = [
        *arm(0, 0.22 if pose.sideways else 0.0),
        *leg(0, 0.25 if pose.sideways else 0.0),
        *leg(1, 0.0),
    ]
    if backpack and pose.sideways:
        pack = [
            (hx - uy * 0.19 + ux * share, hy + ux * 0.19 + uy * share) for share in (0.16, 0.42)
        ]
        parts.append(Part(band(pack, [0.2, 0.18]), vary(rng, pick(rng, PAINTS)), "side"))
    if skirt:
        flare = between(rng, 0.24, 0.32)
        hem = [
            (hx - flare, 0.48),
            (hx + flare, 0.48),
            (hx + wide * 0.45, hy + 0.12),
            (hx - wide * 0.45, hy + 0.12),
        ]
        parts.append(Part(hem, vary(rng, pick(rng, PAINTS)), "side"))
    spine = [(hx + ux * axis * share, hy + uy * axis * share) for share in (0.0, 0.3, 0.72, 0.92)]
    torso = band(spine, [wide * 0.92, wide * 0.86, wide * 1.08, wide * 0.86])
    head = (nx + ux * 0.17 + 0.02 * pose.sideways, ny + 0.175)
    parts += [
        Part(torso, top, "side"),
        Part(tube(nx - ux * 0.05, ny - 0.04, head[0], head[1], 0.09), darker(skin, 0.15), "flat"),
    ]
    if long_hair and not pose.sideways:
        parts.append(Part(ellipse(head[0], head[1] - 0.05, 0.125, 0.19, 16), hair, "side"))
    parts.append(Part(ellipse(*head, 0.098, 0.128, 18), skin, "side"))
    crown = "-.11,-.02 -.115,.07 -.07,.14 .02,.15 .095,.11 .11,.05 .05,.06 -.03,.05 -.07,-.03"
    if pose.sideways:
        crown = "-.12,-.09 -.13,.05 -.08,.14 .02,.15 .09,.12 .1,.07 .02,.06 -.02,-.01 -.05,-.1"
        if long_hair:
            crown = "-.13,-.2 -.14,.05 -.08,.14 .02,.15 .09,.12 .1,.07 .02,.06 -.01,-.02 -.03,-.2"
    colour = hair
    if helmet or cap:
        crown = "-.13,-.02 -.135,.08 -.08,.165 .03,.17 .11,.12 .125,.05 .16,.03 .1,.015"
        colour = vary(rng, pick(rng, PAINTS))
    parts.append(Part([(head[0] + x, head[1] + y) for x, y in smooth(crown, 1)], colour, "side"))
    return [*parts, *arm(1, 0.0)]


def bicycle(rng: Generator) -> list[Part]:
    """A diamond frame, 1.75 m long; its silhouette has filled wheels and frame, as in COCO."""
    frame, tyre = vary(rng, pick(rng, PAINTS)), vary(rng, TYRE, 6)
    tube_width = between(rng, 0.038, 0.055)
    step_through = chance(rng, 0.25)
    rear, front, crank, seat, head = (
        (-0.52, 0.34),
        (0.54, 0.34),
        (-0.09, 0.29),
        (-0.25, 0.8),
        (0.37, 0.84),
    )
    parts: list[Part] = []
    for x, y in (rear, front):
        parts.append(Part(disc(x, y, 0.345), None))
        for side in range(7):
            sine, cosine = math.sin(side * math.pi / 7), math.cos(side * math.pi / 7)
            spoke = tube(
                x - 0.31 * cosine, y - 0.31 * sine, x + 0.31 * cosine, y + 0.31 * sine, 0.007
            )
            parts.append(Part(spoke, (172, 174, 178), outlined=False))
        parts.append(Part(ring(x, y, 0.318, 0.288), STEEL, outlined=False))
        parts.append(Part(ring(x, y, 0.345, 0.305), tyre, outlined=False))
        parts.append(Part(disc(x, y, 0.04, 10), STEEL, outlined=False))
    parts.append(Part([rear, crank, (0.42, 0.66), (0.37, 0.8), seat], None))
    top_tube = (*crank, *head) if step_through else (-0.24, 0.74, 0.38, 0.77)
    for ax, ay, bx, by in (
        (*rear, *crank),
        (*rear, *seat),
        (*crank, 0.4, 0.66),
        (*crank, *seat),
        top_tube,
    ):
        parts.append(Part(tube(ax, ay, bx, by, tube_width), frame, "top", outlined=False))
    parts += [
        Part(band([head, (0.42, 0.66), front], [0.055, 0.05, 0.04]), frame, "side"),
        Part(tube(*seat, -0.27, 0.88, 0.035), STEEL),
        Part(
            smooth("-.42,.93 -.42,.88 -.3,.87 -.12,.89 -.12,.92 -.26,.93", 1), (42, 36, 34), "top"
        ),
        Part(disc(*crank, 0.09, 14), darker(STEEL, 0.4), outlined=False),
        Part(tube(crank[0], crank[1], 0.0, 0.14, 0.03), STEEL, outlined=False),
        Part(tube(-0.05, 0.13, 0.06, 0.13, 0.035), TYRE),
    ]
    drop = chance(rng, 0.3)
    bar = (
        [(0.37, 0.84), (0.35, 0.94), (0.5, 0.95), (0.53, 0.86), (0.45, 0.82)]
        if drop
        else [(0.37, 0.84), (0.34, 1.0), (0.24, 1.02)]
    )
    parts.append(Part(band(bar, [0.04] * len(bar)), (48, 48, 52)))
    if chance(rng, 0.3):
        parts += [Part(box(0.4, 0.78, 0.66, 0.98), (136, 102, 62), "top")]
    return parts


def bicycle_rider(rng: Generator) -> list[Part]:
    pedal = between(rng, 0, 6.28)
    crank = (-0.09, 0.31)
    turn = (0.15 * math.cos(pedal), 0.15 * math.sin(pedal))
    feet = ((crank[0] - turn[0], crank[1] - turn[1]), (crank[0] + turn[0], crank[1] + turn[1]))
    neck = (between(rng, 0.0, 0.14), between(rng, 1.42, 1.5))
    return person(rng, _riding((-0.26, 1.0), neck, (0.32, 1.04), feet), helmet=chance(rng, 0.5))


def motorcycle(rng: Generator) -> list[Part]:
    """A motorcycle about 2.1 m long: roadster, cruiser or scooter."""
    kind = pick(rng, ("roadster", "roadster", "sport", "cruiser", "scooter"))
    paint = vary(rng, pick(rng, PAINTS))
    radius = 0.26 if kind == "scooter" else between(rng, 0.3, 0.34)
    rear, front = (-0.7, radius), (0.72 if kind != "cruiser" else 0.86, radius)
    metal, black = vary(rng, (128, 130, 136)), vary(rng, (42, 42, 46), 6)
    parts: list[Part] = []
    for x, y in (rear, front):
        parts += [
            Part(disc(x, y, radius, 24), TYRE),
            Part(disc(x, y, radius * 0.66, 20), (96, 98, 102), "top", outlined=False),
            Part(disc(x, y, radius * 0.57, 20), (58, 59, 62), outlined=False),
        ]
        for side in range(3):
            sine, cosine = math.sin(0.4 + side * math.pi / 3), math.cos(0.4 + side * math.pi / 3)
            reach = radius * 0.6
            spoke = tube(
                x - reach * cosine, y - reach * sine, x + reach * cosine, y + reach * sine, 0.03
            )
            parts.append(Part(spoke, STEEL, outlined=False))
        parts.append(Part(disc(x, y, radius * 0.22, 12), metal, outlined=False))
    head = (0.42, 0.86)
    if kind == "scooter":
        return [
            *parts,
            Part(tube(*front, 0.5, 0.95, 0.07), STEEL),
            Part(
                smooth(
                    "-1,.6 -.95,.8 -.4,.84 -.15,.72 -.1,.42 .2,.34 .3,.4 .42,.95 .55,.9 .6,.5 .45,.22 -.2,.2 -.55,.24 -.9,.36"
                ),
                paint,
                "top",
            ),
            Part(smooth("-.95,.8 -.9,.9 -.3,.9 -.2,.8", 1), black, "top"),
            Part(band([(0.5, 0.9), (0.46, 1.05), (0.34, 1.07)], [0.08, 0.06, 0.05]), black),
            Part(disc(0.56, 0.92, 0.08, 14), (244, 238, 206)),
            Part(smooth("-1.03,.62 -1,.74 -.92,.72 -.94,.6", 1), (190, 30, 28)),
            Part(smooth("1,.42 .9,.56 .72,.6 .54,.54 .5,.44 .72,.5", 1), paint, "top"),
        ]
    parts += [
        Part(band([(-0.1, 0.4), rear], [0.12, 0.07]), metal, "top"),
        Part(smooth("-.3,.28 -.34,.6 -.1,.7 .25,.7 .36,.5 .3,.26 .1,.2 -.2,.2"), black, "top"),
        Part(disc(-0.08, 0.38, 0.14, 16), metal, "top", outlined=False),
        Part(
            band([(0.08, 0.42), (0.2, 0.68)], [0.2, 0.22]),
            darker(metal, 0.15),
            "side",
            outlined=False,
        ),
    ]
    for fin in range(4):
        height = 0.47 + 0.055 * fin
        parts.append(
            Part(
                tube(0.02 + 0.03 * fin, height, 0.24 + 0.03 * fin, height - 0.03, 0.016),
                (60, 61, 66),
                outlined=False,
            )
        )
    parts += [
        Part(
            band(
                [
                    (0.26, 0.46),
                    (0.2, 0.22),
                    (-0.2, 0.2),
                    (-0.86, 0.3 if kind == "cruiser" else 0.42),
                ],
                [0.06, 0.07, 0.09, 0.12],
            ),
            STEEL,
            "top",
        ),
        Part(tube(front[0], front[1], *head, 0.075), STEEL, "side"),
        Part(
            band([(-0.62, 0.64), (-0.1, 0.62), (0.4, 0.74)], [0.06, 0.1, 0.1]), darker(paint, 0.45)
        ),
        Part(smooth("-.12,.7 -.08,.9 .1,1 .34,.98 .46,.88 .4,.74 .1,.68"), paint, "top"),
    ]
    tank_shine = smooth("-.02,.88 .1,.95 .32,.94 .36,.9 .1,.9", 1)
    parts.append(Part(tank_shine, lighter(paint, 0.4), outlined=False))
    if kind == "sport":
        parts += [
            Part(smooth("-.95,.98 -.88,1.04 -.4,.9 -.1,.84 -.1,.72 -.5,.72"), paint, "top"),
            Part(smooth("-.6,.93 -.12,.86 -.1,.79 -.5,.8", 1), black),
            Part(
                smooth("0,.28 .02,.62 .3,.86 .46,1.08 .62,1.02 .76,.84 .62,.64 .5,.36 .2,.2"),
                paint,
                "top",
            ),
            Part(smooth("0,.4 .1,.52 .5,.56 .46,.42 .2,.3", 1), darker(paint, 0.5), outlined=False),
            Part(smooth(".42,1.06 .4,1.2 .5,1.18 .64,1 .58,.96", 1), (118, 138, 150)),
        ]
    else:
        seat = (
            "-.98,.82 -.9,.94 -.5,.84 -.12,.82 -.08,.72 -.6,.68"
            if kind == "roadster"
            else "-.9,.78 -.86,.98 -.7,.86 -.5,.7 -.16,.74 -.1,.66 -.8,.6"
        )
        parts += [
            Part(smooth(seat), black, "top"),
            Part(disc(head[0] + 0.14, 0.86, 0.105, 16), (240, 234, 206), "top"),
        ]
        parts.append(Part(disc(head[0] + 0.11, 0.86, 0.105, 16), metal, "top"))
    fender = [
        (front[0] + math.cos(a) * (radius + 0.02), front[1] + math.sin(a) * (radius + 0.02))
        for a in (0.5, 1.1, 1.7, 2.4)
    ]
    tail = [
        (rear[0] + math.cos(a) * (radius + 0.03), rear[1] + math.sin(a) * (radius + 0.03))
        for a in (0.9, 1.6, 2.3, 2.8)
    ]
    bar = [(0.4, 0.94), (0.36, 1.08), (0.22, 1.12 if kind == "cruiser" else 1.06)]
    return [
        *parts,
        Part(band(fender, [0.03, 0.06, 0.06, 0.03]), paint, "top"),
        Part(band(tail, [0.05, 0.07, 0.06, 0.04]), paint, "top"),
        Part(disc(-0.97, 0.8, 0.05, 10), (196, 34, 30)),
        Part(band(bar, [0.06, 0.05, 0.055]), black),
        Part(tube(0.36, 1.06, 0.42, 1.2, 0.02), black),
        Part(ellipse(0.42, 1.21, 0.05, 0.035, 10), metal),
    ]


def motorcycle_rider(rng: Generator) -> list[Part]:
    neck = (between(rng, -0.12, 0.08), between(rng, 1.36, 1.46))
    feet = ((-0.05, 0.36), (0.0, 0.32))
    return person(rng, _riding((-0.36, 0.96), neck, (0.24, 1.08), feet), helmet=chance(rng, 0.75))


def _road_wheel(x: float, radius: float) -> list[Part]:
    parts = [
        Part(disc(x, radius, radius, 22), TYRE),
        Part(disc(x, radius, radius * 0.66, 18), (178, 181, 186), "top", outlined=False),
        Part(disc(x, radius, radius * 0.54, 18), (84, 86, 92), outlined=False),
    ]
    for side in range(5):
        angle = 0.3 + side * 2 * math.pi / 5
        end = (x + radius * 0.58 * math.cos(angle), radius + radius * 0.58 * math.sin(angle))
        parts.append(Part(tube(x, radius, *end, radius * 0.17), (182, 185, 190), outlined=False))
    return [*parts, Part(disc(x, radius, radius * 0.14, 10), (90, 92, 98), outlined=False)]


@dataclass(frozen=True)
class _CarBody:
    """A car from the side, in the notation of `points`."""

    outline: str
    windows: tuple[str, ...]
    wheels: tuple[float, float]
    radius: float


_CAR_BODIES = (
    _CarBody(
        "-2.22,.3 -2.26,.7 -2.16,.95 -1.5,1 -1,1.36 -.6,1.46 .2,1.46 .55,1.36 1.1,1 1.95,.88 2.22,.74 2.26,.38 2.18,.22 -2.14,.22",
        ("-1.3,1 -.92,1.32 -.62,1.38 -.38,1.38 -.38,1", "-.28,1 -.28,1.38 .2,1.38 .46,1.3 .9,1"),
        (-1.36, 1.38),
        0.33,
    ),
    _CarBody(
        "-1.86,.3 -1.9,.84 -1.78,1.08 -1.4,1.42 -1,1.5 .1,1.5 .5,1.38 1.05,1 1.6,.9 1.9,.74 1.94,.36 1.86,.22 -1.8,.22",
        ("-1.6,1.04 -1.3,1.36 -1,1.42 -.5,1.42 -.5,1.02", "-.4,1.02 -.4,1.42 .12,1.42 .42,1.32 .84,1.02"),
        (-1.18, 1.2),
        0.33,
    ),
    _CarBody(
        "-2.2,.42 -2.24,.96 -2.14,1.3 -1.86,1.68 -1.5,1.76 .3,1.74 .7,1.6 1.2,1.16 2,1.06 2.24,.9 2.28,.46 2.2,.3 -2.12,.3",
        ("-2,1.2 -1.78,1.6 -1.16,1.64 -1.16,1.18", "-1.06,1.18 -1.06,1.64 -.3,1.64 -.3,1.18", "-.2,1.18 -.2,1.64 .3,1.62 .6,1.5 .96,1.18"),
        (-1.36, 1.4),
        0.4,
    ),
    _CarBody(
        "-2.3,.36 -2.34,1.3 -2.28,1.86 -2,1.98 1,1.96 1.4,1.74 1.86,1.2 2.2,1.04 2.36,.84 2.38,.42 2.3,.26 -2.22,.26",
        ("-2.1,1.28 -2.06,1.76 -1.2,1.8 -1.2,1.26", "-1.08,1.26 -1.08,1.8 -.1,1.8 -.1,1.26", ".02,1.26 .02,1.8 .96,1.78 1.24,1.62 1.6,1.24"),
        (-1.46, 1.48),
        0.35,
    ),
    _CarBody(
        "-2.5,.46 -2.54,.98 -2.46,1.06 -.9,1.06 -.84,1.1 -.74,1.62 -.5,1.72 .4,1.7 .7,1.6 1.2,1.14 2.2,1.04 2.46,.88 2.5,.5 2.42,.32 -2.4,.32",
        ("-.66,1.14 -.56,1.58 -.06,1.6 -.06,1.14", ".04,1.14 .04,1.6 .4,1.6 .6,1.5 .96,1.14"),
        (-1.56, 1.56),
        0.4,
    ),
)  # fmt: skip


def car(rng: Generator, facing: bool | None = None) -> list[Part]:
    """A car from the side (sedan, hatchback, off-roader, van or pickup), or from the front or back."""
    if facing if facing is not None else chance(rng, 0.2):
        return _car_from_the_front(rng)
    body, paint = pick(rng, _CAR_BODIES), vary(rng, pick(rng, PAINTS))
    glass = vary(rng, GLASS, 10)
    outline = smooth(body.outline)
    left, right = min(x for x, _ in outline), max(x for x, _ in outline)
    sill = min(y for _, y in outline)
    belt = points(body.windows[0])[0][1]
    parts = [Part(outline, paint, "top")]
    shoulder = [
        (left + 0.06, belt - 0.1),
        (right - 0.3, belt - 0.16),
        (right - 0.2, belt - 0.22),
        (left + 0.05, belt - 0.16),
    ]
    parts += [
        Part(shoulder, lighter(paint, 0.3), outlined=False),
        Part(box(left + 0.12, sill, right - 0.12, sill + 0.12), darker(paint, 0.6), outlined=False),
    ]
    for window in body.windows:
        pane = smooth(window, 1)
        bottom, top = min(y for _, y in pane), max(y for _, y in pane)
        start, end = min(x for x, _ in pane), max(x for x, _ in pane)
        middle, height = (start + end) / 2, top - bottom
        shine = [
            (middle - 0.1, bottom + 0.03),
            (middle + 0.08, bottom + 0.03),
            (middle + 0.08 + height * 0.3, top - 0.1),
            (middle - 0.1 + height * 0.3, top - 0.1),
        ]
        parts += [
            Part(pane, glass, "top", outlined=False),
            Part(shine, lighter(glass, 0.3), outlined=False),
        ]
        handle = box(end - 0.3, belt - 0.14, end - 0.12, belt - 0.1)
        parts += [
            Part(
                tube(end + 0.05, sill + 0.18, end + 0.05, belt, 0.018),
                darker(paint, 0.4),
                outlined=False,
            ),
            Part(handle, darker(paint, 0.45), outlined=False),
        ]
    arch = body.radius * 1.2
    for x in body.wheels:
        half = [point for point in disc(x, body.radius, arch, 32) if point[1] >= sill]
        parts += [Part(sorted(half, key=lambda point: point[0]), (22, 22, 26), outlined=False)]
        parts += _road_wheel(x, body.radius)
    nose = max(y for x, y in outline if x > right - 0.25)
    parts += [
        Part(
            smooth(
                f"{right - 0.3},{nose - 0.06} {right - 0.02},{nose - 0.14} {right - 0.02},{nose - 0.28} {right - 0.26},{nose - 0.22}",
                1,
            ),
            (250, 244, 214),
            outlined=False,
        ),
        Part(
            box(left + 0.02, belt - 0.32, left + 0.13, belt - 0.08), (196, 32, 28), outlined=False
        ),
        Part(
            box(right - 0.22, sill + 0.03, right - 0.03, sill + 0.15),
            darker(paint, 0.7),
            outlined=False,
        ),
        Part(
            smooth(
                f"{0.7},{belt + 0.02} {0.74},{belt + 0.14} {0.9},{belt + 0.13} {0.9},{belt + 0.02}",
                1,
            ),
            darker(paint, 0.2),
            outlined=False,
        ),
    ]
    return parts


def _car_from_the_front(rng: Generator) -> list[Part]:
    paint, glass, behind = vary(rng, pick(rng, PAINTS)), vary(rng, GLASS, 10), chance(rng, 0.4)
    tall = between(rng, 1.0, 1.22)
    lamp = (198, 34, 30) if behind else (250, 246, 222)
    shapes = [
        Part(box(-0.86, 0, -0.6, 0.4), TYRE),
        Part(box(0.6, 0, 0.86, 0.4), TYRE),
        Part(ellipse(-0.97, 1.0, 0.1, 0.08, 12), darker(paint, 0.3)),
        Part(ellipse(0.97, 1.0, 0.1, 0.08, 12), darker(paint, 0.3)),
        Part(
            smooth(
                "-.88,.24 -.93,.7 -.86,.92 -.7,1 -.58,1.36 -.4,1.47 .4,1.47 .58,1.36 .7,1 .86,.92 .93,.7 .88,.24 .8,.18 -.8,.18"
            ),
            paint,
            "top",
        ),
        Part(
            smooth("-.62,1 -.5,1.34 -.4,1.38 .4,1.38 .5,1.34 .62,1", 1),
            glass,
            "top",
            outlined=False,
        ),
        Part(points("-.3,1.04 -.12,1.34 .1,1.34 -.08,1.04"), lighter(glass, 0.25), outlined=False),
        Part(points("-.84,.9 .84,.9 .7,.96 -.7,.96"), lighter(paint, 0.3), outlined=False),
        Part(smooth("-.86,.62 -.84,.8 -.56,.76 -.5,.62", 1), lamp, outlined=False),
        Part(smooth(".86,.62 .84,.8 .56,.76 .5,.62", 1), lamp, outlined=False),
        Part(box(-0.86, 0.26, 0.86, 0.42), darker(paint, 0.5), outlined=False),
        Part(box(-0.24, 0.44, 0.24, 0.55), (232, 230, 220), outlined=False),
    ]
    if not behind:
        shapes.insert(
            -2, Part(smooth("-.44,.58 -.4,.76 .4,.76 .44,.58", 1), (36, 37, 42), outlined=False)
        )
    return [
        Part([(x, y * tall) for x, y in part.polygon], part.colour, part.shading, part.outlined)
        for part in shapes
    ]


def airliner(rng: Generator, flying: bool) -> list[Part]:
    """An airliner 36 m long; when it does not fly it stands on its wheels."""
    hull = vary(rng, pick(rng, ((236, 238, 240), (236, 238, 240), (206, 212, 218), *PAINTS[:7])), 6)
    livery, metal = vary(rng, pick(rng, PAINTS)), vary(rng, (172, 178, 186), 8)
    reach = between(rng, 1.2, 3.6) if flying else between(rng, 0.9, 1.6)
    rise = reach * between(rng, 0.6, 1.1)
    parts = [
        Part(
            [(2.5, 4.6), (-2.5, 4.8), (-7.2, 5.2 + rise), (-5.8, 5.2 + rise)],
            darker(metal, 0.15),
            "flat",
        ),
        Part(points("-16.4,5 -13.4,5 -16.8,6.5 -18,6.5"), darker(metal, 0.15)),
        Part(points("-17.4,5.2 -18.9,10.4 -16.6,10.6 -13.2,6.4 -10.6,5.5"), livery, "top"),
    ]
    if not flying:
        for x in (12.6, 12.9, -1.8, -0.6):
            parts += [
                Part(tube(x, 0.5, x, 2.4, 0.36), darker(metal, 0.4)),
                Part(disc(x, 0.62, 0.62, 14), TYRE),
            ]
    fuselage = smooth(
        "-19,5.1 -18.6,5.7 -12,5.8 11,5.8 14.6,5.6 16.8,4.7 18.1,3.6 17.4,2.7 15,2.1 11,1.85 -7,1.85 -11,2.3 -15,3.6"
    )
    parts.append(Part(fuselage, hull, "top"))
    if chance(rng, 0.6):
        parts.append(
            Part(
                points("-16.5,4.1 -14,3.55 15.6,3.55 17.4,3.7 15.8,3.95 -13,3.95"),
                livery,
                outlined=False,
            )
        )
    else:
        parts.append(
            Part(
                smooth("-13.6,3.1 -7,1.9 11,1.88 15,2.15 17,2.75 10,2.7 -8,2.8", 1),
                livery,
                outlined=False,
            )
        )
    for index in range(21):
        x = -10.4 + index * 1.12
        parts.append(Part(box(x, 4.35, x + 0.55, 5.0), (58, 70, 86), outlined=False))
    for x in (-12.4, 13.3):
        parts.append(Part(box(x, 3.5, x + 0.75, 5.1), darker(hull, 0.22), outlined=False))
    engine = [(-0.4, 1.75), (3.6, 1.75)]
    low = 2.9 - reach
    parts += [
        Part(points("14.7,4.75 16.4,4.55 16.0,5.05 15.0,5.3"), (44, 56, 72), outlined=False),
        Part(points("-12.6,4.6 -15.6,4.9 -19.2,4.15 -18,3.9"), metal, "top"),
        Part(
            band([(-1.2, low * 0.5 + 1.0), (2.9, low * 0.5 + 0.9)], [1.0, 1.9]),
            livery if chance(rng, 0.5) else metal,
            "top",
        ),
        Part(ellipse(3.45, low * 0.5 + 0.9, 0.3, 0.85, 14), (46, 50, 58), outlined=False),
        Part([(4.2, 3.0), (-3.8, 2.6), (-8.6, low), (-7.0, low - 0.1)], metal, "top"),
        Part(
            [(4.2, 3.0), (3.2, 2.9), (-7.4, low), (-7.0, low - 0.1)],
            lighter(metal, 0.4),
            outlined=False,
        ),
    ]
    del engine
    return parts


def light_aircraft(rng: Generator, flying: bool) -> list[Part]:
    """A low-wing propeller aircraft 8 m long."""
    paint, livery = (
        vary(rng, pick(rng, (*PAINTS, (236, 236, 232), (240, 236, 214)))),
        vary(rng, pick(rng, PAINTS)),
    )
    reach = between(rng, 0.5, 1.5) if flying else between(rng, 0.3, 0.6)
    parts = [
        Part(
            [(1.3, 1.3), (-0.2, 1.4), (-0.9, 1.9 + reach), (-0.1, 1.9 + reach)], darker(paint, 0.3)
        ),
        Part(points("-3.2,1.7 -2.6,1.7 -3.3,2.3 -3.8,2.3"), darker(paint, 0.3)),
        Part(points("-3.9,1.6 -4.4,2.95 -3.7,3 -2.4,1.95"), livery, "top"),
    ]
    for x in (0.5, 2.5):
        parts += [
            Part(tube(x, 0.2, x - 0.05, 0.9, 0.1), (120, 122, 128)),
            Part(disc(x, 0.24, 0.24, 14), TYRE),
        ]
        parts.append(Part(disc(x, 0.24, 0.1, 10), STEEL, outlined=False))
    parts += [
        Part(ellipse(3.42, 1.25, 0.05, 0.95, 16), (120, 122, 128)),
        Part(
            smooth(
                "-4.1,1.8 -3.8,1.45 -.5,.75 1.8,.66 2.9,.8 3.3,1.1 3.3,1.4 3,1.66 1.9,1.78 1,1.9 -1.4,1.95"
            ),
            paint,
            "top",
        ),
        Part(smooth("1.9,1.74 1.2,2.3 .6,2.42 -.4,2.4 -1.5,1.9 -.6,1.8", 1), GLASS, "top"),
        Part(tube(0.35, 1.8, 0.3, 2.4, 0.08), paint, outlined=False),
        Part(
            points("-3.6,1.62 -.5,1.2 2.8,1.18 3.25,1.26 2.8,1.36 -.5,1.42"), livery, outlined=False
        ),
        Part(smooth("3.3,1 3.7,1.24 3.3,1.46", 1), livery, "top"),
        Part(points("-2.6,1.6 -3.5,1.68 -4.5,1.38 -3.8,1.3"), paint, "top"),
        Part(
            [(1.5, 1.02), (-0.5, 0.94), (-1.3, 0.98 - reach), (-0.2, 0.94 - reach)],
            lighter(paint, 0.15),
            "top",
        ),
        Part(
            [(1.5, 1.02), (1.2, 0.99), (-0.4, 0.95 - reach), (-0.2, 0.94 - reach)],
            lighter(paint, 0.5),
            outlined=False,
        ),
    ]
    return parts


def airplane(rng: Generator, flying: bool, large: bool) -> list[Part]:
    return airliner(rng, flying) if large else light_aircraft(rng, flying)


def bird(rng: Generator) -> list[Part]:
    """A bird on the wing, 0.6 m long, around y = 0."""
    colour = vary(rng, pick(rng, ((232, 232, 228), (60, 58, 60), (120, 100, 84))))
    up = between(rng, 0.1, 0.5)
    wing = [(0.08, 0.02), (-0.05, up * 0.7), (-0.3, up), (-0.2, up * 0.5), (-0.12, 0.02)]
    far = [(x + 0.12, y * 0.8) for x, y in wing]
    return [
        Part(far, darker(colour, 0.3)),
        Part(
            smooth("-.34,.03 -.3,-.03 -.05,-.07 .15,-.03 .25,.02 .2,.08 .1,.06 -.1,.06"),
            colour,
            "top",
        ),
        Part(points(".23,.04 .33,.02 .23,0"), (222, 150, 52)),
        Part(wing, lighter(colour, 0.1), "top"),
    ]


def four_legged(rng: Generator, kind: str) -> list[Part]:
    """A dog, sheep, cow or horse from the side."""
    shoulder, length, thick, neck, coats = {
        "dog": (0.55, 0.6, 0.24, 0.24, ((150, 104, 60), (60, 48, 42), (206, 186, 152))),
        "sheep": (0.8, 0.85, 0.5, 0.24, ((228, 222, 208), (214, 206, 190))),
        "cow": (1.3, 1.5, 0.66, 0.4, ((118, 74, 50), (226, 222, 216), (52, 44, 42))),
        "horse": (1.45, 1.5, 0.56, 0.75, ((112, 66, 40), (70, 46, 36), (200, 190, 176))),
    }[kind]
    coat = vary(rng, pick(rng, coats))
    back, half, leg = shoulder - thick * 0.45, length / 2, thick * 0.26
    swing = between(rng, 0.0, 0.14) * length
    rise = 0.85 if kind in ("dog", "horse") else 0.3
    head = (half + neck * 0.6, back + thick * 0.2 + neck * rise)
    face = darker(coat, 0.75) if kind == "sheep" else coat
    parts = [
        Part(
            band(
                [
                    (-half, back + 0.1 * thick),
                    (-half - 0.2 * length, back + (0.25 if kind == "dog" else -0.5) * thick),
                ],
                [leg * 0.7, leg * 0.5],
            ),
            darker(coat, 0.3),
        )
    ]
    for x, shift, shade in (
        (-half, swing, 0.35),
        (half, -swing, 0.35),
        (-half, -swing, 0.08),
        (half, swing, 0.08),
    ):
        x = x * 0.82
        path = [(x, back - 0.1 * thick), (x + shift * 0.4, back * 0.5), (x + shift, leg * 0.3)]
        parts.append(Part(band(path, [leg * 1.6, leg, leg * 0.8]), darker(face, shade), "side"))
    trunk = [
        (-half, back),
        (-half * 0.3, back - 0.03 * thick),
        (half * 0.4, back - 0.03 * thick),
        (half, back + 0.04 * thick),
    ]
    parts += [
        Part(
            band([(half * 0.85, back + thick * 0.1), head], [thick * 0.7, thick * 0.42]),
            coat,
            "top",
        ),
        Part(band(trunk, [thick * 0.9, thick, thick, thick * 0.92]), coat, "top"),
        Part(
            band(
                [head, (head[0] + neck * 0.55, head[1] - neck * 0.28)], [thick * 0.42, thick * 0.26]
            ),
            face,
            "top",
        ),
        Part(
            tube(
                head[0] - 0.05 * thick,
                head[1] + 0.1 * thick,
                head[0] - 0.12 * thick,
                head[1] + 0.36 * thick,
                0.1 * thick,
            ),
            darker(face, 0.3),
        ),
    ]
    if kind == "horse":
        parts.append(
            Part(
                band(
                    [(half * 0.75, back + thick * 0.5), (head[0] - 0.16, head[1] + 0.1)],
                    [0.18, 0.12],
                ),
                darker(coat, 0.5),
            )
        )
    if kind == "cow":
        for _ in range(3):
            spot = ellipse(
                between(rng, -half, half * 0.8),
                back + between(rng, -0.15, 0.2),
                between(rng, 0.1, 0.24),
                0.13,
                12,
            )
            parts.append(Part(spot, pick(rng, ((240, 236, 228), (48, 40, 38))), outlined=False))
    return parts


def bench(rng: Generator) -> list[Part]:
    wood = vary(rng, (138, 92, 54))
    parts = [Part(box(x, 0, x + 0.08, 0.85), (58, 60, 62), "side") for x in (-0.72, 0.64)]
    for bottom, shade in ((0.42, 0.0), (0.58, 0.08), (0.72, 0.04)):
        parts.append(Part(box(-0.85, bottom, 0.85, bottom + 0.11), darker(wood, shade), "top"))
    return parts


def traffic_light(rng: Generator) -> list[Part]:
    lit = int(rng.integers(3))
    parts = [
        Part(box(-0.05, 0, 0.05, 2.5), (84, 88, 90), "side"),
        Part(box(-0.17, 2.4, 0.17, 3.35), (38, 42, 40), "side"),
    ]
    for index, colour in enumerate(((90, 220, 120), (246, 190, 60), (236, 60, 48))):
        shown = colour if index == lit else darker(colour, 0.7)
        parts.append(Part(disc(0, 2.57 + index * 0.3, 0.11, 14), shown, outlined=False))
    return parts


def stop_sign(rng: Generator) -> list[Part]:
    def octagon(radius: float) -> Polygon:
        angles = [math.pi / 8 + side * math.pi / 4 for side in range(8)]
        return [(radius * math.cos(angle), 2.1 + radius * math.sin(angle)) for angle in angles]

    red = vary(rng, (192, 36, 34), 10)
    parts = [
        Part(box(-0.035, 0, 0.035, 2.0), (140, 144, 148), "side"),
        Part(octagon(0.4), (236, 234, 230)),
    ]
    parts.append(Part(octagon(0.36), red, "top", outlined=False))
    for x in (-0.22, -0.08, 0.06, 0.2):
        parts.append(Part(box(x - 0.045, 2.02, x + 0.045, 2.18), (236, 234, 230), outlined=False))
    return parts


def fire_hydrant(rng: Generator) -> list[Part]:
    paint = vary(rng, pick(rng, ((190, 40, 34), (216, 176, 52), (60, 96, 150))))
    return [
        Part(box(-0.2, 0, 0.2, 0.09), darker(paint, 0.3), "side"),
        Part(box(-0.28, 0.4, 0.28, 0.56), darker(paint, 0.15), "top"),
        Part(smooth("-.15,.05 -.15,.6 -.12,.74 0,.82 .12,.74 .15,.6 .15,.05", 1), paint, "side"),
        Part(disc(0.0, 0.48, 0.085, 12), lighter(paint, 0.3), outlined=False),
    ]


def bus(rng: Generator) -> list[Part]:
    paint, glass = vary(rng, pick(rng, PAINTS[:9])), vary(rng, GLASS, 8)
    parts = [
        Part(smooth("-5,.35 -5.05,2.9 -4.9,3.15 4.7,3.15 5,2.95 5.1,1.4 5.1,.35", 1), paint, "top"),
        Part(box(-4.98, 0.75, 5.04, 1.0), lighter(paint, 0.5), outlined=False),
    ]
    for index in range(7):
        left = -4.8 + index * 1.25
        parts.append(Part(box(left, 1.45, left + 1.12, 2.7), glass, "top", outlined=False))
    parts += [
        Part(
            points("4.1,1.3 4.1,2.75 4.85,2.75 5.02,1.3"),
            lighter(glass, 0.1),
            "top",
            outlined=False,
        ),
        Part(box(2.9, 0.45, 3.9, 2.75), darker(glass, 0.2), "side", outlined=False),
    ]
    for x in (-3.2, 2.2):
        parts += _road_wheel(x, 0.5)
    return parts


def boat(rng: Generator) -> list[Part]:
    """A small sailing boat, 4 m long."""
    hull, sail = (
        vary(rng, pick(rng, PAINTS)),
        vary(rng, pick(rng, ((240, 236, 226), (240, 236, 226), *PAINTS[:4]))),
    )
    return [
        Part(box(-0.05, 0.5, 0.05, 5.2), (120, 96, 70)),
        Part(points("-.15,.95 -.15,5 -1.9,1"), sail, "side"),
        Part(points(".15,.95 .12,4.6 1.7,1"), lighter(sail, 0.2), "side"),
        Part(smooth("-2,.72 2.2,.78 1.6,.05 -1.5,0", 1), hull, "top"),
        Part(points("-1.95,.62 2.05,.68 2.2,.78 -2,.74"), lighter(hull, 0.5), outlined=False),
    ]


def kite(rng: Generator) -> list[Part]:
    """A kite 1.2 m tall around y = 0, with its tail."""
    first, second = vary(rng, pick(rng, PAINTS[:7])), vary(rng, pick(rng, PAINTS[:7]))
    tail = [(0.0, -0.6), (0.12, -0.85), (-0.06, -1.1), (0.1, -1.4)]
    return [
        Part(band(tail, [0.05, 0.04, 0.04, 0.02]), second),
        Part(points("0,.6 .45,.15 0,-.6 -.45,.15"), first, "side"),
        Part(points("0,.6 .45,.15 0,.15"), second, outlined=False),
        Part(points("0,.15 0,-.6 -.45,.15"), second, outlined=False),
    ]
