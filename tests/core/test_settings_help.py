"""`--help`: the settings of a stage, one a line."""

import contextlib
import re
from pathlib import Path

import pytest
from conftest import ROOT, Compose

from image_classification.__main__ import STAGES
from image_classification.core import settings_help
from image_classification.core.errors import UserError


def test_every_stage_has_its_settings_and_all_of_them_are_explained() -> None:
    with contextlib.chdir(ROOT):
        known = settings_help.meanings()

    assert set(settings_help.SETTINGS) == set(STAGES)
    for names in settings_help.SETTINGS.values():
        for name in names:
            assert name in known or (name[-1] == "." and any(key.startswith(name) for key in known))


def test_the_split_lists_the_settings_of_ones_own_images() -> None:
    assert {"data.path", "data.resize", "data.bad_files", "data.test_share"} <= set(
        settings_help.SETTINGS["split"]
    )
    assert "data.folds" in settings_help.SETTINGS["train"]


def test_a_setting_is_one_line_with_its_value_and_the_meaning_that_the_docs_give(
    compose: Compose,
) -> None:
    config = compose("model=tiny_cnn", "recipe.epochs=17", "seed=3")
    with contextlib.chdir(ROOT):
        page = settings_help.page("train", config)

    docs = (ROOT / "docs/settings.md").read_text().replace("`", "")
    shown = {}
    for line in re.findall(r"^  ([a-z_.]+ +.*)$", page, re.MULTILINE):
        name, value, text = re.split(r"  +", line, maxsplit=2)
        assert f"| {name} | {text.replace(': ', ' | ', 1)} |" in docs
        shown[name] = value
    assert shown["recipe.epochs"] == "17"
    assert shown["model"] == "tiny_cnn"
    assert shown["seed"] == "3"
    assert shown["model.layers"] == "convolution, pooling, f…"  # whole, it would fill a page
    assert shown["model.jit_compile"] == "false"
    assert "data.mirrors" not in shown  # `train` takes no notice of it


def test_without_its_page_help_says_how_to_get_it_back(compose: Compose, tmp_path: Path) -> None:
    config = compose()
    with contextlib.chdir(tmp_path), pytest.raises(UserError, match=r"git checkout docs/settings"):
        settings_help.page("train", config)
