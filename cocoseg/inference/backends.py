"""Networks ready for inference, on PyTorch or ONNX Runtime.

network = TorchNetwork(*load_model(Path("models/model.safetensors")), torch.device("cpu"))
network = load_onnx(Path("models/onnx/float32.onnx"))
logits = network(images, (480, 640))
"""

import functools
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from cocoseg.core.errors import MissingFileError, UserError
from cocoseg.models.networks import (
    ModelCard,
    SegmentationNetwork,
    fold_batch_norms,
    parse_card,
)


class Network(Protocol):
    """A function from resized images to logits of any size.

    Attributes:
        card: the metadata of the model.
        device: the device of the logits.
    """

    card: ModelCard
    device: torch.device

    def __call__(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute logits.

        Args:
            images: RGB, uint8 (B, 3, h, w), as `resize_shorter_side` returns them.
            size: the (height, width) of the logits.

        Returns:
            Logits, float32 (B, classes, *size), on `device`.
        """

    def labels(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Predict labels, uint8 (B, *size), of images as in `__call__`."""
        return self(images, size).max(dim=1).indices.to(torch.uint8)


class TorchNetwork(Network):
    """A PyTorch model in evaluation mode with folded batch norms, as a Network."""

    def __init__(self, model: SegmentationNetwork, card: ModelCard, device: torch.device) -> None:
        self.card = card
        self.device = device
        self._model = fold_batch_norms(model).to(device)

    @torch.inference_mode()
    def __call__(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        logits: Tensor = self._model(normalize(images.to(self.device), self.card), size)["out"]
        return logits


class OnnxNetwork(Network):
    """An ONNX file of the export stage, as a Network on the CPU; created by `load_onnx`."""

    def __init__(self, session: onnxruntime.InferenceSession, card: ModelCard) -> None:
        self.card = card
        self.device = torch.device("cpu")
        self.inputs = [value.name for value in session.get_inputs()]
        self.outputs = [value.name for value in session.get_outputs()]
        self._session = session

    def __call__(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        return self._run("logits", images, size)

    def labels(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        if "labels" in self.outputs:
            return self._run("labels", images, size)
        return super().labels(images, size)

    def feeds(self, images: Tensor, size: tuple[int, int]) -> dict[str, NDArray[Any]]:
        """The arguments of `__call__` as inputs of the file; with a fixed size, only the images."""
        values = {"images": images.contiguous().numpy(), "size": np.array(size)}
        return {name: values[name] for name in self.inputs}

    def _run(self, output: str, images: Tensor, size: tuple[int, int]) -> Tensor:
        (result,) = self._session.run([output], self.feeds(images, size))
        return torch.from_numpy(result)


def load_onnx(path: Path, device: str = "cpu", threads: int = 0) -> OnnxNetwork:
    """Load an ONNX file of the export stage that has logits of any size.

    Args:
        path: the file.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: the number of CPU threads; 0 uses all cores.

    Raises:
        MissingFileError: the file does not exist.
        UserError: the file is damaged, not from this project, or written for other runtimes, or the
            device is not available.
    """
    network = open_onnx(path, device, threads)
    if "logits" not in network.outputs or "size" not in network.inputs:
        key = "output" if "logits" not in network.outputs else "fixed_size"
        raise UserError(
            f"{path} was written with export.{key} for other runtimes: use models/model.safetensors"
        )
    return network


def open_onnx(path: Path, device: str = "cpu", threads: int = 0) -> OnnxNetwork:
    """Open an ONNX file of the export stage as `load_onnx` does, with any inputs and outputs."""
    if not path.is_file():
        raise MissingFileError(
            f"{path} not found: in the project's directory, create it with `dvc repro export` or "
            "fetch it with `dvc pull`"
        )
    providers = _providers(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only: the warnings are for developers
    # Idle threads that spin would slow down the other networks of this process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise UserError(f"{path} is damaged or not an ONNX file: {error}") from None
    metadata = session.get_modelmeta().custom_metadata_map
    if "cocoseg" not in metadata:
        raise UserError(f"{path} has no cocoseg metadata: use a file that the export stage wrote")
    return OnnxNetwork(session, parse_card(metadata["cocoseg"], path))


def _providers(device: str) -> list[str | tuple[str, dict[str, int]]]:
    gpu = "CUDAExecutionProvider"
    has_gpu = gpu in onnxruntime.get_available_providers()
    kind, _, number = device.partition(":")
    if kind == "cpu" or (kind == "auto" and not has_gpu):
        return ["CPUExecutionProvider"]
    if kind in ("auto", "cuda") and has_gpu:
        return [(gpu, {"device_id": int(number or 0)}), "CPUExecutionProvider"]
    raise UserError(
        f"{device} is not available for ONNX models: use cpu, or install onnxruntime-gpu"
    )


def normalize(images: Tensor, card: ModelCard) -> Tensor:
    """Normalize RGB images, uint8 (B, 3, H, W), to float32 in channels-last memory format."""
    shift, scale = _by_channel(card.mean, images.device), _by_channel(card.std, images.device)
    return ((images.float() - shift) / scale).contiguous(memory_format=torch.channels_last)


@functools.lru_cache(maxsize=16)  # each copy to a GPU would synchronize with it
@torch.inference_mode(False)  # the cached tensors are also used in training
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """RGB values from 0 to 1 as a tensor (1, 3, 1, 1) from 0 to 255."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1) * 255
