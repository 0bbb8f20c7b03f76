"""From COCO instance annotations to a trained, scored segmentation model: the library.

import cocoseg
result = cocoseg.load("models/model.safetensors").predict("image.jpg")

Its packages in the order of the data; each imports only from those above it:

core         files, images, masks and processes, for every stage
params       the sections of params.yaml
coco         the COCO format
curation     selection, near-duplicates, splits
sources      where annotations and images come from
models       networks, their weights and devices
inference    running a network
training     the training loop
evaluation   scores, statistics, label errors
export       ONNX files
reports      HTML pages
experiments  comparing runs

`cli` is the command line. No stage depends on it or on `experiments`.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cocoseg.coco.instances import Annotation as Annotation
    from cocoseg.coco.instances import Category as Category
    from cocoseg.coco.instances import ImageRecord as ImageRecord
    from cocoseg.coco.instances import Instances as Instances
    from cocoseg.coco.instances import InvalidSegmentation as InvalidSegmentation
    from cocoseg.coco.instances import read_instances as read_instances
    from cocoseg.coco.rasterize import rasterize as rasterize
    from cocoseg.coco.writer import CocoWriter as CocoWriter
    from cocoseg.core.errors import MissingFileError as MissingFileError
    from cocoseg.core.errors import UserError as UserError
    from cocoseg.core.images import DamagedImage as DamagedImage
    from cocoseg.core.labels import IGNORE_INDEX as IGNORE_INDEX
    from cocoseg.core.labels import read_mask as read_mask
    from cocoseg.core.labels import write_mask as write_mask
    from cocoseg.evaluation.statistics import Comparison as Comparison
    from cocoseg.evaluation.statistics import ImageCounts as ImageCounts
    from cocoseg.evaluation.statistics import ScoredRun as ScoredRun
    from cocoseg.evaluation.statistics import compare_runs as compare_runs
    from cocoseg.inference.confusion import count_confusion as count_confusion
    from cocoseg.inference.confusion import summarize_scores as summarize_scores
    from cocoseg.inference.predictor import Prediction as Prediction
    from cocoseg.inference.predictor import Predictor as Predictor
    from cocoseg.inference.predictor import load as load

_MODULE_OF = {
    "Annotation": "coco.instances",
    "Category": "coco.instances",
    "CocoWriter": "coco.writer",
    "Comparison": "evaluation.statistics",
    "DamagedImage": "core.images",
    "IGNORE_INDEX": "core.labels",
    "ImageCounts": "evaluation.statistics",
    "ImageRecord": "coco.instances",
    "Instances": "coco.instances",
    "InvalidSegmentation": "coco.instances",
    "MissingFileError": "core.errors",
    "Prediction": "inference.predictor",
    "Predictor": "inference.predictor",
    "ScoredRun": "evaluation.statistics",
    "UserError": "core.errors",
    "compare_runs": "evaluation.statistics",
    "count_confusion": "inference.confusion",
    "load": "inference.predictor",
    "rasterize": "coco.rasterize",
    "read_instances": "coco.instances",
    "read_mask": "core.labels",
    "summarize_scores": "inference.confusion",
    "write_mask": "core.labels",
}

__all__ = ["__version__", *_MODULE_OF]
__version__ = metadata.version("cocoseg")


def __getattr__(name: str) -> Any:
    """A public name, imported on first use: PyTorch takes seconds to import."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'cocoseg' has no attribute {name!r}")
    value = getattr(import_module(f"cocoseg.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
