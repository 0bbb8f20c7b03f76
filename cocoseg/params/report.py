"""Section `report`: the title of the report."""

from typing import Annotated

from pydantic import Field

from cocoseg.params.reader import Section


class ReportParams(Section):
    title: Annotated[str, Field(min_length=1)]
