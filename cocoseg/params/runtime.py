"""Section `runtime`: settings of the machine. They change no result: no stage depends on them."""

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
        """The number of data loader processes; `auto` is the number of CPU cores, up to 16."""
        return min(os.cpu_count() or 1, 16) if self.workers == "auto" else self.workers
