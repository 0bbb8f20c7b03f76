"""Prediction of any image with a model file.

import cocoseg
model = cocoseg.load("models/model.safetensors")      # or models/onnx/int8.onnx
result = model.predict("image.jpg")                   # or a PIL image, or uint8 (H, W, 3)
result.labels, result.classes, result.fractions()     # uint8 (H, W), names, {name: fraction}
result.overlay().save("overlay.png")
model.predict("large.jpg", tiles="full")              # as a whole and in overlapping tiles
model.predict(["a.jpg", "b.jpg"])                     # a list of results, computed in batches

The labels equal those of the evaluate stage. Logits are upsampled a strip of rows at a time, so
that memory holds the image and its labels but never the full logits.
"""

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import PicklingError
from typing import BinaryIO, Generic, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from cocoseg.core.drawing import RGBImage, add_legend, overlay_labels
from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.core.images import pixels_in_header, read_rgb, to_rgb
from cocoseg.core.labels import Labels
from cocoseg.core.parallel import in_threads
from cocoseg.inference.backends import Network, OnnxNetwork, TorchNetwork, load_onnx
from cocoseg.inference.batches import Views, averaged_logits
from cocoseg.inference.dataset import resize_shorter_side
from cocoseg.inference.tiling import Tiles, strips, tiled_logits
from cocoseg.models.devices import enough_memory, find_device
from cocoseg.models.heads import resize_bilinear
from cocoseg.models.networks import ModelCard, coarse_size
from cocoseg.models.weights import load_model, load_torchvision

MAX_SIDE = 65_500
"""The longest side of an image in pixels, because overlays are written as JPEG."""

MAX_PREDICTION_PIXELS = 500_000_000
"""The largest image file that is decoded; Pillow allocates 2 GB for it."""

READ_AHEAD = 64_000_000
"""The maximum number of bytes of images that threads decode ahead of the network."""

THREADS = min(8, os.cpu_count() or 1)
"""The number of threads that decode images."""

_WAITING = 200_000_000
"""The maximum number of bytes of images that wait for a full batch, and of the logits of tiles that
are kept for `Prediction.probabilities`."""

_enough_memory = enough_memory("lower the batch size (--batch-size), or use the CPU")

ImageLike = str | Path | BinaryIO | Image.Image | NDArray[np.uint8]
"""A path, an open file, a PIL image, or RGB values, uint8 (H, W, 3)."""

ImageT = TypeVar("ImageT", bound=ImageLike)
KeyT = TypeVar("KeyT")

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
        """The softmax of the logits, float16 (classes, H, W).

        With tiles, the network runs again for those whose logits exceed 200 MB.
        """
        result = np.empty((len(self.classes), *self.labels.shape), np.float16)
        for rows, logits in self.logits():
            result[:, rows] = logits.softmax(dim=0).cpu().numpy()
        return result

    def overlay(self, opacity: float = 0.6, legend: bool = False) -> Image.Image:
        """Draw the classes and their borders over the image in their colors.

        Args:
            opacity: the opacity of the colors, from 0 to 1. The background is not colored.
            legend: add the names and colors of the classes in the image below it, unless the result
                would be higher than MAX_SIDE.
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
        if legend:
            labels = np.flatnonzero(Image.fromarray(self.labels).histogram())
            explained = add_legend(result, labels, self.classes)
            return explained if explained.height <= MAX_SIDE else result
        return result


@dataclass(frozen=True, eq=False)
class Predictor:
    """A model that predicts images; created by `load`.

    A pickled predictor consists of the path and the device, and is loaded again. Several threads
    may use a predictor at the same time.

    Attributes:
        network: the network of the model file.
        source: the arguments of `load`, for pickling.
        loaded_in: the process that loaded the network.
    """

    network: Network
    source: tuple[str, str] | None = None
    loaded_in: int = field(default_factory=os.getpid)

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

    def __reduce__(self) -> tuple[Callable[[str, str], "Predictor"], tuple[str, str]]:
        if self.source is None:
            raise PicklingError("only predictors that `load` returned can be pickled")
        return load, self.source

    @overload
    def predict(
        self,
        image: ImageLike,
        tiles: Tiles | None = None,
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        batch_size: int = 8,
    ) -> Prediction: ...

    @overload
    def predict(
        self,
        image: list[ImageT],
        tiles: Tiles | None = None,
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        batch_size: int = 8,
    ) -> list[Prediction]: ...

    def predict(
        self,
        image: ImageLike | list[ImageT],
        tiles: Tiles | None = None,
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        batch_size: int = 8,
    ) -> Prediction | list[Prediction]:
        """Segment an image, or a list of images in batches.

        Args:
            image: a path, a binary file, a PIL image, or RGB values, uint8 (H, W, 3); or a list of
                these. The EXIF orientation of files and PIL images is applied.
            tiles: also divide a large image into overlapping tiles, which finds smaller objects:
                the side of a tile in pixels, or `full` for the network's full resolution.
            flip: average the probabilities of the image and of its mirror image.
            scales: average the probabilities at these multiples of the network's input size.
            batch_size: the number of images of one shape, or of tiles of one image, in a batch.

        Returns:
            The prediction, or those of a list in its order.

        Raises:
            MissingFileError: a file does not exist.
            UserError: a file is damaged or has more than MAX_PREDICTION_PIXELS, a side is longer
                than MAX_SIDE, the GPU is out of memory, or the process was forked after it had used
                a model (see `load`).
            ValueError: an array is not uint8 (H, W, 3).
        """
        views = Views(scales, flip, tiles)
        if not isinstance(image, list):
            ((_, result),) = self._predict_keyed([(None, image)], batch_size, views, threads=0)
            return _or_raise(result)
        results = dict(self._predict_keyed(enumerate(image), batch_size, views, THREADS))
        return [_or_raise(results[number]) for number in range(len(image))]

    def predict_many(
        self,
        images: Iterable[ImageT],
        batch_size: int = 8,
        tiles: Tiles | None = None,
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
    ) -> Iterator[tuple[ImageT, Prediction | UserError]]:
        """Segment many images, batching those of one shape; threads decode them ahead.

        Args:
            images: the images, each as in `predict`.
            batch_size: the number of images of one shape, or of tiles of one image, in a batch.
            tiles: as in `predict`.
            flip: as in `predict`.
            scales: as in `predict`.

        Yields:
            Each image with its prediction, or with the error if it cannot be read. The order is the
            order of the batches; up to 200 MB of images wait for others of the same shape.
        """
        keyed = ((image, image) for image in images)
        yield from self._predict_keyed(keyed, batch_size, Views(scales, flip, tiles), THREADS)

    def _predict_keyed(
        self,
        images: Iterable[tuple[KeyT, ImageLike]],
        batch_size: int,
        views: Views,
        threads: int,
    ) -> Iterator[tuple[KeyT, Prediction | UserError]]:
        """Predict images, each with a key that identifies its result."""
        _refuse_forked(self.device)
        if isinstance(self.network, OnnxNetwork) and self.loaded_in != os.getpid():
            raise UserError(
                "an ONNX model cannot be used in a process that was forked after it was loaded: "
                "load it in the new process"
            )
        sizes = [] if views.tiles else views.sizes(self.card.size)

        def read(keyed: tuple[KeyT, ImageLike]) -> _Read[KeyT] | tuple[KeyT, UserError]:
            key, image = keyed
            try:
                rgb = _read_image(image)
            except UserError as error:
                return key, error
            return _Read(key, rgb, [resize_shorter_side(_to_tensor(rgb), s) for s in sizes])

        waiting: dict[tuple[torch.Size, ...], list[_Read[KeyT]]] = {}
        ready: list[tuple[torch.Size, ...]]
        for image in in_threads(read, images, threads, size=_bytes_to_read, max_size=READ_AHEAD):
            if isinstance(image, tuple):
                yield image
                continue
            if views.tiles:
                logits = self._tile_logits(_to_tensor(image.rgb), views, views.tiles, batch_size)
                yield image.key, self._label(image.rgb, logits)
                continue
            shapes = tuple(resized.shape for resized in image.resized)
            same_shape = waiting.setdefault(shapes, [])
            same_shape.append(image)
            if sum(image.rgb.size for batch in waiting.values() for image in batch) > _WAITING:
                ready = list(waiting)
            else:
                ready = [shapes] if len(same_shape) == batch_size else []
            for shapes in ready:
                yield from self._predict_batch(waiting.pop(shapes), views.flip)
        for batch in waiting.values():
            yield from self._predict_batch(batch, views.flip)

    def _predict_batch(
        self, batch: "Sequence[_Read[KeyT]]", flip: bool
    ) -> Iterator[tuple[KeyT, Prediction]]:
        coarse: list[Tensor] = []  # the logits of each view (B, classes, h, w)
        for views in zip(*(image.resized for image in batch), strict=True):
            resized = torch.stack(views)
            size = coarse_size(self.card, resized)
            coarse.append(self._logits(resized, size))
            if flip:
                coarse.append(self._logits(resized.flip(-1), size).flip(-1))
        for image, *logits in zip(batch, *coarse, strict=True):
            strips_of_image = functools.partial(_upsampled_mean, logits, image.rgb.shape[:2])
            yield image.key, self._label(image.rgb, strips_of_image)

    def _tile_logits(self, image: Tensor, views: Views, tiles: Tiles, batch_size: int) -> Strips:
        """A function that yields strips of the logits of an image (3, H, W) in tiles.

        When it is called again, the logits of the first tiles, up to _WAITING bytes, are known.
        """
        known: list[Tensor] = []

        def strips_of_image() -> Iterator[tuple[slice, Tensor]]:
            calls = 0

            def network(inputs: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
                nonlocal calls
                calls += 1
                if calls <= len(known):
                    return known[calls - 1]
                logits = self._averaged_logits(inputs, size, views.flip)
                if calls == len(known) + 1 and sum(t.nbytes for t in known) < _WAITING:
                    known.append(logits)
                return logits

            sizes = views.sizes(self.card.size)
            return tiled_logits(network, self.card, image, tiles, batch_size, sizes)

        return strips_of_image

    @_enough_memory
    def _logits(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        return self.network(images, size)

    @_enough_memory
    def _averaged_logits(
        self, inputs: Sequence[Tensor], size: tuple[int, int], flip: bool
    ) -> Tensor:
        return averaged_logits(self.network, inputs, size, flip)

    @_enough_memory
    def _label(self, image: RGBImage, logits: Strips) -> Prediction:
        labels = np.empty(image.shape[:2], np.uint8)
        for rows, values in logits():
            labels[rows] = values.max(dim=0).indices.to(torch.uint8).cpu().numpy()
        return Prediction(image, labels, self.classes, logits)


def load(path: str | Path, device: str = "auto") -> Predictor:
    """Load a model file, or one of torchvision's models.

    Loading changes no state of the process: no seed, default device or deterministic mode. In a
    process that was forked after a model was used, PyTorch hangs unless
    `torch.set_num_threads(1)` was called or another thread predicts; then `load` and `predict`
    raise a UserError.

    Args:
        path: `model.safetensors` of the train stage, an ONNX file of the export stage, or
            `torchvision:NAME`, which downloads the COCO weights of torchvision's segmentation
            network NAME once.
        device: `auto`, `cpu`, `mps`, `cuda` or `cuda:N`; `auto` prefers a GPU.

    Raises:
        MissingFileError: the file does not exist.
        UserError: the file is damaged, not from this project or cannot be downloaded, or the device
            is not available.
    """
    path = Path(path)
    source = str(path.absolute())
    if path.suffix == ".onnx":
        return Predictor(load_onnx(path, device), (source, device))
    found = find_device(device)
    _refuse_forked(found)
    if str(path).startswith("torchvision:"):
        source = str(path)
        model, card = load_torchvision(source.removeprefix("torchvision:"))
    else:
        model, card = load_model(path)
    return Predictor(TorchNetwork(model, card, found), (source, device))


_used_in: set[int] = set()
"""The processes, this one and its ancestors, in which PyTorch may have started threads."""


def _refuse_forked(device: torch.device) -> None:
    """Raise UserError where PyTorch would wait forever for threads that a fork did not copy."""
    process = os.getpid()
    if _used_in - {process}:
        if device.type == "cuda":
            raise UserError(
                "a process that was forked after a model was used cannot use the GPU: start it "
                "with the start method `spawn`"
            )
        in_forked_thread = threading.current_thread() is threading.main_thread()
        if in_forked_thread and torch.get_num_threads() > 1:
            raise UserError(
                "PyTorch would hang in this process, which was forked after a model was used: "
                "load models only after the fork, or call torch.set_num_threads(1) in the new "
                "process first"
            )
    _used_in.add(process)


@dataclass(frozen=True, eq=False)
class _Read(Generic[KeyT]):
    """A decoded image (H, W, 3) and its resized forms (3, h, w)."""

    key: KeyT
    rgb: RGBImage
    resized: Sequence[Tensor]


def _or_raise(result: Prediction | UserError) -> Prediction:
    if isinstance(result, UserError):
        raise result
    return result


def _bytes_to_read(keyed: tuple[object, ImageLike]) -> int:
    """The bytes that decoding allocates."""
    _, image = keyed
    if isinstance(image, np.ndarray):
        return 0
    if isinstance(image, Image.Image):
        return 3 * image.width * image.height
    return 3 * pixels_in_header(_as_file(image))


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
        name = str(image) if isinstance(image, str | Path) else name
        try:
            rgb = read_rgb(_as_file(image), max_pixels=MAX_PREDICTION_PIXELS)
        except MissingFileError:
            raise
        except OSError as error:
            raise UserError(f"{image} cannot be read: {error.strerror}") from None
    if max(rgb.shape) > MAX_SIDE:
        raise UserError(
            f"{name}: a side has {max(rgb.shape)} pixels, more than the maximum of {MAX_SIDE}"
        )
    return rgb


def _as_file(image: str | Path | BinaryIO) -> Path | BinaryIO:
    return Path(image) if isinstance(image, str | Path) else image


def _to_tensor(image: RGBImage) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def _upsampled_mean(
    views: Sequence[Tensor], shape: tuple[int, ...]
) -> Iterator[tuple[slice, Tensor]]:
    """Yield strips of the logits of a view, or of the log of the views' mean probabilities."""
    if len(views) == 1:
        yield from _upsampled(views[0], shape)
        return
    upsampled = [_upsampled(logits, shape) for logits in views]
    for rows, logits in upsampled[0]:
        total = logits.softmax(dim=0)
        for others in upsampled[1:]:
            total += next(others)[1].softmax(dim=0)
        yield rows, (total / len(views)).clamp_min(1e-30).log()  # log(0) is -inf


def _upsampled(logits: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[slice, Tensor]]:
    """Yield strips of logits (classes, h, w) as `resize_bilinear` upsamples them to (H, W)."""
    height, width = shape
    identity = torch.eye(logits.shape[1], device=logits.device)[None, None]
    weights = resize_bilinear(identity, height, logits.shape[1])[0, 0]
    wide = resize_bilinear(logits[None], logits.shape[1], width)[0]
    for rows in strips(height, len(logits) * width):
        yield rows, weights[rows] @ wide
