"""What W&B's offline files hold: its protocol buffers, as LevelDB's log format keeps records.

https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, struct.Struct("<IHB")  # CRC, length and type of a part of a record
_FULL, _FIRST, _LAST = 1, 2, 4


@dataclass
class OfflineRun:
    """What one folder such as `wandb/offline-run-DATE-ID` tells of its run."""

    run_id: str = ""
    name: str = ""
    steps: list[int] = field(default_factory=list)


def offline_runs(directory: Path) -> list[OfflineRun]:
    """The runs below `wandb/` of a folder by their age, one that went on as often as it did."""
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
    place = _HEADER.size  # the file's own header is of that length as well
    whole = b""
    while place + _HEADER.size <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER.size:  # what no header fits into ends a block
            place += left
            continue
        _, length, kind = _HEADER.unpack_from(content, place)
        place += _HEADER.size + length
        part = content[place - length : place]
        whole = part if kind in (_FULL, _FIRST) else whole + part
        if kind in (_FULL, _LAST) and len(part) == length:
            yield Record.FromString(whole)
