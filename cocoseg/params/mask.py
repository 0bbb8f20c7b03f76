"""Section `mask`: how annotations become masks."""

from typing import Annotated, Literal

from cocoseg.params.reader import Section, renamed_value


class MaskParams(Section):
    overlap: Annotated[Literal["last", "small", "ignore"], renamed_value("void", "ignore")]
    crowd: Annotated[Literal["ignore", "paint", "drop"], renamed_value("void", "ignore")]
