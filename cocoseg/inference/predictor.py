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
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from cocoseg.core.drawing import RGBImage, overlay_labels
from cocoseg.core.errors import UserError
from cocoseg.core.images import read_rgb, to_rgb
from cocoseg.core.labels import Labels
from cocoseg.inference.backends import Network, TorchNetwork, load_onnx
from cocoseg.inference.dataset import resize_shorter_side
from cocoseg.inference.tiling import Tiles, strips, tiled_logits
from cocoseg.models.devices import enough_memory, find_device
from cocoseg.models.heads import resize_bilinear
from cocoseg.models.networks import ModelCard, coarse_size
from cocoseg.models.weights import load_model

MAX_SIDE = 65_500
"""JPEG holds no longer sides, so an overlay could not be written."""

MAX_PREDICTION_PIXELS = 500_000_000
"""The largest image file that is decoded: Pillow takes 2 GB for it."""

_WAITING = 200_000_000
"""Bytes of photos."""

_enough_memory = enough_memory("lower the batch size (--batch-size), or take the CPU")

ImageLike = str | Path | Image.Image | NDArray[np.uint8]
"""A path, a PIL image, or RGB values, uint8 (H, W, 3)."""

ImageT = TypeVar("ImageT", bound=ImageLike)

Strips = Callable[[], Iterator[tuple[slice, Tensor]]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model sees in one photo.

    `photo` uint8 (H, W, 3), `labels` uint8 (H, W), `classes` names in label order; `logits` gives
    ranges of rows from top to bottom, and of each the logits, float32 (classes, rows, W).
    """

    image: RGBImage
    labels: Labels
    classes: tuple[str, ...]
    logits: Strips

    def fractions(self) -> dict[str, float]:
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
            strip = overlay_labels(self.image[around], self.labels[around], opacity)
            own = strip[rows.start - above :][: rows.stop - rows.start]
            picture.paste(Image.fromarray(own), (0, rows.start))
        return picture


@dataclass(frozen=True, eq=False)
class Predictor:
    """A loaded model; made by `load`.

    Attributes:
        network: the network that the model file holds.
    """

    network: Network

    @property
    def card(self) -> ModelCard:
        """What the model file says about itself."""
        return self.network.card

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in label order, background first."""
        return self.card.classes

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.network.device

    def predict(self, image: ImageLike, tiles: Tiles | None = None) -> Prediction:
        """Segment one image.

        Args:
            image: a path, a PIL image, or RGB values as uint8 (H, W, 3). Paths and PIL images are
                rotated as their EXIF orientation says.
            tiles: the side of the tiles in which a large image is seen as well, as in `tile_grids`.

        Raises:
            UserError: the file is missing or damaged, or has more than MAX_PREDICTION_PIXELS; a
                side is longer than MAX_SIDE; or the GPU memory is too small.
            ValueError: an array has another dtype or shape.
        """
        ((_, result),) = self.predict_many([image], batch_size=8, tiles=tiles)
        if isinstance(result, UserError):
            raise result
        return result

    def predict_many(
        self, images: Iterable[ImageT], batch_size: int = 8, tiles: Tiles | None = None
    ) -> Iterator[tuple[ImageT, Prediction | UserError]]:
        """Segment many images, those of one shape in batches.

        Args:
            images: each as in `predict`.
            batch_size: the number of images of one shape, or of tiles of one image, in a batch.
            tiles: as in `predict`.

        Yields:
            Each image with its prediction, or with the error of a file that cannot be read. The
            order is that of the batches: up to 200 MB of images wait for others of their shape.
        """
        waiting: dict[torch.Size, list[tuple[ImageT, RGBImage, Tensor]]] = {}
        for image in images:
            try:
                rgb = _read_image(image)
            except UserError as error:
                yield image, error
                continue
            if tiles:
                logits = functools.partial(
                    tiled_logits,
                    self._logits,
                    self.card,
                    _to_tensor(rgb),
                    tiles,
                    batch_size,
                    [self.card.size],
                )
                yield image, self._label(rgb, logits)
                continue
            resized = resize_shorter_side(_to_tensor(rgb), self.card.size)
            alike = waiting.setdefault(resized.shape, [])
            alike.append((image, rgb, resized))
            if sum(rgb.size for batch in waiting.values() for _, rgb, _ in batch) > _WAITING:
                ready = list(waiting)
            else:
                ready = [resized.shape] if len(alike) == batch_size else []
            for shape in ready:
                yield from self._predict_batch(waiting.pop(shape))
        for batch in waiting.values():
            yield from self._predict_batch(batch)

    def _predict_batch(
        self, batch: Sequence[tuple[ImageT, RGBImage, Tensor]]
    ) -> Iterator[tuple[ImageT, Prediction]]:
        """Predict images (H, W, 3), each with its resized form (3, h, w), all of one shape."""
        resized = torch.stack([images for _, _, images in batch])
        coarse = self._logits([resized], coarse_size(self.card, resized))
        for (image, rgb, _), logits in zip(batch, coarse, strict=True):
            yield image, self._label(rgb, functools.partial(_upsampled, logits, rgb.shape[:2]))

    @_enough_memory
    def _logits(self, inputs: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        (images,) = inputs
        return self.network(images, size)

    @_enough_memory
    def _label(self, image: RGBImage, logits: Strips) -> Prediction:
        labels = np.empty(image.shape[:2], np.uint8)
        for rows, values in logits():
            labels[rows] = values.max(dim=0).indices.to(torch.uint8).cpu().numpy()
        return Prediction(image, labels, self.classes, logits)


def load(path: str | Path, device: str = "auto") -> Predictor:
    """Load `model.safetensors` of the train stage or an ONNX file of the export stage.

    Nothing of the process changes: no seed, no default device, no deterministic mode.

    Args:
        path: the model file.
        device: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`; `auto` prefers a GPU.

    Raises:
        UserError: the file is missing (also a FileNotFoundError), damaged or not from this project,
            or the device is not available.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return Predictor(load_onnx(path, device))
    return Predictor(TorchNetwork(*load_model(path), find_device(device)))


def _read_image(image: ImageLike) -> RGBImage:
    """The image as a viewer shows it, uint8 (H, W, 3)."""
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
            photo = read_rgb(Path(image), max_pixels=MAX_PREDICTION_PIXELS)
        except OSError as error:
            raise UserError(f"{image} cannot be read: {error.strerror}") from None
        name = str(image)
    if max(photo.shape) > MAX_SIDE:
        raise UserError(
            f"{name}: a side of {max(photo.shape)} pixels is more than the {MAX_SIDE} that can be"
        )
    return photo


def _to_tensor(photo: RGBImage) -> Tensor:
    return torch.from_numpy(photo).permute(2, 0, 1)


def _upsampled(logits: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[slice, Tensor]]:
    """Strips of rows of what `resize_bilinear` makes of logits (classes, h, w) at (H, W)."""
    height, width = shape
    identity = torch.eye(logits.shape[1], device=logits.device)[None, None]
    weights = resize_bilinear(identity, height, logits.shape[1])[0, 0]
    wide = resize_bilinear(logits[None], logits.shape[1], width)[0]
    for rows in strips(height, len(logits) * width):
        yield rows, weights[rows] @ wide
