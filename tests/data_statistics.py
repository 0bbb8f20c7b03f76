"""Statistics of small selections."""

from pathlib import Path

from cocoseg.coco.instances import Instances
from cocoseg.coco.rasterize import Crowd, write_masks
from cocoseg.reports.data.measure import DataStatistics, measure


def measured(
    selection: Instances, directory: Path, *, workers: int = 1, crowd: Crowd = "ignore"
) -> DataStatistics:
    """Write the masks of a selection to a directory and measure both."""
    directory.mkdir(exist_ok=True)
    write_masks(selection, directory, overlap="last", crowd=crowd, workers=1)
    return measure(selection, directory, workers)
