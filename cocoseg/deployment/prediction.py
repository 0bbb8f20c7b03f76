"""A model file and a photo, nothing else: labels, probabilities and an overlay of any photo.

import cocoseg
model = cocoseg.load("models/model.safetensors")      # or models/onnx/int8.onnx
result = model.predict("photo.jpg")                   # or a PIL image, or uint8 (H, W, 3)
result.labels, result.classes, result.shares()        # uint8 (H, W), names, {name: share}
result.overlay().save("overlay.png")

Photos are resized and normalised as for the scores of the evaluate stage, and the logits are
enlarged to the photo's own size in the same way, but some rows at a time: what is held in memory
are the photo, its labels and little else, however large it is.

`predict("photo.jpg", tiles="full")` sees a large photo in overlapping tiles as well.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from cocoseg.annotations.pictures import Picture, overlay_labels
from cocoseg.common.errors import UserError
from cocoseg.common.images import MAX_PIXELS, read_rgb, to_rgb
from cocoseg.common.labels import Labels
from cocoseg.deployment.export import Network, load_onnx, torch_network
from cocoseg.network.devices import choose_device, enough_memory
from cocoseg.network.heads import resize_bilinear
from cocoseg.network.model import ModelCard, coarse_size, load_model
from cocoseg.network.photos import resize_shorter_side
from cocoseg.network.tiles import Tiles, blend_tiles, strips, tile_grids

MAX_SIDE = 65_500
"""JPEG holds no longer sides, so an overlay could not be written."""

MAX_TILED_PIXELS = 500_000_000
"""What a file may have where tiles are asked for; Pillow takes 2 GB to decode it."""

_WAITING = 200_000_000
"""Bytes of photos."""

_enough_memory = enough_memory("lower the batch size (--batch-size), or take the CPU")

Strips = Callable[[], Iterator[tuple[slice, Tensor]]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model sees in one photo.

    `photo` uint8 (H, W, 3), `labels` uint8 (H, W), `classes` names in label order; `logits` gives
    ranges of rows from top to bottom, and of each the logits, float32 (classes, rows, W).
    """

    photo: Picture
    labels: Labels
    classes: tuple[str, ...]
    logits: Strips

    def shares(self) -> dict[str, float]:
        """The share of the photo's pixels by class name, all classes in label order."""
        counts = Image.fromarray(self.labels).histogram()
        return {name: counts[label] / self.labels.size for label, name in enumerate(self.classes)}

    def probabilities(self) -> NDArray[np.float16]:
        """The softmax of the logits, float16 (classes, H, W): 2 bytes for each pixel and class."""
        result = np.empty((len(self.classes), *self.labels.shape), np.float16)
        for rows, logits in self.logits():
            result[:, rows] = logits.softmax(dim=0).cpu().numpy()
        return result

    def overlay(self, opacity: float = 0.6) -> Image.Image:
        """The photo with each class in its colour over it, and borders; background stays clear."""
        height, width = self.labels.shape
        picture = Image.new("RGB", (width, height))
        for rows in strips(height, 3 * width):
            # A row more on either side, so that borders are found across strips.
            above = max(rows.start - 1, 0)
            around = slice(above, rows.stop + 1)
            strip = overlay_labels(self.photo[around], self.labels[around], opacity)
            own = strip[rows.start - above :][: rows.stop - rows.start]
            picture.paste(Image.fromarray(own), (0, rows.start))
        return picture


@dataclass(frozen=True, eq=False)
class Predictor:
    """A loaded model; made by `load`."""

    network: Network
    card: ModelCard

    def predict(
        self, image: str | Path | Image.Image | NDArray[np.uint8], tiles: Tiles | None = None
    ) -> Prediction:
        """Label one photo: a path, a PIL image, or RGB values as uint8 (H, W, 3).

        Paths and PIL images are turned as their EXIF says. `tiles` are those of `tile_grids`; with
        them a file may have MAX_TILED_PIXELS. Raises UserError when a file is missing or damaged, a
        side longer than MAX_SIDE, or the GPU's memory too small; ValueError for an array of another
        kind.
        """
        photo = _read_photo(image, tiles)
        if tiles:
            return self._predict_tiled(photo, tiles, batch_size=8)
        (prediction,) = self._predict_batch(
            [photo], [resize_shorter_side(_to_tensor(photo), self.card.size)]
        )
        return prediction

    def predict_files(
        self, paths: Iterable[Path], batch_size: int = 8, tiles: Tiles | None = None
    ) -> Iterator[tuple[Path, Prediction | UserError]]:
        """Label many photos: each path with its prediction, or with what is wrong with its file.

        Photos of one shape go through the network together, so the order is not quite that of the
        paths. At most some 200 MB of photos wait for others of their shape. With `tiles` those of
        one photo go together, and none waits.
        """
        waiting: dict[torch.Size, list[tuple[Path, Picture, Tensor]]] = {}
        for path in paths:
            try:
                photo = _read_photo(path, tiles)
            except UserError as error:
                yield path, error
                continue
            if tiles:
                yield path, self._predict_tiled(photo, tiles, batch_size)
                continue
            images = resize_shorter_side(_to_tensor(photo), self.card.size)
            alike = waiting.setdefault(images.shape, [])
            alike.append((path, photo, images))
            if sum(photo.size for batch in waiting.values() for _, photo, _ in batch) > _WAITING:
                ready = list(waiting)
            else:
                ready = [images.shape] if len(alike) == batch_size else []
            for shape in ready:
                yield from self._predict_waiting(waiting.pop(shape))
        for batch in waiting.values():
            yield from self._predict_waiting(batch)

    def _predict_waiting(
        self, batch: Sequence[tuple[Path, Picture, Tensor]]
    ) -> Iterator[tuple[Path, Prediction]]:
        paths, photos, images = zip(*batch, strict=True)
        return zip(paths, self._predict_batch(photos, images), strict=True)

    def _predict_batch(
        self, photos: Sequence[Picture], images: Sequence[Tensor]
    ) -> Iterator[Prediction]:
        """Label photos (H, W, 3) given what the network sees of them, (3, h, w) of one shape."""
        for photo, logits in zip(photos, self._coarse_logits(images), strict=True):
            yield self._label(photo, functools.partial(_enlarged, logits, photo.shape[:2]))

    def _predict_tiled(self, photo: Picture, tiles: Tiles, batch_size: int) -> Prediction:
        def see(views: Sequence[Tensor]) -> Tensor:
            return self._coarse_logits(
                [resize_shorter_side(view, self.card.size) for view in views]
            )

        height, width = photo.shape[:2]
        grids = tile_grids(height, width, tiles, self.card.size)
        return self._label(
            photo, functools.partial(blend_tiles, see, _to_tensor(photo), grids, batch_size)
        )

    @_enough_memory
    def _coarse_logits(self, images: Sequence[Tensor]) -> Tensor:
        """Logits (B, classes, h', w') as the network makes them, not enlarged."""
        size = coarse_size(self.card, images[0])
        return self.network(torch.stack(list(images)), size)

    @_enough_memory
    def _label(self, photo: Picture, logits: Strips) -> Prediction:
        labels = np.empty(photo.shape[:2], np.uint8)
        for rows, values in logits():
            labels[rows] = values.max(dim=0).indices.to(torch.uint8).cpu().numpy()
        return Prediction(photo, labels, self.card.classes, logits)


def load(path: str | Path, device: str = "auto") -> Predictor:
    """Load `model.safetensors` of the train stage or an ONNX file of the export stage.

    `device` is auto, cpu, mps, cuda or cuda:N. Raises UserError when the file is missing, damaged
    or not from this project, or the device is not there.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return Predictor(*load_onnx(path, device))
    model, card = load_model(path)
    return Predictor(torch_network(model, card, choose_device(device)), card)


def _read_photo(
    image: str | Path | Image.Image | NDArray[np.uint8], tiles: Tiles | None
) -> Picture:
    """The photo as a viewer shows it, uint8 (H, W, 3)."""
    if isinstance(image, np.ndarray):
        photo = image
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
            raise ValueError(f"uint8 (H, W, 3) is needed, not {photo.dtype} {photo.shape}")
        name = "the photo"
    elif isinstance(image, Image.Image):
        photo = to_rgb(ImageOps.exif_transpose(image))
        name = "the photo"
    else:
        try:
            photo = read_rgb(Path(image), max_pixels=MAX_TILED_PIXELS if tiles else MAX_PIXELS)
        except OSError as error:
            raise UserError(f"{image} cannot be read: {error.strerror}") from None
        name = str(image)
    if max(photo.shape) > MAX_SIDE:
        raise UserError(
            f"{name}: a side of {max(photo.shape)} pixels is more than the {MAX_SIDE} that can be"
        )
    return photo


def _to_tensor(photo: Picture) -> Tensor:
    return torch.from_numpy(photo).permute(2, 0, 1)


def _enlarged(logits: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[slice, Tensor]]:
    """Strips of rows of what `resize_bilinear` makes of logits (classes, h, w) at (H, W)."""
    height, width = shape
    identity = torch.eye(logits.shape[1], device=logits.device)[None, None]
    weights = resize_bilinear(identity, height, logits.shape[1])[0, 0]
    wide = resize_bilinear(logits[None], logits.shape[1], width)[0]
    for rows in strips(height, len(logits) * width):
        yield rows, weights[rows] @ wide
