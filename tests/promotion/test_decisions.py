"""Decisions from the files that `train` and `evaluate` leave; none of them is about test images."""

import contextlib
import copy
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_examples
from numpy.typing import NDArray

from image_classification.core import compose as composing
from image_classification.core import paths
from image_classification.core.config import Config
from image_classification.core.errors import UserError
from image_classification.data import arrays, fingerprint
from image_classification.data.splits import split_for_run
from image_classification.promotion import candidates, decisions, evidence, records, rollbacks
from image_classification.promotion.candidates import Candidate
from image_classification.promotion.decisions import (
    ALREADY_CHAMPION,
    REPEATED,
    UNMEASURED,
    PromotionRequest,
)
from image_classification.promotion.evidence import EvaluatedRun, ValidationSet
from image_classification.promotion.records import PROMOTED, REFUSED, ROLLED_BACK, JudgedRun

EXAMPLES = 2000  # held out: where models agree on all, their difference is within 0.192 points
MakeRun = Callable[..., Candidate]


@pytest.fixture(scope="module")
def made(configuration: Path) -> Config:
    with contextlib.chdir(configuration):
        return composing.compose(
            *("data.validation_examples=2000", "promotion.margin=-0.2", "promotion.cheaper=20"),
            "promotion.requirements={accuracy: 0.5, worst_class_recall: 0.2}",
            "promotion.requirements={calibration_error: 0.1}",
            "promotion.requirements={microseconds: 100000, megabytes: 200}",
        )


@pytest.fixture(scope="module")
def splits(made: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits, of the same settings and of different images: `first` and `second`."""
    root = tmp_path_factory.mktemp("splits")
    for name, seed in (("first", 1), ("second", 4)):
        parts = {
            "train": tiny_examples(EXAMPLES, seed),
            "validation": tiny_examples(EXAMPLES, seed + 1),
            "test": tiny_examples(10, 3),
        }
        arrays.save_split(root / name, parts, fingerprint.origin(made.data))
    return root


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Config, splits: Path) -> Config:
    """A project with a split, and nothing trained yet."""
    monkeypatch.chdir(tmp_path)
    paths.SPLIT.parent.mkdir()
    paths.SPLIT.symlink_to(splits / "first")
    return copy.deepcopy(made)


@pytest.fixture
def make_run(config: Config) -> MakeRun:
    """Leaves what the stages leave of a run that is wrong on these of its validation images."""

    def make(
        model: str,
        wrong: range,
        key: str | None = None,
        seed: int = 0,
        data: str = "old.dir",
        parameters: int = 1000,
        microseconds: float = 100.0,
        machine: str = "this",
    ) -> Candidate:
        candidate = Candidate(model, seed, key or f"key of {model}-{seed}")
        run, evaluation = paths.RUNS / candidate.run, paths.EVALUATIONS / candidate.run
        for folder in (run, evaluation / paths.PREDICTIONS):
            folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(run / paths.MODEL_FILE, "w") as archive:
            archive.writestr(evidence.WEIGHTS, candidate.key)
        training = {"run": candidate.key, "model_sha256": "0" * 64, "epochs": 1, "fit_seconds": 1.0}
        training |= {"parameters": parameters, "provenance": {"dvc.data": data}}
        (run / paths.TRAINING_FILE).write_text(json.dumps(training))
        (evaluation / paths.METRICS_FILE).write_text('{"validation_calibration_error": 0.01}')
        costs: dict[str, Any] = {"parameters": parameters, "model_bytes": 1000, "fit_seconds": 1.0}
        costs |= {f"microseconds_batch_{size}": microseconds for size in (1, 256)}
        costs |= {"machine": machine}
        (evaluation / paths.COSTS_FILE).write_text(json.dumps(costs))
        split = split_for_run(paths.SPLIT, config.data, seed)
        labels = np.asarray(split.validation.labels, int)
        predicted = labels.copy()
        predicted[list(wrong)] = (labels[list(wrong)] + 3) % 10
        names = np.array(split.classes)
        table = pd.DataFrame({"predicted": names[predicted], "actual": names[labels]})
        table.to_csv(evaluation / paths.VALIDATION_FILE, index_label="example")
        return candidate

    return make


def ask(candidate: Candidate, chosen_from: int = 1, reason: str | None = None) -> PromotionRequest:
    return PromotionRequest(candidate, 7, chosen_from, reason, "promote")


def test_the_first_candidate_is_champion_and_its_record_says_what_it_is(
    config: Config, make_run: MakeRun
) -> None:
    candidate = make_run("cnn", range(20))

    outcome = decisions.decide(ask(candidate), config)

    (record,) = records.read("mnist")
    assert record == outcome.record
    assert (record.decision, record.from_) == (PROMOTED, None)
    assert (record.to.run, record.to.key, record.to.version) == ("cnn-0", candidate.key, 7)
    assert record.numbers["to"]["accuracy"] == 0.99
    assert record.numbers["to"]["microseconds_batch_1"] == 100
    assert len(record.to.weights_sha256) == 64
    assert decisions.decide(ask(candidate), config).decision == ALREADY_CHAMPION
    assert len(records.read("mnist")) == 1


def test_what_is_significantly_better_replaces_the_champion(
    config: Config, make_run: MakeRun
) -> None:
    decisions.decide(ask(make_run("nn", range(40))), config)

    outcome = decisions.decide(ask(make_run("cnn", range(20)), chosen_from=6), config)

    record = outcome.record
    assert record is not None
    assert (outcome.decision, record.from_ and record.from_.run) == (PROMOTED, "nn-0")
    paired = record.numbers["paired"]
    assert (paired["candidate"], paired["champion"], paired["examples"]) == (0.99, 0.98, EXAMPLES)
    assert 0 < paired["low"] < paired["difference"] == pytest.approx(0.01)
    assert record.numbers["from"]["accuracy"] == 0.98
    assert records.champion(records.read("mnist")) == record


def test_an_equally_good_one_is_refused_once_and_passes_for_a_persons_reason(
    config: Config, make_run: MakeRun
) -> None:
    decisions.decide(ask(make_run("cnn", range(20))), config)
    other = make_run("cnn", range(20), key="another", seed=1)

    assert decisions.decide(ask(other), config).decision == REFUSED
    again = decisions.decide(ask(other), config)
    assert (again.decision, len(records.read("mnist"))) == (REPEATED, 2)
    config.promotion.margin = -0.5  # another request
    assert decisions.decide(ask(other), config).decision == REFUSED

    assert decisions.decide(ask(other, reason="smaller"), config, dry_run=True).record
    assert len(records.read("mnist")) == 3
    outcome = decisions.decide(ask(other, reason="smaller"), config)
    assert outcome.decision == PROMOTED
    assert outcome.record is not None
    assert outcome.record.reason == "a person's reason: smaller"


def test_what_costs_less_to_run_replaces_what_is_no_better(
    config: Config, make_run: MakeRun
) -> None:
    decisions.decide(ask(make_run("cnn", range(20))), config)
    slim = make_run("slim", range(20), parameters=900, microseconds=70.0)
    elsewhere = make_run("slim_1", range(20), parameters=900, microseconds=70.0, machine="faster")

    refused = decisions.decide(ask(elsewhere), config).record
    assert refused
    assert refused.reason.endswith("% cheaper to run (they were timed on different machines)")
    assert decisions.decide(ask(slim), config).decision == PROMOTED


def test_a_champion_of_a_record_that_names_no_machine_is_no_slower(
    config: Config, make_run: MakeRun
) -> None:
    decisions.decide(ask(make_run("cnn", range(20))), config)
    file = records.file_of("mnist")
    file.write_text(file.read_text().replace('"machine"', '"other"'))
    slim = make_run("slim", range(20), parameters=900, microseconds=70.0)

    assert decisions.decide(ask(slim), config).decision == REFUSED


def test_a_champion_whose_folders_hold_a_later_run_is_still_compared(
    config: Config, make_run: MakeRun
) -> None:
    """The usual case: the same model and seed, trained by another recipe."""
    decisions.decide(ask(make_run("cnn", range(20), key="first")), config)

    outcome = decisions.decide(ask(make_run("cnn", range(10, 60), key="second")), config)

    assert outcome.record is not None
    assert outcome.decision == REFUSED
    paired = outcome.record.numbers["paired"]
    assert (paired["champion"], paired["candidate"]) == (0.99, 0.975)


def test_each_decision_says_how_many_candidates_the_same_examples_have_judged(
    config: Config, make_run: MakeRun
) -> None:
    decisions.decide(ask(make_run("cnn", range(20))), config)
    for seed in (1, 2, 3):
        decisions.decide(ask(make_run("cnn", range(25), seed=seed)), config)
    config.promotion.cheaper = 30  # the same candidate again
    decisions.decide(ask(make_run("cnn", range(25), seed=3)), config)

    found = [record.validation for record in records.read("mnist")]
    assert [one.times for one in found if one] == [0, 1, 2, 3, 3]


def test_with_a_split_per_seed_only_examples_count_that_neither_has_trained_on(
    config: Config, make_run: MakeRun
) -> None:
    config.data.split_per_seed = True
    decisions.decide(ask(make_run("cnn", range(20), seed=0)), config)

    outcome = decisions.decide(ask(make_run("cnn", range(20), seed=1)), config)

    first, second = (split_for_run(paths.SPLIT, config.data, seed) for seed in (0, 1))
    sets = [set(ValidationSet(s.validation, s.classes).digests.tolist()) for s in (first, second)]
    trained = [set(ValidationSet(s.train, s.classes).digests.tolist()) for s in (first, second)]
    common = sets[0] & sets[1]
    assert 800 < len(common) < 1200
    assert not common & (trained[0] | trained[1])
    assert outcome.record is not None
    validation = outcome.record.validation
    assert validation is not None
    assert (validation.judged, validation.examples) == (len(common), EXAMPLES)
    digests = np.array(sorted(common), np.uint64)
    assert validation.judged_sha256 == evidence.hash_of(digests)
    assert f"compared on the {len(common)} of 2000" in outcome.record.reason


def test_the_answers_of_both_are_those_to_the_same_example(
    config: Config, make_run: MakeRun
) -> None:
    """Both are wrong on every common example, and on no other."""
    config.data.split_per_seed = True
    digests = [
        ValidationSet(split.validation, split.classes).digests.tolist()
        for split in (split_for_run(paths.SPLIT, config.data, seed) for seed in (0, 1))
    ]
    common = set(digests[0]) & set(digests[1])
    for seed in (0, 1):
        rows = [row for row, digest in enumerate(digests[seed]) if digest in common]
        outcome = decisions.decide(ask(make_run("cnn", rows, seed=seed)), config)

    assert outcome.record is not None
    paired = outcome.record.numbers["paired"]
    assert (paired["candidate"], paired["champion"]) == (0, 0)


def test_folds_have_no_examples_in_common_and_leave_it_to_a_person(
    config: Config, make_run: MakeRun
) -> None:
    config.data.folds = 2
    decisions.decide(ask(make_run("cnn", range(200), seed=0)), config)
    better = make_run("cnn", range(20), seed=1)

    refused = decisions.decide(ask(better), config)
    assert refused.decision == REFUSED
    assert refused.record is not None
    assert "no validation examples to compare them on" in refused.record.reason
    assert "on the 0 of 2000" in refused.record.reason
    assert decisions.decide(ask(better, reason="looked at it"), config).decision == PROMOTED


def other_validation(splits: Path) -> None:
    paths.SPLIT.unlink()
    paths.SPLIT.symlink_to(splits / "second")


def test_on_another_data_set_the_champion_is_measured_first(
    config: Config, make_run: MakeRun, splits: Path
) -> None:
    decisions.decide(ask(make_run("nn", range(20))), config)
    other_validation(splits)
    candidate = make_run("cnn", range(20), data="new.dir")
    asked: list[tuple[JudgedRun, NDArray[np.uint8]]] = []

    def measure(judged: JudgedRun, validation_set: ValidationSet) -> EvaluatedRun:
        labels = np.asarray(validation_set.examples.labels)
        asked.append((judged, labels))
        predicted = (labels.astype(int) + (np.arange(EXAMPLES) < 60)) % 10
        evaluated = evidence.of_run(candidate, config.data, None)
        return replace(evaluated, judged=judged, predicted=predicted)

    assert decisions.decide(ask(candidate), config).decision == UNMEASURED
    assert len(records.read("mnist")) == 1
    outcome = decisions.decide(ask(candidate), config, measure)

    ((judged, labels),) = asked
    assert judged.run == "nn-0"
    np.testing.assert_array_equal(labels, arrays.load_split(paths.SPLIT).validation.labels)
    assert outcome.decision == PROMOTED
    assert outcome.record is not None
    assert outcome.record.numbers["paired"]["champion"] == 0.97
    assert "another data set" in outcome.record.reason
    assert "may have trained on some" in outcome.record.reason


def test_the_same_validation_examples_need_no_measuring_whatever_else_changed(
    config: Config, make_run: MakeRun
) -> None:
    """More training images, or another test set."""
    decisions.decide(ask(make_run("nn", range(40))), config)

    outcome = decisions.decide(ask(make_run("cnn", range(20), data="new.dir")), config)

    assert outcome.decision == PROMOTED


def test_a_champion_that_cannot_be_measured_stays_unless_a_person_says_why(
    config: Config, make_run: MakeRun, splits: Path
) -> None:
    decisions.decide(ask(make_run("nn", range(20))), config)
    other_validation(splits)
    candidate = make_run("cnn", range(20), data="new.dir")

    def measure(judged: JudgedRun, validation_set: ValidationSet) -> EvaluatedRun:
        raise UserError("its file is gone")

    with pytest.raises(UserError, match=r"^the champion can't be measured: its file is gone$"):
        decisions.decide(ask(candidate), config, measure)
    outcome = decisions.decide(ask(candidate, reason="new classes"), config, measure)
    assert outcome.decision == PROMOTED
    assert outcome.record is not None
    assert "its file is gone" in outcome.record.reason


def test_without_a_gate_the_candidate_becomes_champion_though_it_is_worse(
    config: Config, make_run: MakeRun
) -> None:
    config.promotion.gate = "none"
    decisions.decide(ask(make_run("cnn", range(20))), config)

    assert decisions.decide(ask(make_run("nn", range(900))), config).decision == PROMOTED


def test_a_requirement_is_held_against_what_was_measured(config: Config, make_run: MakeRun) -> None:
    decisions.decide(ask(make_run("nn", range(100))), config)
    config.promotion.requirements.worst_class_recall = 0.999
    labels = np.asarray(arrays.load_split(paths.SPLIT).validation.labels)
    sevens = np.flatnonzero(labels == 7)[:10]

    outcome = decisions.decide(ask(make_run("cnn", sevens)), config)

    assert outcome.record is not None
    recall = 1 - 10 / (labels == 7).sum()
    assert outcome.record.numbers["to"]["worst_class_recall"] == pytest.approx(recall)
    assert outcome.record.reason.startswith("its worst class recall of 0.9")


def test_a_rollback_goes_to_the_champion_before_or_to_the_one_named(
    config: Config, make_run: MakeRun
) -> None:
    for model, wrong in (("lm", 90), ("nn", 50), ("cnn", 10)):
        decisions.decide(ask(make_run(model, range(wrong))), config)
    decisions.decide(ask(make_run("dnn", range(50))), config)  # record 4, refused

    def now() -> str:
        champion_record = records.champion(records.read("mnist"))
        assert champion_record is not None
        return champion_record.to.run

    back = rollbacks.roll_back("mnist", None, "it froze")
    assert (back.decision, back.reason) == (ROLLED_BACK, "a person's reason: it froze")
    assert (now(), back.from_ and back.from_.run) == ("nn-0", "cnn-0")
    rollbacks.roll_back("mnist", 1, None)
    assert now() == "lm-0"
    rollbacks.roll_back("mnist", None, None)
    assert now() == "nn-0"  # the one that was champion before this
    for wrong in (0, 2, 4, 99):  # 2 is champion now, 4 was refused
        with pytest.raises(UserError, match=rf"^{wrong}: not the record of an earlier champion"):
            rollbacks.roll_back("mnist", wrong, None)
    # What comes next is compared with the one that was rolled back to.
    outcome = decisions.decide(ask(make_run("dcnn", range(10))), config)
    assert outcome.record is not None
    assert outcome.record.numbers["paired"]["champion"] == 0.975


def test_a_rollback_needs_an_earlier_champion(config: Config, make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"^promotions/mnist.jsonl names no champion"):
        rollbacks.roll_back("mnist", None, None)
    decisions.decide(ask(make_run("cnn", range(20))), config)
    with pytest.raises(UserError, match="cnn-0 is the only champion so far"):
        rollbacks.roll_back("mnist", None, None)


@pytest.mark.parametrize(
    ("path", "contents", "said"),
    [
        ("evaluations/cnn-0/predictions/validation.csv", None, "is missing: run `dvc repro eval"),
        ("evaluations/cnn-0/predictions/validation.csv", "predicted,actual\n7,7\n", "each of 2000"),
        ("runs/cnn-0/model.keras", "no archive", "is not a Keras model"),
        ("evaluations/cnn-0/costs.json", "{}", "parameters must be a finite number"),
    ],
)
def test_a_damaged_file_is_one_line_with_its_name(
    config: Config, make_run: MakeRun, path: str, contents: str | None, said: str
) -> None:
    candidate = make_run("cnn", range(20))
    Path(path).unlink()
    if contents is not None:
        Path(path).write_text(contents)

    with pytest.raises(UserError, match=rf"^{path}.*{said}"):
        decisions.decide(ask(candidate), config)


def test_a_leaderboard_older_than_the_runs_is_noticed(config: Config, make_run: MakeRun) -> None:
    make_run("cnn", range(20), key="later")

    with pytest.raises(UserError, match="runs/cnn-0 holds a later run than the one compared"):
        decisions.decide(ask(Candidate("cnn", 0, "earlier")), config)


def test_damaged_answers_in_a_record_are_one_line(config: Config, make_run: MakeRun) -> None:
    decisions.decide(ask(make_run("nn", range(20))), config)
    path = records.file_of("mnist")
    (record,) = records.read("mnist")
    assert record.validation is not None
    path.write_text(path.read_text().replace(record.validation.answers, "AAAA"))

    with pytest.raises(UserError, match="the predictions in a record are damaged"):
        decisions.decide(ask(make_run("cnn", range(20))), config)


def test_a_run_is_named_by_its_model_its_name_or_its_key(config: Config) -> None:
    paths.REPORTS.mkdir()
    runs = [(model, seed) for model in "ab" for seed in (0, 1)]
    rows = [{"model": model, "seed": seed, "run": f"{model}{seed}"} for model, seed in runs]
    (paths.REPORTS / "leaderboard.json").write_text(json.dumps(rows))
    compared = candidates.read()

    assert [candidates.find(compared, name).key for name in ("b", "b-1", "a1")] == [
        "b0",
        "b1",
        "a1",
    ]
    with pytest.raises(UserError, match="c: not among the runs compared last: a-0, a-1, b-0, b-1"):
        candidates.find(compared, "c")


@pytest.mark.parametrize("contents", [None, "", "[]", "{}", "[1]", '[{"model": "cnn"}]'])
def test_a_leaderboard_that_is_none_is_one_line(config: Config, contents: str | None) -> None:
    paths.REPORTS.mkdir()
    if contents is not None:
        (paths.REPORTS / "leaderboard.json").write_text(contents)

    with pytest.raises(UserError, match=r"^reports/leaderboard.json is"):
        candidates.read()
