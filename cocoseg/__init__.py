"""COCO instance annotations to a trained and scored segmentation model: the library.

import cocoseg
result = cocoseg.load("models/model.safetensors").predict("image.jpg")

The packages, each of which imports only from those above it:

core         files, images, masks and processes, for every stage
params       the sections of params.yaml
coco         the COCO format
curation     selection, near-duplicates, splits
sources      downloading, reading or drawing annotations and images
models       networks, weights and devices
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

if TYPE_CHECKING:  # for type checkers and editors; `as` marks a name as public
    from cocoseg.coco.instances import Annotation as Annotation
    from cocoseg.coco.instances import Category as Category
    from cocoseg.coco.instances import ImageRecord as ImageRecord
    from cocoseg.coco.instances import Instances as Instances
    from cocoseg.coco.instances import InvalidSegmentation as InvalidSegmentation
    from cocoseg.coco.instances import ReadResult as ReadResult
    from cocoseg.coco.instances import read_instances as read_instances
    from cocoseg.coco.rasterize import rasterize as rasterize
    from cocoseg.coco.rejections import Rejection as Rejection
    from cocoseg.coco.writer import CocoWriter as CocoWriter
    from cocoseg.core.errors import MissingFileError as MissingFileError
    from cocoseg.core.errors import UserError as UserError
    from cocoseg.core.images import DamagedImage as DamagedImage
    from cocoseg.core.labels import IGNORE_INDEX as IGNORE_INDEX
    from cocoseg.core.labels import read_mask as read_mask
    from cocoseg.core.labels import write_mask as write_mask
    from cocoseg.evaluation.statistics import Comparison as Comparison
    from cocoseg.evaluation.statistics import Difference as Difference
    from cocoseg.evaluation.statistics import ImageCounts as ImageCounts
    from cocoseg.evaluation.statistics import ScoredRun as ScoredRun
    from cocoseg.evaluation.statistics import compare_runs as compare_runs
    from cocoseg.inference.confusion import Scores as Scores
    from cocoseg.inference.confusion import count_confusion as count_confusion
    from cocoseg.inference.confusion import score_masks as score_masks
    from cocoseg.inference.confusion import summarize_scores as summarize_scores
    from cocoseg.inference.predictor import Prediction as Prediction
    from cocoseg.inference.predictor import Predictor as Predictor
    from cocoseg.inference.predictor import load as load

__version__: str  # read on first use

_NAMES_IN = {
    "coco.instances": (
        "Annotation Category ImageRecord Instances InvalidSegmentation ReadResult read_instances"
    ),
    "coco.rasterize": "rasterize",
    "coco.rejections": "Rejection",
    "coco.writer": "CocoWriter",
    "core.errors": "MissingFileError UserError",
    "core.images": "DamagedImage",
    "core.labels": "IGNORE_INDEX read_mask write_mask",
    "evaluation.statistics": "Comparison Difference ImageCounts ScoredRun compare_runs",
    "inference.confusion": "Scores count_confusion score_masks summarize_scores",
    "inference.predictor": "Prediction Predictor load",
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names.split()}

if not TYPE_CHECKING:  # type checkers would accept any name
    __all__ = ["__version__", *_MODULE_OF]

    def __getattr__(name: str) -> Any:
        """Import a public name on first use, because importing PyTorch takes seconds."""
        if name == "__version__":
            value = metadata.version("cocoseg")
        elif name in _MODULE_OF:
            value = getattr(import_module(f"cocoseg.{_MODULE_OF[name]}"), name)
        else:
            raise AttributeError(f"module 'cocoseg' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted(__all__)
