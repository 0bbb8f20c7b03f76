"""From COCO instance annotations to a trained, scored segmentation model: the library.

import cocoseg
result = cocoseg.load("models/model.safetensors").predict("photo.jpg")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cocoseg.prediction import load as load


def __getattr__(name: str) -> Any:
    """`cocoseg.load`, imported when it is first asked for: PyTorch takes seconds to import."""
    if name == "load":
        from cocoseg.prediction import load

        return load
    raise AttributeError(f"module 'cocoseg' has no attribute {name!r}")
