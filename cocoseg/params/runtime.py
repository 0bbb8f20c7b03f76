"""Section `runtime`: the machine; it never changes a result, so no stage depends on it."""

import os
from typing import Annotated, Literal

from pydantic import Field

from cocoseg.params.reader import NonNegativeInt, Section, matching

Device = Annotated[
    str, matching(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, mps, cuda or cuda:NUMBER")
]


class RuntimeParams(Section):
    device: Device
    workers: NonNegativeInt | Literal["auto"]
    connections: Annotated[int, Field(gt=0, le=256)]

    def worker_count(self) -> int:
        """How many processes prepare data; `auto` is one for each core, at most 16."""
        return min(os.cpu_count() or 1, 16) if self.workers == "auto" else self.workers
