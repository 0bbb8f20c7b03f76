"""The file of `cocoseg search`: parameters of the training and the values to try.

train.lr: {low: 0.001, high: 0.02, log: true}
train.batch_size: [4, 8, 16]
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from optuna import Trial
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from cocoseg.core.errors import UserError
from cocoseg.core.values import parse_yaml
from cocoseg.params.reader import Params, check_params

Space = dict[str, BaseDistribution]
"""The values to try by key. Values of a list are texts as in `dvc exp run -S KEY=TEXT`."""


def read_space(path: Path, params: Params) -> Space:
    """Read a search space, and check each bound and each listed value as a parameter.

    Args:
        path: a YAML file that maps keys such as `train.lr` to `{low: …, high: …, log: true}` or to
            a list of values. Only keys of the section `train` are allowed: with others, the
            validation images or their masks differ between trials, and so do the scores.
        params: the current parameters.

    Raises:
        UserError: the file or a value is invalid, or the file does not exist.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path} is not a file; see docs/search.md for an example") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: expected parameters and the values to try, see docs/search.md")
    return {
        str(key): _distribution(path, str(key), found, params) for key, found in content.items()
    }


def _distribution(path: Path, key: str, found: Any, params: Params) -> BaseDistribution:
    section, _, name = key.partition(".")
    if section != "train" or name not in params.values["train"] or name == "seed":
        raise UserError(
            f"{path}: {key}: expected a key of the section train except train.seed, such as "
            "train.lr; `cocoseg compare` compares settings of other sections"
        )

    def check(value: Any) -> None:
        check_params({**params.values, "train": {**params.values["train"], name: value}}, path)

    if isinstance(found, list) and len(found) > 1:
        for value in found:
            check(value)
        return CategoricalDistribution([override(value) for value in found])
    if not isinstance(found, dict) or not {"low", "high"} <= found.keys() <= {"low", "high", "log"}:
        raise UserError(
            f"{path}: {key}: expected {{low: NUMBER, high: NUMBER}}, with log: true for a "
            "logarithmic scale, or a list of at least two values"
        )
    low, high, log = found["low"], found["high"], found.get("log", False)
    numbers = [bound for bound in (low, high) if type(bound) in (int, float)]
    if len(numbers) < 2 or not low < high or not math.isfinite(high - low) or (log and low <= 0):
        raise UserError(
            f"{path}: {key}: expected numbers with low < high, and low > 0 with log: true"
        )
    check(low)
    check(high)
    if type(low) is int and type(high) is int:
        try:
            check(low + 0.5)
        except UserError:  # not a fraction: the parameter is an integer
            return IntDistribution(low, high, log=bool(log))
    return FloatDistribution(low, high, log=bool(log))


def suggest(trial: Trial, space: Space) -> dict[str, str]:
    """Let the sampler of a trial choose a value for each key, as texts for `-S KEY=TEXT`."""
    for key, found in space.items():
        if isinstance(found, CategoricalDistribution):
            trial.suggest_categorical(key, found.choices)
        elif isinstance(found, IntDistribution):
            trial.suggest_int(key, found.low, found.high, log=found.log)
        elif isinstance(found, FloatDistribution):
            trial.suggest_float(key, found.low, found.high, log=found.log)
    return as_texts(trial.params, space)


def as_texts(values: dict[str, Any], space: Space) -> dict[str, str]:
    """Format the values of a trial as texts for `-S KEY=TEXT`; proposals have three digits."""
    return {key: _as_text(values[key], space[key]) for key in space}


def _as_text(value: Any, found: BaseDistribution) -> str:
    if isinstance(found, FloatDistribution) and value != float(f"{value:.6g}"):  # a proposal
        value = min(max(float(f"{value:.3g}"), found.low), found.high)
    return value if isinstance(value, str) else override(value)


def current_values(space: Space, params: Params) -> dict[str, Any] | None:
    """The values of `params`, as Optuna records them; None if one is not in the search space."""
    values = {}
    for key, found in space.items():
        value = params.values["train"][key.partition(".")[2]]
        if isinstance(found, CategoricalDistribution):
            value = override(value)
            known = value in found.choices
        else:
            assert isinstance(found, IntDistribution | FloatDistribution)
            known = type(value) in (int, float) and found.low <= value <= found.high
        if not known:
            return None
        values[key] = value
    return values


def override(value: Any) -> str:
    """Format a value for `dvc exp run -S KEY=VALUE`, in the grammar of Hydra."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{override(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(override, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_./][\w./-]*", value):
        return value if value not in ("true", "false", "null") else json.dumps(value)
    return json.dumps(value, ensure_ascii=False)
