"""Section `split`: how images are divided into train, val and test."""

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cocoseg.params.reader import NonNegativeFloat, NonNegativeInt, Section, renamed_value


class RatioParams(Section):
    train: NonNegativeFloat
    val: NonNegativeFloat
    test: NonNegativeFloat

    @model_validator(mode="after")
    def _not_all_zero(self) -> "RatioParams":
        if self.train + self.val + self.test <= 0:
            raise ValueError("expected at least one ratio greater than 0")
        return self


class SplitParams(Section):
    from_: Literal["draw", "export"] = Field(alias="from")  # `from` is a Python keyword
    ratios: RatioParams
    folds: Annotated[int, Field(ge=2)]
    fold: NonNegativeInt | None
    group_by: Annotated[str, Field(min_length=1), renamed_value("folder", "directory")] | None
    keep_duplicates_together: bool
    seed: NonNegativeInt

    @field_validator("group_by")
    @classmethod
    def _one_group(cls, group_by: str | None, others: ValidationInfo) -> str | None:
        if group_by is not None and others.data.get("from_") == "export":
            raise ValueError("requires split.from: draw, because the splits of an export are kept")
        if group_by is not None and "(" in group_by:
            try:
                groups = re.compile(group_by).groups
            except re.error as error:
                raise ValueError(f"expected a valid regular expression ({error})") from None
            if groups != 1:
                raise ValueError("expected a regular expression with exactly one group")
        return group_by

    @field_validator("fold")
    @classmethod
    def _existing_fold(cls, fold: int | None, others: ValidationInfo) -> int | None:
        folds, ratios = others.data.get("folds"), others.data.get("ratios")
        if fold is not None and folds is not None and fold >= folds:
            raise ValueError(f"expected a number less than split.folds ({folds})")
        if fold is not None and others.data.get("from_") == "export":
            raise ValueError("requires split.from: draw, because the splits of an export are kept")
        if fold is not None and ratios is not None and not ratios.train:
            raise ValueError("requires split.ratios.train greater than 0")
        return fold
