"""Networks ready to run, whatever computes them: PyTorch or ONNX Runtime.

network = TorchNetwork(*load_model(Path("models/model.safetensors")), torch.device("cpu"))
network = load_onnx(Path("models/onnx/float32.onnx"))
logits = network(images, (480, 640))
"""

import functools
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import onnxruntime
import torch
from torch import Tensor

from cocoseg.core.errors import UserError
from cocoseg.models.networks import ModelCard, SegmentationNetwork, fold_batch_norms


class Network(Protocol):
    """From images, resized for the network, to logits of any size.

    Attributes:
        card: the classes and the input size of the model.
        device: where the logits are.
    """

    card: ModelCard
    device: torch.device

    def __call__(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Compute logits.

        Args:
            images: RGB, uint8 (B, 3, h, w), with `card.size` pixels on the shorter side.
            size: the (H, W) of the logits.

        Returns:
            Logits, float32 (B, classes, H, W), on `device`.
        """


class TorchNetwork:
    """A PyTorch model in evaluation mode, its batch norms folded, as a Network."""

    def __init__(self, model: SegmentationNetwork, card: ModelCard, device: torch.device) -> None:
        self.card = card
        self.device = device
        self._model = fold_batch_norms(model).to(device)

    @torch.inference_mode()
    def __call__(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        logits: Tensor = self._model(normalize(images.to(self.device), self.card), size)["out"]
        return logits


class OnnxNetwork:
    """An ONNX file that the export stage wrote, as a Network; made by `load_onnx`."""

    def __init__(self, session: onnxruntime.InferenceSession, card: ModelCard) -> None:
        self.card = card
        self.device = torch.device("cpu")
        self._session = session

    def __call__(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        inputs = {"images": images.contiguous().numpy(), "size": np.array(size)}
        (logits,) = self._session.run(["logits"], inputs)
        return torch.from_numpy(logits)


def load_onnx(path: Path, device: str = "cpu", threads: int = 0) -> OnnxNetwork:
    """Load an ONNX file of the export stage.

    Args:
        path: the file.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: the number of CPU threads; 0 uses all cores.

    Raises:
        UserError: the file is missing, damaged or not from this project, or the device is not
            available.
    """
    if not path.is_file():
        raise UserError(f"{path} not found: run `dvc repro export`, or fetch it with `dvc pull`")
    providers = _providers(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are for its developers
    # Threads that wait in a busy loop take the processor from other networks of this process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise UserError(f"{path} is damaged or not an ONNX file: {error}") from None
    metadata = session.get_modelmeta().custom_metadata_map
    if "cocoseg" not in metadata:
        raise UserError(f"{path} has no cocoseg metadata: it was not written by the export stage")
    return OnnxNetwork(session, msgspec.json.decode(metadata["cocoseg"], type=ModelCard))


def _providers(device: str) -> list[str | tuple[str, dict[str, int]]]:
    gpu = "CUDAExecutionProvider"
    has_gpu = gpu in onnxruntime.get_available_providers()
    kind, _, number = device.partition(":")
    if kind == "cpu" or (kind == "auto" and not has_gpu):
        return ["CPUExecutionProvider"]
    if kind in ("auto", "cuda") and has_gpu:
        return [(gpu, {"device_id": int(number or 0)}), "CPUExecutionProvider"]
    raise UserError(
        f"{device} is not available to ONNX models here: use cpu, or install onnxruntime-gpu"
    )


def normalize(images: Tensor, card: ModelCard) -> Tensor:
    """uint8 (B, 3, H, W) to the network's normalized float32 input, channels last."""
    shift, scale = _by_channel(card.mean, images.device), _by_channel(card.std, images.device)
    return ((images.float() - shift) / scale).contiguous(memory_format=torch.channels_last)


@functools.lru_cache(maxsize=16)  # each copy to a GPU would wait for it
@torch.inference_mode(False)  # cached while predicting, it is used in training as well
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Values of RGB from 0 to 1 as (1, 3, 1, 1) from 0 to 255."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1) * 255
