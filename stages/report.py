"""Show the whole run on one page, from the results of the other stages.

Reads   metrics/, params.yaml, dvc.lock if it exists
Writes  metrics/report.html
Run     python -m stages.report
"""

import logging
from pathlib import Path

from cocoseg.core.files import write_text
from cocoseg.core.stage import run_stage
from cocoseg.params.reader import load_params
from cocoseg.params.report import ReportParams
from cocoseg.reports.run import make_report

_NOT_SHOWN = ("runtime", "report")
"""Sections that change no score."""


def main() -> None:
    params = load_params(Path("params.yaml"))
    page = make_report(
        Path("metrics"),
        {name: values for name, values in params.values.items() if name not in _NOT_SHOWN},
        Path("dvc.lock"),
        params[ReportParams].title,
    )
    write_text(Path("metrics/report.html"), page)
    logging.info("metrics/report.html: %.1f MB, opens in any browser", len(page) / 1e6)


if __name__ == "__main__":
    run_stage(main, None)
