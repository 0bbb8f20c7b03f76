"""The typed form of params.yaml: unknown keys, wrong types and impossible values are refused.

params = load_params(Path("params.yaml"))
params.filter.max_instances
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from cocoseg.common.errors import UserError

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _matching(pattern: str, wanted: str) -> AfterValidator:
    """Texts that match `pattern` as a whole; an error says in words what is `wanted`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"should be {wanted}")
        return text

    return AfterValidator(check)


Address = Annotated[
    str,
    _matching(r"https?://[^/\s].*|file:///.*", "an http://, https:// or file:/// address"),
]
Location = Annotated[
    str,
    _matching(
        r"https?://[^/\s].*|file:///.*|(?!\w+://).+",
        "a path, or an http://, https:// or file:/// address",
    ),
]
Md5 = Annotated[str, _matching("[0-9a-f]{32}", "32 hexadecimal digits, or null for no check")]
Device = Annotated[
    str, _matching(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, mps, cuda or cuda:NUMBER")
]


class Section(BaseModel):
    """A part of params.yaml. Strict: `"10"` is no number, and a misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


class SampleParams(Section):
    images: PositiveInt
    width: Annotated[int, Field(ge=64, le=1024)]
    height: Annotated[int, Field(ge=48, le=1024)]
    seed: NonNegativeInt


class CocoParams(Section):
    base_url: Address
    split: Literal["train2014", "val2014", "train2017", "val2017"]
    md5: Md5 | None


class FilesPair(Section):
    annotations: Location
    images: Location
    split: Literal["train", "val", "test"] | None = None


class FilesParams(Section):
    folder: Annotated[str, Field(min_length=1)]
    pairs: Annotated[list[FilesPair], Field(min_length=1)]


class DownloadParams(Section):
    source: Literal["sample", "coco", "files"]
    sample: SampleParams
    coco: CocoParams
    files: FilesParams


class FilterParams(Section):
    classes: Annotated[
        Annotated[Literal["all"], Tag("a word")]
        | Annotated[
            list[Annotated[str, Field(min_length=1)]],
            Field(min_length=1, max_length=254),
            Tag("a list"),
        ],
        Discriminator(lambda classes: "a word" if isinstance(classes, str) else "a list"),
    ]
    max_instances: PositiveInt
    max_images: PositiveInt
    prefer: Literal["rare", "random", "first"]
    seed: NonNegativeInt
    exclude: Annotated[str, Field(min_length=1)]

    @field_validator("classes")
    @classmethod
    def _no_class_twice(cls, classes: list[str] | str) -> list[str] | str:
        if isinstance(classes, str):
            return classes
        repeated = sorted({name for name in classes if classes.count(name) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} is listed more than once")
        if "background" in classes:
            raise ValueError("background is label 0 already; list the other classes only")
        return classes


class MaskParams(Section):
    overlap: Literal["last", "small", "void"]
    crowd: Literal["void", "paint", "drop"]


class RatioParams(Section):
    train: NonNegativeFloat
    val: NonNegativeFloat
    test: NonNegativeFloat

    @model_validator(mode="after")
    def _not_all_zero(self) -> "RatioParams":
        if self.train + self.val + self.test <= 0:
            raise ValueError("at least one ratio must be above zero")
        return self


class SplitParams(Section):
    from_: Literal["draw", "export"] = Field(alias="from")  # `from` is a word of Python
    ratios: RatioParams
    folds: Annotated[int, Field(ge=2)]
    fold: NonNegativeInt | None
    group_by: Annotated[str, Field(min_length=1)] | None
    keep_duplicates_together: bool
    seed: NonNegativeInt

    @field_validator("group_by")
    @classmethod
    def _one_group(cls, group_by: str | None, others: ValidationInfo) -> str | None:
        if group_by is not None and others.data.get("from_") == "export":
            raise ValueError("needs split.from: draw, since an export's splits are kept")
        if group_by is not None and "(" in group_by:
            try:
                groups = re.compile(group_by).groups
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"a regular expression needs one group in it, not {groups}")
        return group_by

    @field_validator("fold")
    @classmethod
    def _one_of_the_folds(cls, fold: int | None, others: ValidationInfo) -> int | None:
        folds, ratios = others.data.get("folds"), others.data.get("ratios")
        if fold is not None and folds is not None and fold >= folds:
            raise ValueError(f"should be below split.folds, which is {folds}")
        if fold is not None and others.data.get("from_") == "export":
            raise ValueError("needs split.from: draw, since folds are drawn")
        if fold is not None and ratios is not None and not ratios.train:
            raise ValueError("needs a split.ratios.train above zero")
        return fold


class RuntimeParams(Section):
    device: Device
    workers: NonNegativeInt | Literal["auto"]
    connections: Annotated[int, Field(gt=0, le=256)]

    def worker_count(self) -> int:
        """How many processes prepare data; `auto` is one for each core, at most 16."""
        return min(os.cpu_count() or 1, 16) if self.workers == "auto" else self.workers


class TrainParams(Section):
    architecture: Literal[
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3plus_mobilenet_v3_large",
        "deeplabv3_resnet50",
        "deeplabv3_resnet101",
        "lraspp_mobilenet_v3_large",
    ]
    weights: Annotated[str, Field(min_length=1)]
    size: Annotated[int, Field(ge=32)]
    crop: Annotated[int, Field(ge=32)]
    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    lr: PositiveFloat
    backbone_lr_factor: PositiveFloat
    warmup: Share
    weight_decay: NonNegativeFloat
    ema_decay: Share
    aux_weight: NonNegativeFloat
    dice_weight: NonNegativeFloat
    class_weights: Literal["none", "frequency"] | dict[str, PositiveFloat]
    scale: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]
    colour: Share
    precision: Literal["float32", "bfloat16"]
    compile: bool
    threads: PositiveInt
    processes: PositiveInt
    seed: NonNegativeInt

    @field_validator("scale")
    @classmethod
    def _ascending(cls, scale: list[float]) -> list[float]:
        if scale[0] > scale[1]:
            raise ValueError("the smaller scale comes first")
        return scale

    @field_validator("processes")
    @classmethod
    def _equal_shares(cls, processes: int, others: ValidationInfo) -> int:
        batch_size = others.data.get("batch_size", 0)
        if batch_size % processes:
            raise ValueError(f"should divide train.batch_size, which is {batch_size}")
        return processes


class EvaluateParams(Section):
    batch_size: PositiveInt
    threads: PositiveInt
    examples: NonNegativeInt
    scales: Annotated[list[PositiveFloat], Field(min_length=1, max_length=8)]
    flip: bool
    tiles: Annotated[int, Field(ge=32)] | Literal["full"] | None


class MaxLoss(Section):
    float32: NonNegativeFloat
    float16: NonNegativeFloat
    int8: NonNegativeFloat


class ExportParams(Section):
    opset: Annotated[int, Field(ge=13, le=20)]
    variants: list[Literal["float32", "float16", "int8"]]
    max_loss: MaxLoss
    calibration_images: PositiveInt
    batch_size: PositiveInt
    threads: PositiveInt

    @field_validator("variants")
    @classmethod
    def _float32_among_them(cls, variants: list[str]) -> list[str]:
        if "float32" not in variants or len(set(variants)) < len(variants):
            raise ValueError(
                "should name each once, and float32 among them, of which the others are made"
            )
        return variants


class ReportParams(Section):
    title: Annotated[str, Field(min_length=1)]


class Params(Section):
    download: DownloadParams
    filter: FilterParams
    mask: MaskParams
    split: SplitParams
    train: TrainParams
    evaluate: EvaluateParams
    export: ExportParams
    report: ReportParams
    runtime: RuntimeParams


def load_params(path: Path) -> Params:
    """Read and check a parameter file.

    Raises UserError with one line that names each wrong key, such as
    `params.yaml: filter.max_instances: input should be greater than 0 (is -1)`.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"{path} not found: run from the project's folder") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; presets/ has whole files to start from") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no sections; presets/ has whole files to start from")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: " + "; ".join(map(_describe, error.errors()))) from None


class _Yaml12(yaml.SafeLoader):
    """PyYAML with YAML 1.2's plain scalars, as DVC reads and writes them: 1e-05 is a number, `no`
    a text. A key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if (identity := (key.tag, str(key.value))) in seen:
                problem = f'found duplicate key "{key.value}"'
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(identity)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _construct_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    digits = node.value.replace("_", "").lstrip("+")
    return int(digits, 0 if re.match("-?0[box]", digits) else 10)


# What ruamel.yaml, DVC's reader, resolves; it allows underscores in numbers as YAML 1.1 does.
_SCALARS = {
    "bool": ("tTfF", "true|True|TRUE|false|False|FALSE"),
    "int": ("-+0123456789", r"[-+]?(?:0b[01_]+|0o?[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)"),
    "float": (
        "-+0123456789.",
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)"
        r"|\.[0-9_]+(?:[eE][-+][0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
    ),
}
_TAG = "tag:yaml.org,2002:"
_Yaml12.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) not in _SCALARS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_first, _pattern) in _SCALARS.items():
    _Yaml12.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), list(_first))
_Yaml12.add_constructor(f"{_TAG}int", _construct_integer)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises UserError as `parse_yaml` does."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None


def parse_yaml(text: str, name: str) -> Any:
    """The content of YAML, as DVC reads it: YAML 1.2, in which 1e-05 is a number.

    Raises UserError with the line where it is no YAML; `name` says of which file.
    """
    try:
        return yaml.load(text, _Yaml12)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        reason = f"line {mark.line + 1}: {problem}" if mark else " ".join(str(error).split())
        raise UserError(f"{name} is not valid YAML: {reason}") from None


def _describe(error: Any) -> str:
    """One pydantic error as `section.key: what is wrong (is VALUE)`."""
    parts = [str(part) for part in error["loc"] if not _is_union_branch(part)]
    key = ".".join(parts)
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove or correct it"
    if error["type"] == "missing":
        return f"{key}: missing; presets/ shows every key"
    if error["type"] == "model_type":
        return f"{key}: should be a section with keys of its own; presets/ shows them"
    message = error["msg"].removeprefix("Value error, ")
    described = f"{key}: {message[0].lower()}{message[1:]}"
    if isinstance(error["input"], dict):
        return described
    shown = repr(error["input"])
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"{described} (is {shown})"


def _is_union_branch(part: Any) -> bool:
    """pydantic puts the tried alternative of `int | Literal[...]` into the location as well."""
    return isinstance(part, str) and not part.isidentifier()
