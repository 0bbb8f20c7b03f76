"""The content of W&B's offline files: protocol buffers in LevelDB's log format.

https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, struct.Struct("<IHB")  # CRC, length and type of a fragment
_FULL, _FIRST, _LAST = 1, 2, 4


@dataclass
class OfflineRun:
    """A run in a directory such as `wandb/offline-run-DATE-ID`."""

    run_id: str = ""
    name: str = ""
    steps: list[int] = field(default_factory=list)


def offline_runs(directory: Path) -> list[OfflineRun]:
    """The runs in `wandb/`, oldest first; a resumed run occurs once for each start."""
    return [_read(path) for path in sorted(directory.glob("wandb/offline-run-*/*.wandb"))]


def _read(path: Path) -> OfflineRun:
    run = OfflineRun()
    for record in _records(path.read_bytes()):
        if record.HasField("run"):
            run.run_id, run.name = record.run.run_id, record.run.display_name
        elif record.HasField("history"):
            run.steps.append(record.history.step.num)
    return run


def _records(content: bytes) -> Iterator[Record]:
    place = _HEADER.size  # the header of the file has the same length
    whole = b""
    while place + _HEADER.size <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER.size:  # the end of the block is too short for a header
            place += left
            continue
        _, length, kind = _HEADER.unpack_from(content, place)
        place += _HEADER.size + length
        part = content[place - length : place]
        whole = part if kind in (_FULL, _FIRST) else whole + part
        if kind in (_FULL, _LAST) and len(part) == length:
            yield Record.FromString(whole)
