"""The commands and settings that messages advise exist."""

import ast
import re
import shlex
from collections.abc import Iterator

import pytest
import yaml
from conftest import ROOT, Compose

from image_classification import __main__ as door
from image_classification import evaluate
from image_classification.core import paths
from image_classification.core.compose import GROUPS
from image_classification.core.errors import UserError

STAGES = set(yaml.safe_load((ROOT / paths.PIPELINE).read_text())["stages"])
PAGE = (ROOT / paths.SETTINGS_PAGE).read_text()
OPTIONS = {"--force", "--single-item"}  # of `dvc repro`


def messages() -> Iterator[str]:
    """Every text of the code, `X` for what is filled in; docstrings as well."""
    for file in sorted((ROOT / paths.SOURCE).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [n.value if isinstance(n, ast.Constant) else "X" for n in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_commands_that_messages_advise_exist() -> None:
    found = [text for message in messages() for text in re.findall(r"`([a-z][^`]+)`", message)]
    repro = [shlex.split(part) for text in found for part in text.split(" && ") if "dvc " in part]
    own = [shlex.split(text) for text in found if text.startswith("image-classification ")]

    assert len(repro) > 10  # the search finds them
    for program, *words in repro:
        targets = [word for word in words[1:] if word not in OPTIONS and word[0] != "-"]
        assert program == "dvc"
        assert words[0] != "repro" or {target.partition("@")[0] for target in targets} <= STAGES
    named = re.findall(r"image-classification (\w+)", door.USAGE)
    assert {words[1] for words in own} <= {*door.STAGES, *named} - {"STAGE"}


def test_the_settings_that_messages_advise_exist() -> None:
    advised = {
        name
        for message in messages()
        for name in re.findall(r"\b((?:hydra|data|recipe|model)(?:\.[a-z_]+)+)=", message)
    }

    assert advised
    assert {name for name in advised if f"`{name}`" not in PAGE} <= {f"{g}.name" for g in GROUPS}


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        (["model=lm", "seed=3"], "run `dvc repro train@lm-3`"),
        (["model=lm", "seed=7"], "put the model and the seed into params.yaml and run `dvc repro`"),
        (["model=nn", "seed=3"], "put the model and the seed into params.yaml and run `dvc repro`"),
    ],
)
def test_evaluate_advises_a_stage_only_where_the_pipeline_has_it(
    compose: Compose, workspace: object, overrides: list[str], advice: str
) -> None:
    config = compose("models=[lm]", "seeds=[3]", *overrides)

    with pytest.raises(UserError, match="holds no trained model") as raised:
        evaluate.evaluate(config)

    assert str(raised.value).endswith(advice)
