"""Fetch the annotations of the built-in sample, a COCO server or your own files.

Reads   the source given in params.yaml
Writes  data/annotations/instances.json
Run     python -m stages.download
"""

from pathlib import Path

from cocoseg.core.stage import run_stage
from cocoseg.params.download import DownloadParams
from cocoseg.params.reader import load_params
from cocoseg.params.runtime import RuntimeParams
from cocoseg.sources.source import open_source


def main() -> None:
    params = load_params(Path("params.yaml"))
    source = open_source(params[DownloadParams], params[RuntimeParams], Path("data/downloads"))
    source.write_annotations(Path("data/annotations/instances.json"))


if __name__ == "__main__":
    run_stage(main, Path("metrics/machine/download.json"))
