"""Prediction of any image with a model file.

import cocoseg
model = cocoseg.load("models/model.safetensors")      # or models/onnx/int8.onnx
result = model.predict("image.jpg")                   # or a PIL image, or uint8 (H, W, 3)
result.labels, result.classes, result.fractions()     # uint8 (H, W), names, {name: fraction}
result.overlay().save("overlay.png")
model.predict("large.jpg", tiles="full")              # as a whole and in overlapping tiles

The labels equal those of the evaluate stage. Logits are upsampled a strip of rows at a time, so
that memory holds the image and its labels but never the full logits.
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
from cocoseg.core.errors import MissingFileError, UserError
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
"""The longest side of an image in pixels, because overlays are written as JPEG."""

MAX_PREDICTION_PIXELS = 500_000_000
"""The largest image file that is decoded; Pillow allocates 2 GB for it."""

_WAITING = 200_000_000
"""The maximum number of bytes of images that wait for a full batch."""

_enough_memory = enough_memory("lower the batch size (--batch-size), or use the CPU")

ImageLike = str | Path | Image.Image | NDArray[np.uint8]
"""A path, a PIL image, or RGB values, uint8 (H, W, 3)."""

ImageT = TypeVar("ImageT", bound=ImageLike)

Strips = Callable[[], Iterator[tuple[slice, Tensor]]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of one image.

    Attributes:
        image: the image, RGB uint8 (H, W, 3).
        labels: the predicted labels, uint8 (H, W).
        classes: the class names in label order, background first.
        logits: computes ranges of rows and their logits, float32 (classes, rows, W).
    """

    image: RGBImage
    labels: Labels
    classes: tuple[str, ...]
    logits: Strips

    def fractions(self) -> dict[str, float]:
        """The fraction of pixels by class name, for all classes in label order."""
        counts = Image.fromarray(self.labels).histogram()
        return {name: counts[label] / self.labels.size for label, name in enumerate(self.classes)}

    def probabilities(self) -> NDArray[np.float16]:
        """The softmax of the logits, float16 (classes, H, W); with tiles, they are recomputed."""
        result = np.empty((len(self.classes), *self.labels.shape), np.float16)
        for rows, logits in self.logits():
            result[:, rows] = logits.softmax(dim=0).cpu().numpy()
        return result

    def overlay(self, opacity: float = 0.6) -> Image.Image:
        """Draw the classes and their borders over the image in their colors.

        Args:
            opacity: the opacity of the colors, from 0 to 1. The background is not colored.
        """
        height, width = self.labels.shape
        result = Image.new("RGB", (width, height))
        for rows in strips(height, 3 * width):
            # One more row on either side finds the borders across strips.
            above = max(rows.start - 1, 0)
            around = slice(above, rows.stop + 1)
            strip = overlay_labels(self.image[around], self.labels[around], opacity)
            own = strip[rows.start - above :][: rows.stop - rows.start]
            result.paste(Image.fromarray(own), (0, rows.start))
        return result


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model that predicts images; created by `load`.

    Attributes:
        network: the network of the model file.
    """

    network: Network

    @property
    def card(self) -> ModelCard:
        """The metadata of the model file."""
        return self.network.card

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in label order, background first."""
        return self.card.classes

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return self.network.device

    def predict(self, image: ImageLike, tiles: Tiles | None = None) -> Prediction:
        """Segment one image.

        Args:
            image: a path, a PIL image, or RGB values, uint8 (H, W, 3). The EXIF orientation of
                files and PIL images is applied.
            tiles: also divide a large image into overlapping tiles, which finds smaller objects:
                the side of a tile in pixels, or `full` for the network's full resolution.

        Raises:
            MissingFileError: the file does not exist.
            UserError: the file is damaged or has more than MAX_PREDICTION_PIXELS, a side is longer
                than MAX_SIDE, or the GPU is out of memory.
            ValueError: an array is not uint8 (H, W, 3).
        """
        ((_, result),) = self.predict_many([image], batch_size=8, tiles=tiles)
        if isinstance(result, UserError):
            raise result
        return result

    def predict_many(
        self, images: Iterable[ImageT], batch_size: int = 8, tiles: Tiles | None = None
    ) -> Iterator[tuple[ImageT, Prediction | UserError]]:
        """Segment many images, batching those of one shape.

        Args:
            images: the images, each as in `predict`.
            batch_size: the number of images of one shape, or of tiles of one image, in a batch.
            tiles: as in `predict`.

        Yields:
            Each image with its prediction, or with the error if it cannot be read. The order is the
            order of the batches; up to 200 MB of images wait for others of the same shape.
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
            same_shape = waiting.setdefault(resized.shape, [])
            same_shape.append((image, rgb, resized))
            if sum(rgb.size for batch in waiting.values() for _, rgb, _ in batch) > _WAITING:
                ready = list(waiting)
            else:
                ready = [resized.shape] if len(same_shape) == batch_size else []
            for shape in ready:
                yield from self._predict_batch(waiting.pop(shape))
        for batch in waiting.values():
            yield from self._predict_batch(batch)

    def _predict_batch(
        self, batch: Sequence[tuple[ImageT, RGBImage, Tensor]]
    ) -> Iterator[tuple[ImageT, Prediction]]:
        """Predict images (H, W, 3), each with its resized form (3, h, w) of one shape."""
        resized = torch.stack([image for _, _, image in batch])
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
    """Load a model file.

    Loading changes no state of the process: no seed, default device or deterministic mode.

    Args:
        path: `model.safetensors` of the train stage, or an ONNX file of the export stage.
        device: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`; `auto` prefers a GPU.

    Raises:
        MissingFileError: the file does not exist.
        UserError: the file is damaged or not from this project, or the device is not available.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return Predictor(load_onnx(path, device))
    return Predictor(TorchNetwork(*load_model(path), find_device(device)))


def _read_image(image: ImageLike) -> RGBImage:
    """The pixels of an image in its EXIF orientation, uint8 (H, W, 3)."""
    name = "image"
    if isinstance(image, np.ndarray):
        rgb = image
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
            raise ValueError(f"expected an image uint8 (H, W, 3), got {rgb.dtype} {rgb.shape}")
    elif isinstance(image, Image.Image):
        rgb = to_rgb(ImageOps.exif_transpose(image))
    else:
        name = str(image)
        try:
            rgb = read_rgb(Path(image), max_pixels=MAX_PREDICTION_PIXELS)
        except MissingFileError:
            raise
        except OSError as error:
            raise UserError(f"{image} cannot be read: {error.strerror}") from None
    if max(rgb.shape) > MAX_SIDE:
        raise UserError(
            f"{name}: a side has {max(rgb.shape)} pixels, more than the maximum of {MAX_SIDE}"
        )
    return rgb


def _to_tensor(image: RGBImage) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def _upsampled(logits: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[slice, Tensor]]:
    """Yield strips of logits (classes, h, w) as `resize_bilinear` upsamples them to (H, W)."""
    height, width = shape
    identity = torch.eye(logits.shape[1], device=logits.device)[None, None]
    weights = resize_bilinear(identity, height, logits.shape[1])[0, 0]
    wide = resize_bilinear(logits[None], logits.shape[1], width)[0]
    for rows in strips(height, len(logits) * width):
        yield rows, weights[rows] @ wide
