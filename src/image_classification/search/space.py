"""What is searched: settings and their bounds, and the values that a trial has of them."""

from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from image_classification.core.config import Config
from image_classification.core.errors import UserError

BOUNDS = {"low", "high", "log", "step"}


def distributions(space: Mapping[str, Any], prefix: str = "") -> dict[str, BaseDistribution]:
    """What Optuna draws from, by the dotted names of settings.

    Args:
        space: nested as in conf/; at each setting `choices`, or `low` and `high` and optionally
            `log` and `step`. Whole numbers, as bounds and step, give whole numbers. Nulls are
            ignored.
        prefix: of the names.

    Raises:
        UserError: names a setting whose bounds Optuna can't take.
    """
    found: dict[str, BaseDistribution] = {}
    for name, inner in space.items():
        key = f"{prefix}{name}"
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            raise UserError(f"search.space.{key}: must be {{choices: […]}} or {{low: …, high: …}}")
        given = {name: value for name, value in inner.items() if value is not None}
        if "choices" in given and len(given) > 1:
            others = ", ".join(f"{name}: null" for name in given if name != "choices")
            raise UserError(f"search.space.{key}: has choices and bounds: add {others}")
        if given.keys() == {"choices"} or {"low", "high"} <= given.keys() <= BOUNDS:
            try:
                found[key] = _distribution(given)
            except (TypeError, ValueError) as error:
                raise UserError(f"search.space.{key}: {error}") from error
        else:
            found |= distributions(inner, f"{key}.")
    return found


def _distribution(bounds: Mapping[str, Any]) -> BaseDistribution:
    if "choices" in bounds:
        if not isinstance(bounds["choices"], list):
            raise TypeError(f"choices must be a list, such as [{bounds['choices']!s:.50}]")
        return CategoricalDistribution(bounds["choices"])
    numbers = [value for key, value in bounds.items() if key != "log"]
    whole = all(isinstance(number, int) for number in numbers)
    return IntDistribution(**bounds) if whole else FloatDistribution(**bounds)


def suggest(trial: optuna.Trial, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """The values of a trial; asked again, they are the same."""
    return {key: trial._suggest(key, one) for key, one in space.items()}


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The configuration with these values of settings.

    Raises:
        UserError: a value is out of a setting's bounds, or there is no such setting.
        OmegaConfBaseException: it is of another type.
    """
    changed = OmegaConf.structured(config)
    for key, value in values.items():
        OmegaConf.update(changed, key, value)
    result = OmegaConf.to_object(changed)
    assert isinstance(result, Config)
    return result


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted names, nested as in conf/."""
    made: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        place = made
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return made


def words(values: Mapping[str, Any], model: str) -> Iterator[str]:
    """The values as `dvc exp run` takes them after `-S`; a model's are in its own file."""
    for key, value in values.items():
        own = key.removeprefix("model.")
        yield f"{key}={value}" if own == key else f"conf/model/{model}.yaml:{own}={value}"
