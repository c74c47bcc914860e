import contextlib
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Compose
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from image_classification.core import compose as composing
from image_classification.core.compose import typed, with_params
from image_classification.core.config import flatten
from image_classification.core.errors import UserError, explain, without_login

MODELS = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("recipe", ["fast", "notebook"])
def test_every_model_composes_with_every_recipe(compose: Compose, model: str, recipe: str) -> None:
    config = compose(f"model={model}", f"recipe={recipe}")

    assert config.model.name == model
    assert config.recipe.name == recipe
    assert config.output_dir == "outputs"


def test_the_notebook_recipe_is_the_studys_for_every_model(compose: Compose) -> None:
    recipes = [compose(f"model={model}", "recipe=notebook").recipe for model in MODELS]

    assert {(r.epochs, r.batch_size, r.learning_rate, r.schedule) for r in recipes} == {
        (20, 32, 0.001, "constant")
    }


def test_a_model_overrides_the_fast_recipe_where_it_says_so(compose: Compose) -> None:
    configs = [compose(f"model={model}", "recipe=fast") for model in MODELS]
    common = next(asdict(config.recipe) for config in configs if not config.model.fast)

    assert [asdict(config.recipe) for config in configs] == [
        common | config.model.fast for config in configs
    ]
    assert any(asdict(config.recipe) != common for config in configs)


def test_a_mistyped_setting_of_a_model_for_the_fast_recipe_is_refused(compose: Compose) -> None:
    with pytest.raises(UserError, match=r"model\.fast: must be settings among epochs, "):
        compose("model=lm", "+model.fast.epoch=3")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/srv/birds-1.0", "birds-1.0"),
        ("/srv/birds-1.1", "birds-1.1"),
        ("/srv/birds.npz", "birds"),
        ("mine.PY", "mine"),
        ("/srv/my birds.csv", "my-birds"),
        ("/", "folder"),
    ],
)
def test_a_data_set_is_called_after_its_path(compose: Compose, path: str, name: str) -> None:
    assert replace(compose("data=folder").data, path=path).dataset == name


def test_a_model_may_not_take_an_alias_of_the_registry(compose: Compose) -> None:
    config = compose("model=lm").model

    for name in ("champion", "candidate", "Latest", "v3", "3"):
        with pytest.raises(UserError, match=r"model\.name: must be none of champion"):
            replace(config, name=name)


def test_a_model_has_a_name_that_mlflow_takes(compose: Compose) -> None:
    config = compose("model=lm").model

    assert replace(config, name="größer_2-b").name == "größer_2-b"
    for name in ("v1.5", "a/b", "a:b", "50%", "a b", ""):
        with pytest.raises(UserError, match=r"model\.name: must be of letters, digits, _ and -"):
            replace(config, name=name)


def test_the_command_line_wins_over_params_yaml_and_params_yaml_over_conf() -> None:
    params = {"recipe": {"name": "fast", "epochs": 7, "batch_size": None}, "seeds": [0, 1]}

    overrides = with_params(["model=nn,cnn", "recipe.epochs=3"], params)

    assert overrides == ['recipe="fast"', "seeds=[0, 1]", "model=nn,cnn", "recipe.epochs=3"]


def test_a_group_has_the_same_name_for_hydra_and_dvc() -> None:
    params = {"recipe": {"name": "fast"}, "augmentation": {"name": "none"}}

    assert with_params(["recipe.name=notebook", "augmentation.name=light"], params) == [
        "recipe=notebook",
        "augmentation=light",
    ]


def test_values_of_params_yaml_reach_the_config(configuration: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(configuration / "conf")
    params = yaml.safe_load((configuration / "params.yaml").read_text())
    params["models"], params["seeds"], params["recipe"]["epochs"] = ["nn", "lm"], [4, 2], 17
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    with contextlib.chdir(tmp_path):
        config = composing.compose()

    assert (config.models, config.seeds, config.recipe.epochs) == (["nn", "lm"], [4, 2], 17)


def test_a_file_that_would_take_minutes_to_read_is_refused_by_every_command(
    configuration: Path, tmp_path: Path
) -> None:
    shutil.copytree(configuration, tmp_path, dirs_exist_ok=True)
    (tmp_path / "conf/model/huge.yaml").write_text("# " + "x" * 2**18)
    (tmp_path / "inner").mkdir()

    with (
        contextlib.chdir(tmp_path / "inner"),
        pytest.raises(UserError, match=r"^conf/model/huge\.yaml: larger than 262,144 bytes"),
    ):
        composing.compose()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://ann:pass@host/x", "http://host/x"),
        ("http://ann:p@ss@host:5000", "http://host:5000"),
        ("postgresql://ann:p/ss@host/db", "postgresql://host/db"),
        ("postgresql://ann:p/s@s@host/db", "postgresql://host/db"),
        ("http://token@host", "http://host"),
        ("http://host:5000/ann@x", "http://host:5000/ann@x"),
        ("http://host/ann@x", "http://host/ann@x"),
        ("sqlite:////home/ann@x/mlflow.db", "sqlite:////home/ann@x/mlflow.db"),
    ],
)
def test_no_part_of_a_login_is_shown(address: str, shown: str) -> None:
    assert without_login(address) == shown


def test_the_params_yaml_of_this_project_composes_with_each_of_its_models() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    given = {key: value for key, value in flatten(params) if value is not None}

    for model in params["models"]:
        with contextlib.chdir(ROOT):
            config = composing.compose(f"model={model}")

        assert config.model.name == model
        assert (config.models, config.seeds) == (params["models"], params["seeds"])
        for key, value in given.items():
            if "." in key:
                group, name = key.split(".")
                assert getattr(getattr(config, group), name) == value


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recipe.epochs=-1", "recipe.epochs: must be at least 1, got -1"),
        ("recipe.epochs=0", "recipe.epochs: must be at least 1, got 0"),
        ("recipe.batch_size=0", "recipe.batch_size: must be at least 1, got 0"),
        ("recipe.learning_rate=0", "recipe.learning_rate: must be above 0, got 0.0"),
        ("recipe.schedule=x", "recipe.schedule: must be constant or one_cycle, got x"),
        ("recipe.warm_up=1", "recipe.warm_up: must be from 0 to below 1, got 1.0"),
        ("recipe.optimizer=x", "recipe.optimizer: must be adam or adamw or sgd, got x"),
        ("recipe.weight_decay=-1", "recipe.weight_decay: must be 0 or more, got -1.0"),
        ("recipe.weight_decay=inf", "recipe.weight_decay: must be finite, got inf"),
        ("recipe.class_weights=x", "recipe.class_weights: must be none or balanced, got x"),
        ("recipe.label_smoothing=1", "recipe.label_smoothing: must be from 0 to below 1, got 1.0"),
        ("model.dropout=1", "model.dropout: must be from 0 to below 1, got 1.0"),
        ("model.family=a/b", "model.family: must be of letters, digits, spaces, _ and -, got a/b"),
        ("promotion.gate=x", "promotion.gate: must be evidence or none, got x"),
        ("promotion.margin=101", "promotion.margin: must be from -100 to 100 points, got 101.0"),
        ("promotion.cheaper=0", "promotion.cheaper: must be above 0 and below 100, got 0.0"),
        (
            "promotion.requirements.accuracy=2",
            "promotion.requirements.accuracy: must be from 0 to 1, got 2.0",
        ),
        (
            "promotion.requirements.megabytes=0",
            "promotion.requirements.megabytes: must be above 0, got 0.0",
        ),
        ("data.validation_examples=0", "data.validation_examples: must be at least 1, got 0"),
        ("seeds=[0,1,0]", "seeds: must be one or more, each once, got [0, 1, 0]"),
        ("models=[]", "models: must be one or more, each once, got []"),
        ("seed=-1", "seed: must be from 0 to 4294967295, got -1"),
        ("~model.layers.hidden.type", "model.layers.hidden: needs a type"),
    ],
)
def test_values_out_of_bounds_are_refused(compose: Compose, override: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        compose(override)

    assert said in str(error.value)


def test_a_key_added_by_force_is_refused(compose: Compose) -> None:
    with pytest.raises(OmegaConfBaseException, match="epoch"):
        compose("+recipe.epoch=3")


def test_a_layer_can_be_changed_from_the_command_line(compose: Compose) -> None:
    config = compose("model=cnn", "model.layers.hidden.units=64")

    assert config.model.layers["hidden"]["units"] == 64


def test_a_key_with_a_line_break_is_named_in_one_line() -> None:
    with pytest.raises(ConfigKeyError) as raised:
        typed(OmegaConf.create({"model": {"a\nb": 1}}))

    line = explain(raised.value)
    assert line is not None
    assert line.startswith("unknown key model.a b; known here: augmentation,")
    assert len(line.splitlines()) == 1
