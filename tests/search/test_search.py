"""A search: what is drawn, what is told, what is pruned, and what is left of it."""

import math
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml
from conftest import ROOT, Compose
from matplotlib import pyplot
from optuna.trial import TrialState

from image_classification.core.config import Config, SearchConfig
from image_classification.core.errors import UserError
from image_classification.search import figures, job, report, space, study

SPACE: dict[str, Any] = {
    "recipe": {
        "learning_rate": {"low": 0.001, "high": 0.1, "log": True},
        "batch_size": {"choices": [32, 64]},
        "epochs": {"low": 2, "high": 4},
    },
    "model": {"dropout": {"low": 0.0, "high": 0.5}},
}


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchConfig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "upload", lambda folder: 0)
    monkeypatch.setattr(job, "dvc_hash", lambda folder: "hash of the split")
    return SearchConfig("tried", "search/journal.log", "tpe", "median", "val_accuracy", SPACE)


@pytest.fixture
def config(compose: Compose, search: SearchConfig) -> Config:
    return replace(compose("model=tiny_cnn"), search=search, trial=0)


def trained(config: Config, on_epoch: job.OnEpoch, epochs: int = 3) -> Any:
    """A training that is the better the nearer its rate is to 0.01."""
    best = 1 - abs(config.recipe.learning_rate - 0.01)
    rows = [{"epoch": float(i), "val_accuracy": best - 0.1 / (i + 1)} for i in range(epochs)]
    for row in rows:
        on_epoch(row)
    return SimpleNamespace(history=pd.DataFrame(rows))


def test_a_space_gives_whole_numbers_for_whole_bounds_and_values_within_them() -> None:
    drawn = space.distributions(SPACE)

    assert list(drawn) == [
        *("recipe.learning_rate", "recipe.batch_size", "recipe.epochs", "model.dropout")
    ]
    values = space.suggest(optuna.create_study().ask(), drawn)
    assert 0.001 <= values["recipe.learning_rate"] <= 0.1
    assert values["recipe.batch_size"] in (32, 64)
    assert values["recipe.epochs"] in (2, 3, 4)


@pytest.mark.parametrize("step", [0.1, 1.5])
def test_a_step_that_is_no_whole_number_is_kept_between_whole_bounds(step: float) -> None:
    bounds = {"low": 0, "high": 3, "step": step}
    drawn = space.distributions({"recipe": {"warm_up": bounds}})["recipe.warm_up"]

    assert drawn == optuna.distributions.FloatDistribution(0, 3, step=step)


FILES = sorted(path.stem for path in (ROOT / "conf/search").glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_every_file_composes_and_searches_settings_that_exist(compose: Compose, name: str) -> None:
    config = compose(f"search={name}", "trial=0", "model=tiny_cnn")
    assert config.search is not None
    drawn = space.distributions(config.search.space)

    assert drawn
    assert config.search.study == f"tiny_cnn-mnist-{name}"
    values = space.suggest(optuna.create_study().ask(), drawn)
    assert space.with_values(config, values) != config


def test_a_null_takes_out_what_another_file_searches(compose: Compose) -> None:
    words = ("search=optuna", "trial=0", "search.space.recipe=null")
    config = compose(*words)
    assert config.search is not None

    assert list(space.distributions(config.search.space)) == ["model.dropout"]


def test_choices_take_the_place_of_bounds_that_are_null(compose: Compose) -> None:
    smoothing = "search.space.recipe.label_smoothing"
    config = compose(
        *("search=optuna", "trial=0", f"{smoothing}.low=null", f"{smoothing}.high=null"),
        f"+{smoothing}.choices=[0,0.1]",
    )
    assert config.search is not None

    drawn = space.distributions(config.search.space)["recipe.label_smoothing"]
    assert drawn == optuna.distributions.CategoricalDistribution([0, 0.1])


def test_a_search_and_its_trial_are_given_together(compose: Compose) -> None:
    for word in ("search=optuna", "trial=3"):
        with pytest.raises(UserError, match="trial: must be given with search, as in search="):
            compose(word)


def test_a_study_is_named_as_a_file_can_be(compose: Compose) -> None:
    with pytest.raises(UserError, match=r"search\.study: must be of letters"):
        compose("search=optuna", "trial=0", "search.study=../elsewhere")


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"low": 2.0, "high": 1.0}, "search.space.recipe.warm_up: "),
        ({"low": -1.0, "high": 1.0, "log": True}, "search.space.recipe.warm_up: "),
        ({"low": 0.0, "hihg": 1.0}, "search.space.recipe.warm_up.low: must be"),
        (0.5, "search.space.recipe.warm_up: must be"),
        (
            {"low": 0.0, "high": 1.0, "choices": [0.1]},
            "search.space.recipe.warm_up: has choices and bounds: add low: null, high: null",
        ),
        ({"choices": "adam"}, r"search.space.recipe.warm_up: choices must be a list, .*\[adam\]"),
    ],
)
def test_bounds_that_make_no_sense_are_named(bounds: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        space.distributions({"recipe": {"warm_up": bounds}})


def test_a_trial_has_its_values_and_all_checks_of_the_configuration(config: Config) -> None:
    changed = space.with_values(config, {"recipe.learning_rate": 0.5, "model.dropout": 0.4})

    assert (changed.recipe.learning_rate, changed.model.dropout) == (0.5, 0.4)
    assert replace(changed, recipe=config.recipe, model=config.model) == config
    with pytest.raises(UserError, match=r"model\.dropout: must be from 0 to below 1"):
        space.with_values(config, {"model.dropout": 1.5})


def test_a_seed_repeats_a_search_and_another_draws_anew(config: Config) -> None:
    drawn = []
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        assert config.search is not None
        search = replace(config.search, study=name)
        assert job.main(replace(config, search=search, seed=seed), trained) == 0
        drawn.append(study.load(search.storage, name).trials[0].params)

    one, same, other = drawn
    assert one == same != other


def test_a_search_learns_prunes_and_repeats_nothing(
    config: Config, search: SearchConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        assert job.main(replace(config, trial=number), trained) == 0
    found = study.load(search.storage, search.study)
    states = [trial.state for trial in found.get_trials()]

    assert states.count(TrialState.PRUNED) > 0
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == 20
    assert abs(found.best_params["recipe.learning_rate"] - 0.01) < 0.005
    assert ": pruned after epoch 1: others were better by then" in capsys.readouterr().out

    def refused(*_: object) -> Any:
        raise AssertionError("trained again")

    assert job.main(replace(config, trial=3), refused) == 0
    assert "skipped: trial 3 of tried has ended" in capsys.readouterr().out


def test_a_trial_cut_short_goes_on_with_its_values_and_a_failed_one_begins_anew(
    config: Config, search: SearchConfig
) -> None:
    seen = []

    def killed(given: Config, on_epoch: job.OnEpoch) -> Any:
        seen.append(given.recipe.learning_rate)
        raise SystemExit(143)

    def failing(given: Config, on_epoch: job.OnEpoch) -> Any:
        seen.append(given.recipe.learning_rate)
        raise UserError("the disk is full")

    with pytest.raises(SystemExit):
        job.main(config, killed)
    with pytest.raises(UserError, match="the disk is full"):
        job.main(config, failing)
    assert seen[0] == seen[1]
    assert job.main(config, trained) == 0

    states = [trial.state for trial in study.load(search.storage, search.study).get_trials()]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_trial_cut_short_reports_every_epoch_once(config: Config, search: SearchConfig) -> None:
    def killed(given: Config, on_epoch: job.OnEpoch) -> Any:
        on_epoch({"epoch": 0.0, "val_accuracy": 0.25})
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        job.main(config, killed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna's, of what is reported again
        assert job.main(config, trained) == 0

    (trial,) = study.load(search.storage, search.study).trials
    assert sorted(trial.intermediate_values) == [0, 1, 2]
    assert trial.intermediate_values[0] == 0.25


def test_a_study_keeps_to_its_settings(config: Config) -> None:
    job.main(config, trained)
    other = replace(config, recipe=replace(config.recipe, schedule="constant"), trial=1)

    with pytest.raises(UserError, match=r"search\.study: tried holds trials of other settings"):
        job.main(other, trained)


def test_a_study_keeps_to_its_data(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    job.main(config, trained)
    monkeypatch.setattr(job, "dvc_hash", lambda folder: "hash of other images")

    with pytest.raises(
        UserError, match=r"search\.study: tried holds trials of other settings or d"
    ):
        job.main(replace(config, trial=1), trained)


def test_the_same_trial_at_once_is_refused_and_leaves_the_first_one_alone(
    config: Config, search: SearchConfig
) -> None:
    def refused(*_: object) -> Any:
        raise AssertionError("trained twice")

    def meanwhile(given: Config, on_epoch: job.OnEpoch) -> Any:
        with pytest.raises(UserError, match="is working on trial 0 of tried: wait until it ends"):
            job.main(config, refused)
        return trained(given, on_epoch)

    assert job.main(config, meanwhile) == 0
    states = [trial.state for trial in study.load(search.storage, search.study).trials]
    assert states == [TrialState.COMPLETE]


def test_a_trial_that_diverges_counts_as_pruned(
    config: Config, search: SearchConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    search = replace(search, metric="val_loss")

    def diverging(given: Config, on_epoch: job.OnEpoch) -> Any:
        rows = [{"epoch": 0.0, "val_loss": 2.0}, {"epoch": 1.0, "val_loss": math.nan}]
        return SimpleNamespace(history=pd.DataFrame(rows))

    assert job.main(replace(config, search=search), diverging) == 0
    assert "trial 0: val_loss is nan, which counts as pruned" in capsys.readouterr().out
    (trial,) = study.load(search.storage, search.study).trials
    assert trial.state is TrialState.PRUNED


def test_no_trial_is_pruned_after_its_last_epoch(config: Config, search: SearchConfig) -> None:
    space = {
        "recipe": {"epochs": {"choices": [1]}, "learning_rate": SPACE["recipe"]["learning_rate"]}
    }
    search = replace(search, space=space)
    for number in range(12):
        given = replace(config, search=search, trial=number)
        assert job.main(given, lambda given, on_epoch: trained(given, on_epoch, epochs=1)) == 0

    found = study.load(search.storage, search.study)
    assert {trial.state for trial in found.trials} == {TrialState.COMPLETE}


def test_dropout_is_searched_only_where_a_model_has_some(
    compose: Compose, config: Config, search: SearchConfig
) -> None:
    without = compose("model=tiny_lm").model
    assert job.main(replace(config, model=without), trained) == 0
    (trial,) = study.load(search.storage, search.study).trials

    assert "model.dropout" not in trial.params
    assert "recipe.learning_rate" in trial.params
    only = replace(search, space={"model": SPACE["model"]}, study="dropout")
    with pytest.raises(UserError, match=r"search\.space: has no setting that tiny_lm takes"):
        job.main(replace(config, model=without, search=only), trained)


@pytest.mark.parametrize(
    "key", ["recipe.name", "augmentation.name", "model.fast.epochs", "model.augmentation.shift"]
)
def test_a_setting_that_no_trial_can_change_is_not_searched(
    config: Config, search: SearchConfig, key: str
) -> None:
    useless = space.nested({key: {"choices": [1, 2]}, "recipe.warm_up": {"choices": [0.1, 0.2]}})

    with pytest.raises(UserError, match=rf"search\.space\.{key}: has no effect in a trial: search"):
        job.main(replace(config, search=replace(search, space=useless)), trained)


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        ("search/journal.log", r"search\.storage: search/journal\.log can't be used"),
        ("nosuch://ann:secret@host/name", r"search\.storage: nosuch://host/name can't"),
        ("sqlite:////nosuch/folder/x.db", r"search\.storage: sqlite:////nosuch/folder/x\.db can't"),
    ],
)
def test_a_storage_that_cannot_be_used_is_named(
    config: Config, search: SearchConfig, storage: str, said: str
) -> None:
    Path("search").mkdir()
    Path("search/journal.log").write_text("no journal\n")

    with pytest.raises(UserError, match=said) as refused:
        job.main(replace(config, search=replace(search, storage=storage)), trained)
    assert "secret" not in str(refused.value)


def test_the_best_trial_is_an_experiment_with_its_values(
    config: Config, search: SearchConfig
) -> None:
    for number in range(3):
        job.main(replace(config, trial=number), trained)
    found = study.load(search.storage, search.study)
    text = report.experiment(found, "tiny_cnn", "mnist", "val_accuracy")
    values = yaml.safe_load(text)

    assert text.startswith("# @package _global_\n")
    assert values["defaults"] == ["override /model: tiny_cnn"] or values["defaults"] == [
        {"override /model": "tiny_cnn"}
    ]
    assert values["recipe"]["learning_rate"] == found.best_params["recipe.learning_rate"]
    assert f"-S conf/model/tiny_cnn.yaml:dropout={found.best_params['model.dropout']}" in text


def test_there_are_as_many_pictures_as_there_is_to_show(
    config: Config, search: SearchConfig
) -> None:
    job.main(config, trained)
    found = study.load(search.storage, search.study)
    assert list(figures.figures(found, search.metric)) == ["history", "epochs"]

    for number in range(1, 4):
        job.main(replace(config, trial=number), trained)
    found = study.load(search.storage, search.study)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = figures.figures(found, search.metric)
    pyplot.close("all")
    assert list(drawn) == ["history", "epochs", "importances", "parallel_coordinates"]
    titles = [
        figure.axes[0].get_title(loc) for figure in drawn.values() for loc in ("left", "right")
    ]
    assert not any(titles)  # the one in the middle would overlap them
