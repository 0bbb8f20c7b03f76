"""A small COCO data set that is drawn, not downloaded: the same bytes on every machine.

    text = annotations_json(images=700, width=256, height=192, seed=0)
    image = draw_image(image_id=7, width=256, height=192, seed=0)

Both functions compose the same scene from a random generator per image. One writes the outlines of
its objects, the other paints them. As in real data, some annotations are malformed, some images
show no object of interest, and some show crowds; the image id decides which.

Trigonometry is computed in float64 and rounded to bytes or hundredths of a pixel, because its last
bits differ between processors.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask
from numpy.random import Generator
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from cocoseg.core.seeding import generator
from cocoseg.sources.synthetic import objects
from cocoseg.sources.synthetic.objects import Part, Point, Polygon, between, chance, mix, pick
from cocoseg.sources.synthetic.scenery import DETAIL, Light, View, make_light, noise, paint_scenery

# COCO's categories: the ids and names of each supercategory.
_CATEGORIES = {
    "person": "1 person",
    "vehicle": "2 bicycle,3 car,4 motorcycle,5 airplane,6 bus,7 train,8 truck,9 boat",
    "outdoor": "10 traffic light,11 fire hydrant,13 stop sign,14 parking meter,15 bench",
    "animal": "16 bird,17 cat,18 dog,19 horse,20 sheep,21 cow,22 elephant,23 bear,24 zebra,"
    "25 giraffe",
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
_CATEGORY_IDS = {
    name: (int(number), group)
    for group, entries in _CATEGORIES.items()
    for number, name in (entry.split(" ", 1) for entry in entries.split(","))
}
_LAST_SELECTED_ID = 5  # the selected classes: person, bicycle, car, motorcycle, airplane

# Special images, by their id modulo 40.
_PERIOD = 40
_BUSY, _CROWD, _PARKED_CARS, _EMPTY, _ALL_INVALID = 12, 5, 31, 19, 27
_COMPRESSED_CROWDS = (5, 45)  # image ids
# Each kind of malformed annotation is added once, to the image with this id.
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
_INFINITY = "infinity"  # a placeholder, because JSON has no infinity; see annotations_json
_MIN_AREA = 30 / 192**2  # of a visible object, in squared image heights

# The main object of a scene: its class, its frequency in percent, and its settings.
_MAINS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("bicycle", 24, ("street", "street", "avenue", "park", "park", "lake")),
    ("motorcycle", 23, ("street", "street", "avenue", "avenue", "park")),
    ("airplane", 25, ("airfield", "airfield", "sky", "sky", "sky")),
    ("person", 12, ("street", "avenue", "park", "park", "airfield", "lake")),
    ("car", 13, ("street", "street", "avenue")),
    ("nothing", 3, ("street", "park", "lake", "lake", "sky")),
)
# Further objects, weighted by repetition.
_COMPANY = {
    "street": ("person", "person", "person", "car", "car", "bicycle", "motorcycle"),
    "avenue": ("person", "person", "person", "car", "car", "bicycle", "motorcycle"),
    "park": ("person", "person", "person", "person", "bicycle", "motorcycle", "airplane"),
    "lake": ("person", "person", "person", "bicycle"),
    "airfield": ("person", "person", "person", "car", "car", "airplane", "motorcycle"),
    "sky": ("airplane",),
}
_OTHERS = {
    "street": ("traffic light", "stop sign", "bus", "bench", "fire hydrant", "dog"),
    "avenue": ("traffic light", "stop sign", "dog", "fire hydrant"),
    "park": ("bird", "dog", "bench", "horse", "cow", "sheep", "kite"),
    "airfield": ("bird", "bus"),
    "sky": ("bird", "bird", "kite"),
    "lake": ("boat", "boat", "boat", "bird", "bench", "dog"),
}
# Heights of the objects of other classes, as fractions of the image height.
_OTHER_SIZES = {
    "traffic light": (0.4, 0.8),
    "stop sign": (0.35, 0.7),
    "bus": (0.3, 0.42),
    "bench": (0.14, 0.28),
    "fire hydrant": (0.14, 0.28),
    "boat": (0.3, 0.65),
    "dog": (0.12, 0.26),
    "sheep": (0.16, 0.3),
    "cow": (0.24, 0.48),
    "horse": (0.3, 0.58),
}


@dataclass(frozen=True)
class Thing:
    """One object or crowd in an image.

    Attributes:
        category: the name of its COCO category.
        parts: in pixels, painted in order.
        base: the y in pixels at which it touches the ground; the order of depth.
        on_ground: whether it casts a shadow on the ground.
        crowd: whether it is annotated as a crowd.
    """

    category: str
    parts: list[Part]
    base: float
    on_ground: bool = True
    crowd: bool = False

    @property
    def outlines(self) -> list[Polygon]:
        """The polygons whose union is the silhouette."""
        return [part.polygon for part in self.parts if part.outlined]


@dataclass(frozen=True)
class Scene:
    """The content of an image and its annotations.

    Attributes:
        image_id: the id of the image in the COCO file.
        setting: street, avenue, park, airfield, lake or sky.
        view: the camera.
        light: weather and time of day.
        things: back to front.
    """

    image_id: int
    setting: str
    view: View
    light: Light
    things: list[Thing]


def _bounds(*polygons: Polygon) -> tuple[float, float, float, float]:
    xs = [x for polygon in polygons for x, _ in polygon]
    ys = [y for polygon in polygons for _, y in polygon]
    return min(xs), min(ys), max(xs), max(ys)


@dataclass
class _Composer:
    """Places things in a view and avoids occupied positions."""

    rng: Generator
    setting: str
    view: View
    light: Light
    things: list[Thing]
    taken: list[tuple[float, float]]

    def _free_x(self, half: float, margin: float) -> float:
        """An x at which a thing that extends `half` pixels to each side hides little of others."""
        best, least = 0.0, math.inf
        for _ in range(6):
            x = between(self.rng, margin, 1 - margin) * self.view.width
            hidden = sum(max(0.0, min(x + half, b) - max(x - half, a)) for a, b in self.taken)
            if hidden < least:
                best, least = x, hidden
        self.taken.append((best - half, best + half))
        return best

    def _placed(
        self,
        parts: list[Part],
        pivot: Point,
        at: Point,
        scale: float,
        angle: float = 0.0,
    ) -> list[Part]:
        """The parts in pixels, rotated by `angle` degrees and mirrored at random.

        Args:
            parts: in meters.
            pivot: the point in meters that is moved to `at`.
            at: in pixels.
            scale: pixels per meter.
            angle: in degrees, counterclockwise before mirroring.
        """
        cosine, sine = math.cos(math.radians(angle)) * scale, math.sin(math.radians(angle)) * scale
        side = pick(self.rng, (-1.0, 1.0))
        haze = max(0.0, 0.28 - 1.6 * scale / self.view.height)
        if at[1] < self.view.horizon:
            haze = 0.08
        placed = []
        for part in parts:
            centered = [(x - pivot[0], y - pivot[1]) for x, y in part.polygon]
            polygon = [
                (at[0] + side * (x * cosine - y * sine), at[1] - (x * sine + y * cosine))
                for x, y in centered
            ]
            color = mix(part.color, self.light.sky_low, haze) if part.color else None
            placed.append(Part(polygon, color, part.shading, part.outlined))
        return placed

    def stand(
        self, category: str, parts: list[Part], fraction: float, rider: list[Part] | None = None
    ) -> None:
        """Place an object on the ground, and its rider on it.

        Args:
            category: the name of its COCO category.
            parts: in meters.
            fraction: its height as a fraction of the image height.
            rider: the parts of a person, in meters relative to the object.
        """
        view = self.view
        left, bottom, right, top = _bounds(*(part.polygon for part in parts))
        nearest = (0.98 * view.height - view.horizon) / view.camera
        widest = 1.1 * view.width / (right - left)
        scale = fraction * view.height / (top - bottom)
        if self.setting == "lake" and category != "boat":
            scale = max(scale, 0.19 * view.height)  # in front of the shore
        scale = min(scale, nearest, widest)
        width = (right - left) * scale
        x = self._free_x(width / 2, 0.2 if width > 0.4 * view.width else 0.04)
        at, tilt = (x, view.ground_at(scale)), between(self.rng, -1.5, 1.5)
        placed = self._placed([*parts, *(rider or [])], (0.0, 0.0), at, scale, tilt)
        self.things.append(Thing(category, placed[: len(parts)], at[1]))
        if rider:
            self.things.append(Thing("person", placed[len(parts) :], at[1]))

    def fly(self, category: str, parts: list[Part], fraction: float, tilt: float) -> None:
        """Place an object in the sky.

        Args:
            category: the name of its COCO category.
            parts: in meters.
            fraction: its width as a fraction of the image width.
            tilt: the largest rotation in degrees.
        """
        view, rng = self.view, self.rng
        left, bottom, right, top = _bounds(*(part.polygon for part in parts))
        scale = fraction * view.width / (right - left)
        x = self._free_x((right - left) / 2 * scale, 0.12 if fraction < 0.6 else 0.35)
        low, high = (0.12, 0.8) if fraction < 0.4 else (0.38, 0.62)
        if self.setting != "sky":
            low, high = 0.12, 0.5
        y = between(rng, low, high) * min(view.horizon, view.height)
        middle, angle = ((left + right) / 2, (bottom + top) / 2), between(rng, -0.4, 1.0) * tilt
        placed = self._placed(parts, middle, (x, y), scale, angle)
        # Flying objects are behind all objects on the ground.
        self.things.append(Thing(category, placed, y - 10 * view.height, on_ground=False))

    def crowd(self, category: str) -> None:
        """Place many small people or parked cars, annotated as one region."""
        view, rng, people = self.view, self.rng, category == "person"
        middle, spread = between(rng, 0.35, 0.65), between(rng, 0.22, 0.42)
        scales = sorted(between(rng, 0.085, 0.125) for _ in range(34 if people else 12))
        parts: list[Part] = []
        for scale in (fraction * view.height for fraction in scales):
            each = objects.person(rng) if people else objects.car(rng)
            x = (middle + between(rng, -1, 1) * spread) * view.width
            parts += self._placed(each, (0.0, 0.0), (x, view.ground_at(scale)), scale)
        farthest = view.ground_at(scales[0] * view.height)
        self.things.append(Thing(category, parts, farthest, crowd=True))

    def selected(self, category: str, fraction: float) -> None:
        """Place an object of a selected class.

        Args:
            category: the name of its COCO category.
            fraction: its approximate height as a fraction of the image height, or the width of an
                airplane as a fraction of the image width.
        """
        rng = self.rng
        if category == "person":
            self.stand(category, objects.person(rng), fraction * 1.15)
        elif category == "car":
            self.stand(category, objects.car(rng), fraction * 0.75)
        elif category == "bicycle":
            rider = objects.bicycle_rider(rng) if chance(rng, 0.42) else None
            self.stand(category, objects.bicycle(rng), fraction, rider)
        elif category == "motorcycle":
            rider = objects.motorcycle_rider(rng) if chance(rng, 0.42) else None
            self.stand(category, objects.motorcycle(rng), fraction, rider)
        else:
            draw = pick(rng, (objects.airliner, objects.light_aircraft))
            if self.setting == "airfield" and fraction > 0.3:
                self.stand(category, draw(rng, False), between(rng, 0.26, 0.4))
            elif self.setting == "sky":
                self.fly(category, draw(rng, True), fraction * 1.2, 16)
            else:
                self.fly(category, draw(rng, True), min(fraction, 0.4), 9)

    def other(self, category: str) -> None:
        """Place an object of another class; birds form small flocks."""
        rng = self.rng
        if category in ("bird", "kite"):
            for _ in range(int(rng.integers(1, 4)) if category == "bird" else 1):
                self.fly(category, objects.thing(rng, category), between(rng, 0.07, 0.15), 25)
        else:
            parts = objects.bus(rng) if category == "bus" else objects.thing(rng, category)
            self.stand(category, parts, between(rng, *_OTHER_SIZES[category]))


def _theme(rng: Generator, image_id: int) -> tuple[str, str]:
    """The main object of a scene, and its setting."""
    special = image_id % _PERIOD
    if special == _EMPTY:
        return "nothing", pick(rng, ("park", "lake"))
    if special == _CROWD:
        return "person", pick(rng, ("street", "park"))
    if special in (_BUSY, _PARKED_CARS):
        return "person", "street"
    weighted = [(main, settings) for main, often, settings in _MAINS for _ in range(often)]
    main, settings = pick(rng, weighted)
    if main == "nothing" and (image_id in _MALFORMED or special == _ALL_INVALID):
        return "person", "park"
    return main, pick(rng, settings)


def compose_scene(image_id: int, width: int, height: int, seed: int) -> Scene:
    """Compose the scene of an image.

    Args:
        image_id: selects the random generator and whether the image is special.
        width: of the image, in pixels.
        height: of the image, in pixels.
        seed: of the data set.
    """
    rng = generator(seed, "sample", image_id)
    light, special = make_light(rng), image_id % _PERIOD
    main, setting = _theme(rng, image_id)
    horizon = between(rng, 0.34, 0.5)
    # With a lower camera, objects near the lower edge of the image are larger.
    low, high = (0.95, 1.3) if main in ("bicycle", "motorcycle") else (1.15, 1.9)
    if setting == "sky":
        horizon = between(rng, 0.86, 1.2)
    elif setting == "airfield":
        horizon, low, high = between(rng, 0.5, 0.64), 1.6, 2.2
    elif special == _BUSY:
        low, high = 2.2, 2.8
    center = between(rng, 0.35, 0.65) * width
    view = View(width, height, horizon * height, between(rng, low, high), center)
    composer = _Composer(rng, setting, view, light, [], [])
    if special in (_CROWD, _PARKED_CARS):
        composer.crowd("person" if special == _CROWD else "car")
    if special == _BUSY:
        for category in ("person",) * 11 + ("car",) * 4:
            composer.selected(category, between(rng, 0.18, 0.42))
    elif main != "nothing":
        composer.selected(main, between(rng, 0.42, 0.78))
        for _ in range(int(rng.integers(0, 4))):
            fraction = between(rng, 0.35, 0.6) if chance(rng, 0.4) else between(rng, 0.15, 0.32)
            if setting != "sky" or chance(rng, 0.3):
                composer.selected(pick(rng, _COMPANY[setting]), fraction)
    for _ in range(int(rng.integers(1, 4)) if main == "nothing" else int(chance(rng, 0.4))):
        composer.other(pick(rng, _OTHERS[setting]))
    things = sorted(composer.things, key=lambda thing: thing.base)
    return Scene(image_id, setting, view, light, _visible(things, view))


def _visible(things: list[Thing], view: View) -> list[Thing]:
    """The things that are sufficiently visible behind nearer ones and inside the image."""
    owners = Image.new("L", (view.width, view.height))
    draw = ImageDraw.Draw(owners)
    for index, thing in enumerate(things):
        for outline in thing.outlines:
            draw.polygon(list(outline), fill=index + 1)
    counts = owners.histogram()
    min_area = max(_MIN_AREA * view.height**2, 4.0)
    return [thing for index, thing in enumerate(things) if counts[index + 1] >= min_area]


# Annotations


def _clipped(polygon: Polygon, width: float, height: float) -> list[Point]:
    """The part of a polygon inside the image (Sutherland and Hodgman, 1974)."""
    kept = list(polygon)
    for axis, sign, bound in ((0, 1, 0.0), (0, -1, -width), (1, 1, 0.0), (1, -1, -height)):
        inside = [sign * point[axis] >= bound for point in kept]
        if all(inside):
            continue
        result: list[Point] = []
        for index, here in enumerate(kept):
            before = kept[index - 1]
            if inside[index] != inside[index - 1]:
                fraction = (bound / sign - before[axis]) / (here[axis] - before[axis])
                crossing = [a + (b - a) * fraction for a, b in zip(before, here, strict=True)]
                crossing[axis] = bound / sign
                result.append((crossing[0], crossing[1]))
            if inside[index]:
                result.append(here)
        kept = result
    return kept


def _simplified(polygon: list[Point], tolerance: float) -> list[Point]:
    """The polygon without corners that are within `tolerance` pixels of a straight line."""
    kept: list[Point] = []
    for index, (x, y) in enumerate(polygon):
        ax, ay = kept[-1] if kept else polygon[-1]
        bx, by = polygon[(index + 1) % len(polygon)]
        length = math.hypot(bx - ax, by - ay)
        across = abs((bx - ax) * (y - ay) - (by - ay) * (x - ax))
        if length == 0 or across > tolerance * length:
            kept.append((x, y))
    return kept


def _area(polygon: list[Point]) -> float:
    pairs = zip(polygon, [*polygon[1:], *polygon[:1]], strict=True)
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairs)) / 2


def _polygons(thing: Thing, width: int, height: int) -> list[list[Point]]:
    """The outlines of a thing inside the image, to hundredths of a pixel."""
    found = []
    for outline in thing.outlines:
        polygon = _simplified(_clipped(outline, width, height), 0.12)
        polygon = [(round(x, 2), round(y, 2)) for x, y in polygon]
        if _area(polygon) >= 0.5:
            found.append(polygon)
    return found


def _crowd_counts(thing: Thing, width: int, height: int) -> list[int]:
    """The region of a crowd as run lengths, column by column and starting with zeros."""
    region = Image.new("L", (width, height))
    draw = ImageDraw.Draw(region)
    for outline in thing.outlines:
        draw.polygon(list(outline), fill=1)
    flat = np.asarray(region.filter(ImageFilter.MaxFilter(3))).ravel(order="F")
    ends = [*np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size]
    starts = [0, *ends[:-1]] if flat[0] == 0 else [0, 0, *ends[:-1]]
    ends = ends if flat[0] == 0 else [0, *ends]
    return [int(end - start) for start, end in zip(starts, ends, strict=True)]


def _annotation(thing: Thing, scene: Scene, number: int) -> dict[str, Any]:
    """One annotation in COCO's format."""
    width, height = scene.view.width, scene.view.height
    segmentation: Any
    if thing.crowd:
        segmentation = {"size": [height, width], "counts": _crowd_counts(thing, width, height)}
        region = pycocotools.mask.frPyObjects(segmentation, height, width)
        box = [float(value) for value in pycocotools.mask.toBbox(region)]
        if scene.image_id in _COMPRESSED_CROWDS:
            segmentation["counts"] = region["counts"].decode("ascii")
    else:
        polygons = _polygons(thing, width, height)
        segmentation = [[value for point in polygon for value in point] for polygon in polygons]
        # The polygons of an instance overlap, so the sum of their areas would be too large.
        region = pycocotools.mask.merge(pycocotools.mask.frPyObjects(segmentation, height, width))
        left, top, right, bottom = _bounds(*polygons)
        box = [left, top, round(right - left, 2), round(bottom - top, 2)]
    return {
        "segmentation": segmentation,
        "area": float(pycocotools.mask.area(region)),
        "iscrowd": int(thing.crowd),
        "image_id": scene.image_id,
        "bbox": box,
        "category_id": _CATEGORY_IDS[thing.category][0],
        "id": scene.image_id * 100 + number,
    }


def _malformed(annotation: dict[str, Any], kind: str, width: int, height: int) -> dict[str, Any]:
    """The annotation with one defect, for which a reader must reject it."""
    if kind == "no such image":
        return {**annotation, "image_id": 0}
    if kind == "no segmentation":
        return {key: value for key, value in annotation.items() if key != "segmentation"}
    left, top, right, bottom = 0.25 * width, 0.25 * height, 0.5 * width, 0.5 * height
    size, pixels = [height, width], width * height
    segmentation: Any = {
        "empty segmentation": [],
        "two points": [[left, top, right, bottom]],
        "odd coordinates": [[left, top, right, top, right, bottom, left]],
        "not finite": [[left, top, _INFINITY, top, right, bottom]],
        "negative": [[-4.5, top, right, top, right, bottom]],
        "beyond the width": [[left, top, width + 3.0, top, right, bottom]],
        "beyond the height": [[left, top, right, top, right, height + 3.0]],
        "size of another image": {"size": [height + 8, width], "counts": [0, pixels + 8 * width]},
        "counts too short": {"size": size, "counts": [pixels // 3, pixels // 4]},
        "negative counts": {"size": size, "counts": [pixels + 50, -50]},
        "undecodable counts": {"size": size, "counts": "~~ no run lengths ~~"},
    }[kind]
    crowd = int(isinstance(segmentation, dict))
    return {**annotation, "segmentation": segmentation, "iscrowd": crowd}


def annotate(scene: Scene) -> list[dict[str, Any]]:
    """Return the annotations of a scene in COCO's format, back to front, with malformed ones."""
    width, height, image_id = scene.view.width, scene.view.height, scene.image_id
    annotations = [_annotation(thing, scene, index) for index, thing in enumerate(scene.things)]
    selected = [a for a in annotations if a["category_id"] <= _LAST_SELECTED_ID]
    if image_id % _PERIOD == _ALL_INVALID:
        # Every object of a selected class gets a defect, so that no valid annotation remains.
        kinds = [kind for kind in _MALFORMED.values() if kind != "no such image"]
        for annotation, kind in zip(selected, kinds, strict=False):
            annotations[annotations.index(annotation)] = _malformed(annotation, kind, width, height)
    elif image_id in _MALFORMED and selected:
        # The malformed annotation is an extra one, so that every visible object stays annotated.
        extra = {**selected[-1], "id": image_id * 100 + 99}
        annotations.append(_malformed(extra, _MALFORMED[image_id], width, height))
    return annotations


def annotations_json(images: int, width: int, height: int, seed: int) -> str:
    """Return a COCO instances file as JSON text.

    The annotations of an image are listed back to front, so that masks painted in file order agree
    with the image.

    Args:
        images: how many images; their ids are 1 to `images`.
        width: of each image, in pixels.
        height: of each image, in pixels.
        seed: of the data set.
    """
    ids = range(1, images + 1)
    site = "https://example.org/cocoseg-sample"
    document = {
        "info": {
            "description": "Drawn scenes in COCO's format",
            "url": site,
            "version": "1.0",
            "year": 2024,
            "contributor": "cocoseg",
            "date_created": "2024/01/01",
        },
        "licenses": [
            {"id": 1, "name": "CC0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}
        ],
        "images": [
            {
                "license": 1,
                "file_name": f"sample_{image_id:012d}.jpg",
                "coco_url": f"{site}/sample_{image_id:012d}.jpg",
                "height": height,
                "width": width,
                "date_captured": "2024-01-01 12:00:00",
                "flickr_url": f"{site}/sample_{image_id:012d}.jpg",
                "id": image_id,
            }
            for image_id in ids
        ],
        "annotations": [
            annotation
            for image_id in ids
            for annotation in annotate(compose_scene(image_id, width, height, seed))
        ],
        "categories": [
            {"supercategory": group, "id": number, "name": name}
            for name, (number, group) in _CATEGORY_IDS.items()
        ],
    }
    # 1e999 is valid JSON; a reader that does not refuse it parses it as infinity.
    return json.dumps(document, allow_nan=False).replace(f'"{_INFINITY}"', "1e999")


# Images


def _shadows(scene: Scene) -> Image.Image:
    """The shadows of things on the ground, mode L; 255 is the darkest."""
    view, light = scene.view, scene.light
    standing = [thing for thing in scene.things if thing.on_ground and thing.category != "boat"]
    cast, contact = (Image.new("L", (view.width, view.height)) for _ in range(2))
    draw = ImageDraw.Draw(cast)
    for thing in standing if light.shadow > 0 else []:
        for outline in thing.outlines:
            fallen = []
            for x, y in outline:
                up = thing.base - y
                fallen.append((x - light.sun * 0.7 * up, thing.base + light.shadow_depth * up))
            draw.polygon(fallen, fill=round(255 * light.shadow))
    draw = ImageDraw.Draw(contact)
    for thing in standing:
        if not thing.crowd:
            left, top, right, _ = _bounds(*thing.outlines)
            deep = 0.035 * (thing.base - top) + 0.01 * (right - left)
            draw.ellipse([left, thing.base - deep, right, thing.base + deep], fill=110)
    cast = cast.filter(ImageFilter.BoxBlur(view.height / 130))
    contact = contact.filter(ImageFilter.BoxBlur(view.height / 75))
    return ImageChops.lighter(cast, contact)


# Brightness across a part from its lit edge to its dark edge; 128 leaves the color unchanged.
_PROFILE = bytes([146, 152, 150, 144, 137, 130, 122, 114, 106, 98, 92, 88])


def _shade(shade: Image.Image, part: Part, sun: int) -> None:
    """Draw the light and dark sides of a part into `shade`, as if it were a cylinder."""
    left, top, right, bottom = _bounds(part.polygon)
    x, y = max(0, math.floor(left)), max(0, math.floor(top))
    width = min(shade.width, math.ceil(right) + 1) - x
    height = min(shade.height, math.ceil(bottom) + 1) - y
    if width <= 0 or height <= 0:
        return
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).polygon([(px - x, py - y) for px, py in part.polygon], fill=255)
    if part.shading == "top":
        profile = Image.frombytes("L", (1, len(_PROFILE)), _PROFILE)
    else:
        from_left = _PROFILE if sun < 0 else _PROFILE[::-1]
        profile = Image.frombytes("L", (len(_PROFILE), 1), from_left)
    shade.paste(profile.resize((width, height), Image.Resampling.BILINEAR), (x, y), mask)


def render(scene: Scene, seed: int) -> Image.Image:
    """Paint a scene.

    Args:
        scene: from `compose_scene`.
        seed: decides the background.

    Returns:
        An RGB image.
    """
    width, height = scene.view.width, scene.view.height
    rng = generator(seed, "sample scenery", scene.image_id)
    canvas = paint_scenery(rng, scene.setting, scene.view, scene.light)
    draw = ImageDraw.Draw(canvas)
    shade = Image.new("L", (width, height), 128)
    shade.paste(34, (0, 0), _shadows(scene))
    draw_shade = ImageDraw.Draw(shade)
    for thing in scene.things:
        for part in thing.parts:
            if part.color is None:
                continue
            draw.polygon([(x * DETAIL, y * DETAIL) for x, y in part.polygon], fill=part.color)
            if part.shading == "flat" or thing.crowd:
                draw_shade.polygon(list(part.polygon), fill=128)
            else:
                _shade(shade, part, scene.light.sun)
    pixels = np.asarray(canvas.reduce(DETAIL), dtype=np.float64)
    across = np.linspace(-1.0, 1.0, width)[None, :]
    down = np.linspace(-1.0, 1.0, height)[:, None]
    brightness = np.asarray(shade, dtype=np.float64) / 128.0
    brightness *= 1.02 - 0.07 * (across * across + down * down)  # a lens is darker at the edge
    brightness *= 1.0 + 0.03 * across * scene.light.sun
    brightness *= 1.0 + 0.015 * noise(rng, width, height, width // 8, height // 8)
    pixels = pixels * brightness[..., None] * np.array(scene.light.tint)
    pixels += rng.normal(0.0, 2.2, (height, width, 1))
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def draw_image(image_id: int, width: int, height: int, seed: int) -> Image.Image:
    """Draw one image, which depends only on the arguments.

    Args:
        image_id: the id in `annotations_json`.
        width: in pixels.
        height: in pixels.
        seed: of the data set.

    Returns:
        An RGB image.
    """
    return render(compose_scene(image_id, width, height, seed), seed)
