"""The commands `drift` and `feedback` as a whole."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Project
from numpy.typing import NDArray

from image_classification.commands import feedback as command
from image_classification.core import paths
from image_classification.core.errors import UserError
from image_classification.data import arrays
from image_classification.monitoring.corrections import Corrections
from image_classification.monitoring.observations import Observations
from image_classification.monitoring.recent_predictions import RecentPredictions, ServedPrediction
from image_classification.serving import artifact
from image_classification.serving.engine import Engine

COMMAND = ("python", "-m", "image_classification")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corrections:
    """Three corrections that wait."""
    monkeypatch.chdir(tmp_path)
    recent, made = RecentPredictions(), Corrections("digits")
    for number in range(3):
        image = np.full((4, 4, 1), number, np.uint8)
        name = recent.remember(ServedPrediction(image, "7", 0.5, "key", number or None, ("1", "7")))
        made.add(recent, name, "1")
    return made


def test_the_list_shows_what_was_said_and_what_was_answered(store: Corrections) -> None:
    head, *rows, _, where = command.feedback(store, "list").splitlines()

    assert head.split()[-2:] == ["PROBABILITY", "VERSION"]
    assert [row.split()[-4:] for row in rows] == [["1", "7", "0.500", v] for v in ("-", "1", "2")]
    assert str(store.pending) in where
    ids = [one["id"] for one in json.loads(command.feedback(store, "list", form="json"))]
    assert [row.split()[0] for row in rows] == [name[:8] for name in ids]
    assert len(command.feedback(store, "list", ids[:1]).splitlines()) == 4


def test_a_decision_names_corrections_or_all(store: Corrections) -> None:
    ids = [one.id for one in store.waiting()]
    for given in ((), (ids, True)):
        with pytest.raises(UserError, match="name corrections, or give --all"):
            command.feedback(store, "accept", *given)

    accepted = command.feedback(store, "accept", [ids[0][:8]])
    discarded = command.feedback(store, "discard", every=True)

    assert (
        accepted
        == f"1 accepted, 2 pending: use them with data.name=table data.path={store.accepted}"
    )
    assert discarded == "2 discarded, 0 pending"
    assert command.feedback(store, "list") == "No feedback is pending."


@pytest.mark.slow
def test_drift_of_what_a_server_has_seen(
    trained_copy: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained_copy.root)
    nothing = trained_copy.run(*COMMAND, "drift")
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert nothing.stderr.startswith("error: observations/tiny.npz is missing")
    trained_copy.must(*COMMAND, "export", "tiny_cnn")
    (folder,) = (path.parent for path in paths.EXPORTED.glob("*/served.json"))
    served, images = artifact.read(folder), arrays.load_split(paths.SPLIT).test.images

    observe(served, images[:40])
    few = trained_copy.must(*COMMAND, "drift")
    observe(served, images[40:])
    clean = trained_copy.run(*COMMAND, "drift")
    observe(served, 255 - np.concatenate([images, images]))
    inverted = trained_copy.run(*COMMAND, "drift")
    found = trained_copy.run(*COMMAND, "drift", "--format", "json", "--hours", "2")

    assert "Too few to judge: 50 images are needed, 40 were seen." in few
    assert clean.returncode == 0, clean.stdout + clean.stderr
    assert "200 images classified by tiny_cnn-0, version" in clean.stdout
    assert "No drift" in clean.stdout
    assert inverted.returncode == found.returncode == 3
    assert "  brightness: brighter: median" in inverted.stdout
    assert "Drift is not harm" in inverted.stdout
    values = json.loads(found.stdout)
    assert (values["drift"], values["seen"], values["validation_images"]) == (True, 600, 100)
    moved = {shift["name"] for shift in values["shifts"] if shift["moved"]}
    assert "brightness" in moved


def observe(served: artifact.Artifact, images: NDArray[np.uint8]) -> None:
    """As a server does."""
    seen, engine = Observations(served.name), Engine(served)
    for start in range(0, len(images), 16):
        batch = np.asarray(images[start : start + 16])
        seen.observe(served.key, batch, engine.predict(batch))
    seen.write()
