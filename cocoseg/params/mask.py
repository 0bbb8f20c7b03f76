"""Section `mask`: how annotations become masks."""

from typing import Literal

from cocoseg.params.reader import Section


class MaskParams(Section):
    overlap: Literal["last", "small", "ignore"]
    crowd: Literal["ignore", "paint", "drop"]
