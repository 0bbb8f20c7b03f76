"""Show the whole run on one page; it computes nothing new.

Reads   metrics/, params.yaml, and dvc.lock where there is one
Writes  metrics/report.html
Run     python -m stages.report
"""

import logging
from pathlib import Path

from cocoseg.common.files import write_text
from cocoseg.common.params import load_params
from cocoseg.common.stage import run_stage
from cocoseg.results.report import make_report


def main() -> None:
    params = load_params(Path("params.yaml"))
    page = make_report(
        Path("metrics"),
        # What runtime says changes no result.
        params.model_dump(exclude={"runtime", "report"}),
        Path("dvc.lock"),
        params.report.title,
    )
    write_text(Path("metrics/report.html"), page)
    logging.info("metrics/report.html: %.1f MB, opens in any browser", len(page) / 1e6)


if __name__ == "__main__":
    run_stage(main, None)
