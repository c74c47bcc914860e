"""How conf/, params.yaml and the command line become one typed configuration."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict

from image_classification.core import paths, readers
from image_classification.core.config import Config, flatten
from image_classification.core.errors import UserError, explain, rejected

GROUPS = ("data", "recipe", "augmentation", "model", "promotion")  # the folders of conf/
SETTINGS_HINT = "fix it; docs/settings.md lists the settings"


def typed(composed: DictConfig) -> Config:
    """The typed, resolved and checked form of what Hydra composed from conf/config.yaml.

    Raises:
        UserError: a value is out of its bounds.
        OmegaConfBaseException: a value is missing or of another type.
    """
    # Merged again: Hydra's `+key=value` adds keys that the schema does not know.
    untyped = OmegaConf.to_container(composed)
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), untyped))
    assert isinstance(config, Config)
    return config


def require_small_files(root: Path) -> None:
    """Check before Hydra reads conf/ that no file in it takes minutes to read.

    Args:
        root: of the project.

    Raises:
        UserError: names the file.
    """
    for path in sorted((root / paths.CONF).rglob("*.yaml")):
        if path.stat().st_size > readers.LARGEST_MAPPING:
            raise UserError(
                f"{path.relative_to(root)}: larger than {readers.LARGEST_MAPPING:,} bytes: "
                "make it smaller"
            )


def compose(*overrides: str) -> Config:
    """The configuration that a command with these overrides gets, for use from Python.

    Raises:
        UserError: the working folder is in no project, a file in conf/ is too large, Hydra can't
            parse an argument, or a value is out of its bounds.
        HydraException, OmegaConfBaseException: there is no such file, key or type of value.
    """
    root = paths.project_root()
    require_small_files(root)
    params = readers.read_mapping(root / paths.PARAMS, SETTINGS_HINT)
    with hydra.initialize_config_dir(str(root / paths.CONF), version_base="1.3"):
        arguments = with_params(["output_dir=outputs", *overrides], params)
        try:
            composed = hydra.compose("config", arguments, return_hydra_config=True)
        except Exception as error:
            if explain(error) is not None:
                raise
            raise rejected(arguments, error) from error
    HydraConfig.instance().set_config(composed)  # conf/config.yaml takes the groups' names from it
    with open_dict(composed):
        del composed["hydra"]
    return typed(composed)


def with_params(overrides: list[str], params: Mapping[str, Any]) -> list[str]:
    """Overrides, preceded by the settings of params.yaml that they do not name.

    `recipe.name=notebook` becomes Hydra's `recipe=notebook`: a setting has one name for all tools.

    Args:
        overrides: in Hydra's grammar, without flags.
        params: the contents of params.yaml; nulls are left to conf/.

    Raises:
        UserError: a key of params.yaml is not a valid name for Hydra.
    """
    group_name = re.compile(rf"^({'|'.join(GROUPS)})\.name=")
    overrides = [group_name.sub(r"\1=", override) for override in overrides]
    given = {override.partition("=")[0] for override in overrides}
    settings = [(key, value) for key, value in flatten(params) if value is not None]
    for key, _ in settings:
        if not re.fullmatch(r"[A-Za-z_][\w.@/-]*", key):
            raise UserError(
                f"{paths.PARAMS}: {key!r:.50} cannot be the name of a setting: {SETTINGS_HINT}"
            )
    words = [group_name.sub(r"\1=", f"{key}={_word(value)}") for key, value in settings]
    return [*(word for word in words if word.partition("=")[0] not in given), *overrides]


def _word(value: object) -> str:
    """A value in the grammar of Hydra's command line, whose escapes are not those of JSON."""
    if isinstance(value, list):
        return f"[{', '.join(map(_word, value))}]"
    if isinstance(value, str):
        return QuotedString(value, Quote.double).with_quotes()
    return json.dumps(value)
