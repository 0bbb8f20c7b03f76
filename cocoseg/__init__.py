"""From COCO instance annotations to a trained, scored segmentation model: the library.

import cocoseg
result = cocoseg.load("models/model.safetensors").predict("photo.jpg")

Its packages, along the data's way; each may import only from those above it:

common       what every stage uses
annotations  reading, selection, splits, masks, pictures of them
sources      where annotations and images come from
network      the network and running it on photos
learning     training
scoring      scores
deployment   ONNX, prediction
results      the pages of the data and of the run, and the command `cocoseg`
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cocoseg.deployment.prediction import load as load


def __getattr__(name: str) -> Any:
    """`cocoseg.load`, imported when it is first asked for: PyTorch takes seconds to import."""
    if name == "load":
        from cocoseg.deployment.prediction import load

        return load
    raise AttributeError(f"module 'cocoseg' has no attribute {name!r}")
