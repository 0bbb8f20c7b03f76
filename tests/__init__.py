"""The tests mirror `cocoseg/` and `stages/`; `tests/pipeline/` runs the real dvc command line."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder."""
