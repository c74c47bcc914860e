"""JSON and YAML files that people or stages wrote, read within stated limits."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from image_classification.core.errors import UserError

LARGEST_MAPPING = 2**18  # bytes of a JSON or YAML file
MOST_VALUES = 100_000  # in such a file, with YAML's aliases expanded
COSTS = (  # the numbers in a file of costs
    *("parameters", "model_bytes", "fit_seconds"),
    *("microseconds_batch_1", "microseconds_batch_256"),
)
DEEPEST = 20  # mappings and lists within each other


def read_mapping(path: Path, hint: str, largest: int = LARGEST_MAPPING) -> dict[str, Any]:
    """Read a JSON (`.json`) or YAML file that holds a mapping, of at most so many bytes.

    Returns:
        Strings (without NUL), booleans, numbers (integers of 64 bits), None, lists and mappings
        with strings as keys; empty for an empty YAML file.

    Raises:
        UserError: the file is missing, too large, or holds something else; ends with the hint.
    """
    try:
        text = _bytes(path, largest).decode()
        value = json.loads(text) if path.suffix == ".json" else _load_yaml(text)
        _require_small(value, _parts)
        _require_plain(value)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {hint}") from error
    except yaml.YAMLError as error:
        cause = " ".join(str(error).split())[:400]
        raise UserError(f"{path}: not valid YAML: {cause}: {hint}") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested deeper than {DEEPEST} levels: {hint}") from error
    # YAML's constructors raise any of these where a text does not fit its type.
    except (ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())[:200]}: {hint}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a mapping, is {type(value).__name__}: {hint}")
    return value


def read_numbers(path: Path, keys: Iterable[str] | None, hint: str) -> dict[str, Any]:
    """Read a JSON file in which these keys, or all where None are named, have finite numbers.

    Raises:
        UserError: see `read_mapping`; or names the key.
    """
    values = read_mapping(path, hint)
    for key in values if keys is None else keys:
        value: Any = values.get(key)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise UserError(f"{path}: {key} must be a finite number, is {value!r:.50}: {hint}")
    return values


def read_training(path: Path, hint: str) -> dict[str, Any]:
    """What `train` recorded about a run; see `paths.TRAINING_FILE`."""
    training = read_numbers(path, ("parameters", "epochs", "fit_seconds"), hint)
    for key in ("run", "model_sha256"):
        if not isinstance(training.get(key), str):
            raise UserError(f"{path}: {key} must be a string: {hint}")
    if not isinstance(training.get("provenance"), dict):
        raise UserError(f"{path}: provenance must be a mapping: {hint}")
    return training


def read_costs(path: Path, hint: str) -> dict[str, Any]:
    """What `evaluate` measured of a model's costs, and the machine that it was timed on.

    Raises:
        UserError: see `read_numbers`; or the machine is not named.
    """
    costs = read_numbers(path, COSTS, hint)
    if not isinstance(costs.get("machine"), str):
        raise UserError(f"{path}: machine must be a string: {hint}")
    return {key: costs[key] for key in (*COSTS, "machine")}


def _bytes(path: Path, most: int) -> bytes:
    with path.open("rb") as stream:
        contents = stream.read(most + 1)
    if len(contents) > most:
        raise ValueError(f"larger than {most} bytes")
    return contents


def _load_yaml(text: str) -> Any:
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):  # does not recurse, as what follows does
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return {}
        # Before the merge keys (<<) are resolved, which expands aliases.
        _require_small(node, _part_nodes)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _part_nodes(node: Any) -> Sequence[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else ()


def _parts(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _require_small(root: Any, parts: Callable[[Any], Sequence[Any]]) -> None:
    """Limit how much a value holds; what occurs twice counts twice."""
    rest, count = [(root, 0)], 0
    while rest:
        value, depth = rest.pop()
        count += 1
        if count > MOST_VALUES:
            raise ValueError(f"holds more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise RecursionError
        rest += [(part, depth + 1) for part in parts(value)]


def _require_plain(value: object) -> None:
    for part in _parts(value):
        _require_plain(part)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r:.50} must be a string")
            _require_plain(key)
    elif isinstance(value, str):
        value.encode()  # rejects lone surrogates
        if "\0" in value:
            raise ValueError(f"the text {value!r:.50} must not hold NUL")
    elif isinstance(value, int):
        if value.bit_length() > 64:
            raise ValueError("an integer is larger than 64 bits")
    elif not (value is None or isinstance(value, float | list)):
        raise ValueError(f"a {type(value).__name__} is neither text nor number: put it in quotes")
