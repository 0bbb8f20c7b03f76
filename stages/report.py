"""Show the whole run on one page; it computes nothing new.

Reads   metrics/, params.yaml, and dvc.lock where there is one
Writes  metrics/report.html
Run     python -m stages.report
"""

import logging
from pathlib import Path

from cocoseg.files import write_text
from cocoseg.params import load_params
from cocoseg.report import make_report
from cocoseg.stage import run_stage


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
