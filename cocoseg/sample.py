"""A small COCO data set that is drawn, not downloaded: the same bytes on every machine.

    text = annotations_json(images=700, width=256, height=192, seed=0)
    picture = draw_image(image_id=7, width=256, height=192, seed=0)

Both compose the same scene from the image's own random generator; one writes down where things are, the
other paints them. As in real data some annotations are malformed, some images show nothing of
interest, and some show crowds; which images do follows from their ids.

Trigonometry and powers are taken in float64 and rounded to bytes or hundredths of a pixel, because
their last bits differ between processors.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from cocoseg import sample_objects as objects
from cocoseg.randomness import generator
from cocoseg.sample_objects import Part, Point, Polygon, between, chance, mix, pick
from cocoseg.sample_scenery import DETAIL, Light, View, make_light, noise, paint_scenery

# COCO's categories: supercategory, then id and name of each.
_CATEGORIES = {
    "person": "1 person",
    "vehicle": "2 bicycle,3 car,4 motorcycle,5 airplane,6 bus,7 train,8 truck,9 boat",
    "outdoor": "10 traffic light,11 fire hydrant,13 stop sign,14 parking meter,15 bench",
    "animal": "16 bird,17 cat,18 dog,19 horse,20 sheep,21 cow,22 elephant,23 bear,24 zebra,25 giraffe",
    "accessory": "27 backpack,28 umbrella,31 handbag,32 tie,33 suitcase",
    "sports": "34 frisbee,35 skis,36 snowboard,37 sports ball,38 kite,39 baseball bat,"
    "40 baseball glove,41 skateboard,42 surfboard,43 tennis racket",
    "kitchen": "44 bottle,46 wine glass,47 cup,48 fork,49 knife,50 spoon,51 bowl",
    "food": "52 banana,53 apple,54 sandwich,55 orange,56 broccoli,57 carrot,58 hot dog,59 pizza,"
    "60 donut,61 cake",
    "furniture": "62 chair,63 couch,64 potted plant,65 bed,67 dining table,70 toilet",
    "electronic": "72 tv,73 laptop,74 mouse,75 remote,76 keyboard,77 cell phone",
    "appliance": "78 microwave,79 oven,80 toaster,81 sink,82 refrigerator",
    "indoor": "84 book,85 clock,86 vase,87 scissors,88 teddy bear,89 hair drier,90 toothbrush",
}
CATEGORIES: list[dict[str, Any]] = [
    {"supercategory": group, "id": int(entry.split(" ", 1)[0]), "name": entry.split(" ", 1)[1]}
    for group, entries in _CATEGORIES.items()
    for entry in entries.split(",")
]
_CATEGORY_ID: dict[str, int] = {category["name"]: category["id"] for category in CATEGORIES}
_SELECTED = ("person", "bicycle", "car", "motorcycle", "airplane")

# What is special about an image, by its id modulo 40.
_PERIOD = 40
_BUSY, _CROWD, _PARKED, _EMPTY, _ALL_INVALID = 12, 5, 31, 19, 27
_COMPRESSED_CROWDS = (5, 45)  # image ids
# Each kind of malformed annotation is added once, to the image of this id.
_MALFORMED = {
    1: "no segmentation",
    2: "empty segmentation",
    4: "two points",
    7: "odd coordinates",
    9: "not finite",
    11: "negative",
    14: "beyond the width",
    16: "beyond the height",
    21: "size of another image",
    23: "counts too short",
    26: "negative counts",
    34: "undecodable counts",
    37: "no such image",
}
_LEAST_AREA = 30 / 192**2  # of a visible object, in squared picture heights


@dataclass(frozen=True)
class Thing:
    """One object (or one crowd) in a picture: its parts in pixels, painted in order."""

    category: str
    parts: list[Part]
    base: float  # y in pixels where it stands; things are sorted by it, the nearest last
    on_ground: bool = True
    crowd: bool = False


@dataclass(frozen=True)
class Scene:
    image_id: int
    setting: str
    view: View
    light: Light
    things: list[Thing]


def _bounds(polygons: list[Polygon]) -> tuple[float, float, float, float]:
    xs = [x for polygon in polygons for x, _ in polygon]
    ys = [y for polygon in polygons for _, y in polygon]
    return min(xs), min(ys), max(xs), max(ys)


def _placed(
    parts: list[Part],
    x: float,
    y: float,
    scale: float,
    flip: bool,
    angle: float,
    haze: float,
    air: objects.Colour,
) -> list[Part]:
    """`parts` from metres to pixels: their origin at (x, y), turned by `angle` radians."""
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    side = -1.0 if flip else 1.0
    return [
        Part(
            [
                (x + side * (px * cosine - py * sine), y - (px * sine + py * cosine))
                for px, py in part.polygon
            ],
            mix(part.colour, air, haze) if part.colour else None,
            part.shading,
            part.outlined,
        )
        for part in parts
    ]


class _Composer:
    """Places things in a view, avoiding places that are taken."""

    def __init__(self, rng: Generator, view: View, light: Light) -> None:
        self.rng, self.view, self.light = rng, view, light
        self.things: list[Thing] = []
        self._taken: list[tuple[float, float]] = []

    def _free_x(self, half: float, margin: float) -> float:
        """An x where something `half` pixels wide to each side hides little of the others."""
        best, least = 0.0, math.inf
        for _ in range(6):
            x = between(self.rng, margin, 1 - margin) * self.view.width
            hidden = sum(
                max(0.0, min(x + half, right) - max(x - half, left)) for left, right in self._taken
            )
            if hidden < least:
                best, least = x, hidden
        self._taken.append((best - half, best + half))
        return best

    def stand(
        self, group: dict[str, list[Part]], share: float, margin: float = 0.04, crowd: bool = False
    ) -> None:
        """Put a group (a bicycle and its rider) on the ground, its first `share` of the picture high."""
        view, rng = self.view, self.rng
        left, bottom, right, top = _bounds([part.polygon for part in next(iter(group.values()))])
        scale = share * view.height / (top - bottom)
        scale = min(
            scale,
            (0.98 * view.height - view.horizon) / view.camera,
            1.1 * view.width / (right - left),
        )
        x, base = self._free_x((right - left) / 2 * scale, margin), view.ground_at(scale)
        flip, angle = chance(rng, 0.5), math.radians(between(rng, -1.5, 1.5))
        haze = max(0.0, 0.3 - 1.6 * scale / view.height)
        for category, parts in group.items():
            placed = _placed(parts, x, base, scale, flip, angle, haze, self.light.sky_low)
            self.things.append(Thing(category, placed, base, True, crowd))

    def fly(self, category: str, parts: list[Part], share: float, tilt: float) -> None:
        """Put something in the sky, `share` of the picture's width long."""
        view, rng = self.view, self.rng
        left, bottom, right, top = _bounds([part.polygon for part in parts])
        scale = share * view.width / (right - left)
        x = self._free_x((right - left) / 2 * scale, 0.12 if share < 0.6 else 0.35)
        ceiling = min(view.horizon, view.height)
        y = between(rng, 0.12, 0.8) * ceiling if share < 0.4 else between(rng, 0.38, 0.62) * ceiling
        centred = objects.moved(parts, -(left + right) / 2, -(bottom + top) / 2)
        angle, haze = math.radians(between(rng, -0.4, 1.0) * tilt), max(0.0, 0.25 - 0.5 * share)
        placed = _placed(centred, x, y, scale, chance(rng, 0.5), angle, haze, self.light.sky_low)
        self.things.append(Thing(category, placed, y - 10 * view.height, False))

    def crowd(self, category: str) -> None:
        """Many small people, or parked cars, that are annotated as one region."""
        view, rng = self.view, self.rng
        people = category == "person"
        middle, spread = (
            between(rng, 0.35, 0.65) * view.width,
            between(rng, 0.22, 0.42) * view.width,
        )
        parts: list[Part] = []
        base = 0.0
        scales = sorted(
            between(rng, 0.085, 0.125) * view.height for _ in range(34 if people else 12)
        )
        for scale in scales:
            each = objects.person(rng) if people else objects.car(rng)
            x, base = middle + between(rng, -1, 1) * spread, view.ground_at(scale)
            parts += _placed(each, x, base, scale, chance(rng, 0.5), 0.0, 0.1, self.light.sky_low)
        self.things.append(Thing(category, parts, base, True, True))


def _selected(composer: _Composer, category: str, setting: str, share: float) -> None:
    """Place one object of a selected class, `share` of the picture's height (sky: width) big."""
    rng = composer.rng
    if category == "airplane":
        if setting == "airfield" and share > 0.3:
            large = chance(rng, 0.5)
            composer.stand(
                {category: objects.airplane(rng, False, large)}, between(rng, 0.24, 0.36), 0.3
            )
        else:
            large = chance(rng, 0.6)
            tilt = 16 if setting == "sky" else 9
            composer.fly(category, objects.airplane(rng, True, large), share * 1.1, tilt)
    elif category == "person":
        composer.stand({category: objects.person(rng)}, share * 1.15)
    elif category == "car":
        composer.stand({category: objects.car(rng)}, share * 0.75)
    elif category == "bicycle":
        group = {category: objects.bicycle(rng)}
        if chance(rng, 0.45):
            group["person"] = objects.bicycle_rider(rng)
        composer.stand(group, share, 0.2)
    else:
        group = {category: objects.motorcycle(rng)}
        if chance(rng, 0.4):
            group["person"] = objects.motorcycle_rider(rng)
        composer.stand(group, share, 0.2)


_OTHERS = {
    "street": ("traffic light", "stop sign", "bus", "bench", "fire hydrant", "dog"),
    "avenue": ("traffic light", "stop sign", "dog", "fire hydrant"),
    "park": ("bird", "dog", "bench", "horse", "cow", "sheep", "kite"),
    "airfield": ("bird", "sheep", "bus"),
    "sky": ("bird", "kite"),
    "lake": ("boat", "boat", "bird", "bench", "dog"),
}


def _other(composer: _Composer, category: str) -> None:
    """Place one object of a class that is not selected."""
    rng = composer.rng
    if category == "bird":
        for _ in range(int(rng.integers(1, 4))):
            composer.fly(category, objects.bird(rng), between(rng, 0.07, 0.16), 20)
    elif category == "kite":
        composer.fly(category, objects.kite(rng), between(rng, 0.08, 0.16), 30)
    elif category in ("dog", "horse", "cow", "sheep"):
        size = {"dog": 0.2, "sheep": 0.25, "cow": 0.38, "horse": 0.45}[category]
        composer.stand(
            {category: objects.four_legged(rng, category)}, size * between(rng, 0.6, 1.3)
        )
    else:
        draw, low, high = {
            "traffic light": (objects.traffic_light, 0.4, 0.8),
            "stop sign": (objects.stop_sign, 0.35, 0.7),
            "bus": (objects.bus, 0.3, 0.42),
            "bench": (objects.bench, 0.14, 0.28),
            "fire hydrant": (objects.fire_hydrant, 0.14, 0.28),
            "boat": (objects.boat, 0.3, 0.65),
        }[category]
        composer.stand({category: draw(rng)}, between(rng, low, high))


def compose_scene(image_id: int, width: int, height: int, seed: int) -> Scene:
    """What is in the picture, and where; the nearest things come last."""
    rng = generator(seed, "sample", image_id)
    light, special = make_light(rng), image_id % _PERIOD
    draw = float(rng.random())
    main = next(
        name
        for name, upto in (
            ("bicycle", 0.235),
            ("motorcycle", 0.47),
            ("airplane", 0.72),
            ("person", 0.84),
            ("car", 0.97),
            ("nothing", 1.0),
        )
        if draw < upto
    )
    setting = {
        "bicycle": pick(rng, ("street", "street", "avenue", "park", "park", "lake")),
        "motorcycle": pick(rng, ("street", "street", "avenue", "avenue", "park")),
        "airplane": pick(rng, ("airfield", "airfield", "sky", "sky", "sky")),
        "person": pick(rng, ("street", "avenue", "park", "park", "airfield", "lake")),
        "car": pick(rng, ("street", "street", "avenue")),
        "nothing": pick(rng, ("street", "park", "lake", "lake", "sky")),
    }[main]
    if special in (_BUSY, _CROWD, _PARKED):
        setting, main = (
            pick(rng, ("street", "street", "park" if special == _CROWD else "street")),
            "person",
        )
    elif special == _EMPTY:
        setting, main = pick(rng, ("park", "lake")), "nothing"
    elif main == "nothing" and (image_id in _MALFORMED or special == _ALL_INVALID):
        setting, main = "park", "person"
    horizon = between(rng, 0.34, 0.5)
    camera = (
        between(rng, 0.95, 1.3) if main in ("bicycle", "motorcycle") else between(rng, 1.15, 1.9)
    )
    if setting == "sky":
        horizon = between(rng, 0.86, 1.2)
    elif setting == "airfield":
        horizon, camera = between(rng, 0.5, 0.64), between(rng, 1.6, 2.2)
    elif special == _BUSY:
        camera = between(rng, 2.2, 2.8)
    view = View(width, height, horizon * height, camera, between(rng, 0.35, 0.65) * width)
    composer = _Composer(rng, view, light)
    if special == _CROWD:
        composer.crowd("person")
    elif special == _PARKED:
        composer.crowd("car")
    if special == _BUSY:
        for _ in range(11):
            _selected(composer, "person", setting, between(rng, 0.18, 0.42))
        for _ in range(4):
            _selected(composer, "car", setting, between(rng, 0.22, 0.36))
    elif main != "nothing":
        _selected(composer, main, setting, between(rng, 0.42, 0.78))
        for _ in range(int(rng.integers(0, 4))):
            where = ("person", "person", "person", "car", "car", "bicycle", "motorcycle")
            if setting in ("park", "lake"):
                where = (
                    "person",
                    "person",
                    "person",
                    "person",
                    "bicycle",
                    "motorcycle",
                    "airplane",
                )
            elif setting == "airfield":
                where = ("person", "person", "person", "car", "car", "airplane", "motorcycle")
            elif setting == "sky":
                where = ("airplane",)
                if chance(rng, 0.7):
                    continue
            large = chance(rng, 0.45)
            share = between(rng, 0.35, 0.6) if large else between(rng, 0.15, 0.32)
            if setting == "sky" or pick(rng, (True, True, False)):
                share *= 0.8
            _selected(composer, pick(rng, where), setting, share)
    for _ in range(int(rng.integers(1, 4)) if main == "nothing" else int(chance(rng, 0.4))):
        _other(composer, pick(rng, _OTHERS[setting]))
    things = sorted(composer.things, key=lambda thing: thing.base)
    return Scene(image_id, setting, view, light, _visible(things, view))


def _visible(things: list[Thing], view: View) -> list[Thing]:
    """The things of which enough is seen behind the nearer ones and within the picture."""
    owners = Image.new("L", (view.width, view.height))
    draw = ImageDraw.Draw(owners)
    for index, thing in enumerate(things):
        for part in thing.parts:
            if part.outlined:
                draw.polygon(list(part.polygon), fill=index + 1)
    counts = owners.histogram()
    least = max(_LEAST_AREA * view.height**2, 4.0)
    return [thing for index, thing in enumerate(things) if counts[index + 1] >= least]


# Annotations


def _clipped(polygon: Polygon, width: float, height: float) -> list[Point]:
    """The part of a polygon inside the picture (Sutherland and Hodgman, 1974)."""
    kept = list(polygon)
    for axis, sign, bound in ((0, 1.0, 0.0), (0, -1.0, -width), (1, 1.0, 0.0), (1, -1.0, -height)):
        inside = [sign * point[axis] >= bound for point in kept]
        if all(inside):
            continue
        result: list[Point] = []
        for index, (x, y) in enumerate(kept):
            px, py = kept[index - 1]
            if inside[index] != inside[index - 1]:
                before, here = sign * (px, py)[axis] - bound, sign * (x, y)[axis] - bound
                share = before / (before - here)
                crossing = [px + (x - px) * share, py + (y - py) * share]
                crossing[axis] = sign * bound
                result.append((crossing[0], crossing[1]))
            if inside[index]:
                result.append((x, y))
        kept = result
    return kept


def _simplified(polygon: list[Point], tolerance: float) -> list[Point]:
    """Without the corners that lie within `tolerance` pixels of the line past them."""
    kept: list[Point] = []
    for index, (x, y) in enumerate(polygon):
        ax, ay = kept[-1] if kept else polygon[-1]
        bx, by = polygon[(index + 1) % len(polygon)]
        length = math.hypot(bx - ax, by - ay)
        away = abs((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / length if length > 0 else math.inf
        if away > tolerance:
            kept.append((x, y))
    return kept


def _polygon_area(polygon: list[Point]) -> float:
    return (
        abs(
            sum(
                ax * by - bx * ay
                for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True)
            )
        )
        / 2
    )


def _outlines(thing: Thing, width: int, height: int) -> list[list[float]]:
    """The thing's polygons inside the picture, as COCO writes them: x, y, x, y, …"""
    outlines = []
    for part in thing.parts:
        if part.outlined:
            polygon = _simplified(_clipped(part.polygon, width, height), 0.12)
            polygon = [(round(x, 2), round(y, 2)) for x, y in polygon]
            if len(polygon) >= 3 and _polygon_area(polygon) >= 0.5:
                outlines.append([value for point in polygon for value in point])
    return outlines


def _crowd_counts(thing: Thing, width: int, height: int) -> list[int]:
    """Run lengths, column by column and beginning with zeros, of the region the crowd fills."""
    region = Image.new("L", (width, height))
    draw = ImageDraw.Draw(region)
    for part in thing.parts:
        if part.outlined:
            draw.polygon(list(part.polygon), fill=1)
    region = region.filter(ImageFilter.MaxFilter(3))
    flat = np.asarray(region).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=0, append=1 - flat[-1]))
    return [int(count) for count in np.diff(changes, prepend=0)]


def _annotation(thing: Thing, scene: Scene, number: int) -> dict[str, Any] | None:
    """One annotation in COCO's form; None when nothing is left of the thing."""
    width, height = scene.view.width, scene.view.height
    segmentation: Any
    if thing.crowd:
        counts = _crowd_counts(thing, width, height)
        run = pycocotools.mask.frPyObjects(
            {"size": [height, width], "counts": counts}, height, width
        )
        bounds = [float(value) for value in pycocotools.mask.toBbox(run)]
        if scene.image_id in _COMPRESSED_CROWDS:
            segmentation = {"size": [height, width], "counts": run["counts"].decode("ascii")}
        else:
            segmentation = {"size": [height, width], "counts": counts}
    else:
        segmentation = _outlines(thing, width, height)
        if not segmentation:
            return None
        xs, ys = (
            [x for outline in segmentation for x in outline[::2]],
            [y for outline in segmentation for y in outline[1::2]],
        )
        bounds = [min(xs), min(ys), round(max(xs) - min(xs), 2), round(max(ys) - min(ys), 2)]
        # The polygons of an instance overlap, so the sum of their areas would be too large.
        run = pycocotools.mask.merge(pycocotools.mask.frPyObjects(segmentation, height, width))
    return {
        "segmentation": segmentation,
        "area": float(pycocotools.mask.area(run)),
        "iscrowd": int(thing.crowd),
        "image_id": scene.image_id,
        "bbox": bounds,
        "category_id": _CATEGORY_ID[thing.category],
        "id": scene.image_id * 100 + number,
    }


def _malformed(annotation: dict[str, Any], kind: str, width: int, height: int) -> dict[str, Any]:
    """`annotation` with one defect; each is a reason for which a reader must reject it."""
    left, top, right, bottom = 0.25 * width, 0.25 * height, 0.5 * width, 0.5 * height
    spoiled = dict(annotation)
    if kind == "no segmentation":
        del spoiled["segmentation"]
        return spoiled
    if kind == "no such image":
        return {**spoiled, "image_id": 0}
    spoiled["iscrowd"] = int("size" in kind or "counts" in kind)
    size, pixels = [height, width], width * height
    spoiled["segmentation"] = {
        "empty segmentation": [],
        "two points": [[left, top, right, bottom]],
        "odd coordinates": [[left, top, right, top, right, bottom, left]],
        "not finite": [[left, top, _INFINITY, top, right, bottom]],
        "negative": [[-4.5, top, right, top, right, bottom]],
        "beyond the width": [[left, top, width + 3.0, top, right, bottom]],
        "beyond the height": [[left, top, right, top, right, height + 3.0]],
        "size of another image": {"size": [height + 8, width], "counts": [0, pixels + 8 * width]},
        "counts too short": {"size": size, "counts": [pixels // 3, pixels // 4]},
        "negative counts": {"size": size, "counts": [pixels // 2 + 50, -50, pixels // 2]},
        "undecodable counts": {"size": size, "counts": "~~\u00e9 no run lengths"},
    }[kind]
    return spoiled


_INFINITY = "infinity"  # JSON has no such number; see annotations_json


def _annotations(scene: Scene) -> list[dict[str, Any]]:
    width, height, image_id = scene.view.width, scene.view.height, scene.image_id
    found = [_annotation(thing, scene, number) for number, thing in enumerate(scene.things)]
    annotations = [annotation for annotation in found if annotation]
    selected = [a for a in annotations if a["category_id"] <= len(_SELECTED)]
    if image_id % _PERIOD == _ALL_INVALID:
        # Every selected object of this image is annotated badly, so that no valid annotation is left.
        kinds = list(_MALFORMED.values())[:-1]
        return [
            _malformed(a, kinds[number % len(kinds)], width, height) if a in selected else a
            for number, a in enumerate(annotations)
        ]
    if image_id in _MALFORMED and selected:
        # One defective annotation more than there are objects, which all keep their good ones.
        extra = {**selected[-1], "id": image_id * 100 + 99}
        annotations.append(_malformed(extra, _MALFORMED[image_id], width, height))
    return annotations


def annotations_json(images: int, width: int, height: int, seed: int) -> str:
    """The whole COCO instances file as JSON text: info, licenses, images, annotations, categories.

    Image ids run from 1 to `images`. The annotations of an image are listed back to front: painted in
    the order of the file, they leave what is seen.
    """
    scenes = (compose_scene(image_id, width, height, seed) for image_id in range(1, images + 1))
    document = {
        "info": {
            "description": "cocoseg sample: drawn scenes in COCO's format",
            "url": "https://example.org/cocoseg-sample",
            "version": "1.0",
            "year": 2024,
            "contributor": "cocoseg",
            "date_created": "2024/01/01",
        },
        "licenses": [
            {
                "id": 1,
                "name": "CC0 1.0",
                "url": "https://creativecommons.org/publicdomain/zero/1.0/",
            }
        ],
        "images": [
            {
                "license": 1,
                "file_name": f"sample_{image_id:012d}.jpg",
                "coco_url": f"https://example.org/cocoseg-sample/sample_{image_id:012d}.jpg",
                "height": height,
                "width": width,
                "date_captured": "2024-01-01 12:00:00",
                "flickr_url": "",
                "id": image_id,
            }
            for image_id in range(1, images + 1)
        ],
        "annotations": [annotation for scene in scenes for annotation in _annotations(scene)],
        "categories": CATEGORIES,
    }
    # 1e999 is valid JSON, and every reader makes infinity of it or refuses it.
    return json.dumps(document, allow_nan=False).replace(f'"{_INFINITY}"', "1e999")


# Pictures


def _shadows(scene: Scene) -> Image.Image:
    """How dark the ground is in the shadow of things, mode L, 255 the darkest."""
    view, light = scene.view, scene.light
    mask = Image.new("L", (view.width, view.height))
    draw = ImageDraw.Draw(mask)
    for thing in scene.things:
        if not thing.on_ground or (scene.setting == "lake" and thing.category == "boat"):
            continue
        outlined = [part.polygon for part in thing.parts if part.outlined]
        if light.shadow > 0:
            for polygon in outlined:
                fallen = [
                    (
                        x - light.sun * 0.7 * (thing.base - y),
                        thing.base + light.shadow_depth * (thing.base - y),
                    )
                    for x, y in polygon
                ]
                draw.polygon(fallen, fill=round(255 * light.shadow))
    mask = mask.filter(ImageFilter.BoxBlur(view.height / 130))
    contact = Image.new("L", (view.width, view.height))
    draw = ImageDraw.Draw(contact)
    for thing in scene.things:
        if thing.on_ground and not thing.crowd:
            left, top, right, _ = _bounds([part.polygon for part in thing.parts if part.outlined])
            deep = 0.035 * (thing.base - top) + 0.01 * (right - left)
            draw.ellipse([left, thing.base - deep, right, thing.base + deep], fill=110)
    contact = contact.filter(ImageFilter.BoxBlur(view.height / 75))
    return Image.fromarray(np.maximum(np.asarray(mask), np.asarray(contact)))


# Brightness across a part from its lit to its dark edge, 128 for its own colour.
_PROFILE = bytes([146, 152, 150, 144, 137, 130, 122, 114, 106, 98, 92, 88])


def _shaded(shade: Image.Image, part: Part, sun: int) -> None:
    """Enter a part's own light and shadow in `shade`, as if it were a cylinder."""
    polygon = part.polygon
    left, top, right, bottom = _bounds([polygon])
    x, y = max(0, math.floor(left)), max(0, math.floor(top))
    width, height = (
        min(shade.width, math.ceil(right) + 1) - x,
        min(shade.height, math.ceil(bottom) + 1) - y,
    )
    if width <= 0 or height <= 0:
        return
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([(px - x, py - y) for px, py in polygon], fill=255)
    if part.shading == "top":
        profile = Image.frombytes("L", (1, len(_PROFILE)), _PROFILE)
    else:
        profile = Image.frombytes("L", (len(_PROFILE), 1), _PROFILE if sun < 0 else _PROFILE[::-1])
    shade.paste(profile.resize((width, height), Image.Resampling.BILINEAR), (x, y), mask)


def draw_image(image_id: int, width: int, height: int, seed: int) -> Image.Image:
    """One scene, RGB; depends on nothing but its arguments (each image has its own generator)."""
    scene = compose_scene(image_id, width, height, seed)
    rng = generator(seed, "sample scenery", image_id)
    canvas = paint_scenery(rng, scene.setting, scene.view, scene.light)
    draw = ImageDraw.Draw(canvas)
    shade = Image.new("L", (width, height), 128)
    shade.paste(34, (0, 0), _shadows(scene))
    own = ImageDraw.Draw(shade)
    for thing in scene.things:
        for part in thing.parts:
            if part.colour is None:
                continue
            draw.polygon([(x * DETAIL, y * DETAIL) for x, y in part.polygon], fill=part.colour)
            if part.shading == "flat" or thing.crowd:
                own.polygon(list(part.polygon), fill=128)
            else:
                _shaded(shade, part, scene.light.sun)
    pixels = np.asarray(canvas.reduce(DETAIL), dtype=np.float64)
    across = np.linspace(-1.0, 1.0, width)[None, :]
    down = np.linspace(-1.0, 1.0, height)[:, None]
    brightness = np.asarray(shade, dtype=np.float64) / 128.0
    brightness *= 1.0 - 0.1 * (across * across + down * down)
    brightness *= 1.0 + 0.04 * noise(rng, width, height, width // 12, height // 12)
    brightness *= 1.0 + 0.03 * across * scene.light.sun
    pixels = pixels * brightness[..., None] * np.array(scene.light.tint)
    pixels += rng.normal(0.0, 3.0, (height, width, 1))
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
