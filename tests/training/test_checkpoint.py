"""The state of a run on disk: whole, and its own."""

import errno
import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from image_classification.core.errors import UserError
from image_classification.training import checkpoint
from image_classification.training.checkpoint import State

STAMP = {"training": "this"}


def state(epochs: int) -> State:
    rows = [{"epoch": epoch, "loss": 1.0 / (epoch + 1)} for epoch in range(epochs)]
    return State(rows, [np.full((3, 2), epochs, np.float32), np.array(epochs, np.int64)])


def loaded(folder: Path) -> int:
    """How many epochs the state has that is loaded, 0 for none; its variables are checked."""
    found = checkpoint.load(folder, STAMP)
    if found is None:
        return 0
    kept = state(len(found.rows))
    assert found.rows == kept.rows
    for one, two in zip(found.variables, kept.variables, strict=True):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert np.array_equal(one, two)
    return len(found.rows)


def test_types_that_are_not_numpys_come_back(tmp_path: Path) -> None:
    kept = State([{"epoch": 0}], [np.array([1.5, -2], ml_dtypes.bfloat16), np.array(3)])
    checkpoint.save(tmp_path, kept, STAMP)

    found = checkpoint.load(tmp_path, STAMP)
    assert found is not None
    assert [value.dtype for value in found.variables] == [np.dtype("bfloat16"), np.dtype("int64")]
    assert found.variables[0].tolist() == [1.5, -2]


def test_the_last_state_is_loaded_and_the_ones_before_are_gone(tmp_path: Path) -> None:
    for epochs in (1, 2, 10):
        checkpoint.save(tmp_path, state(epochs), STAMP)

    assert loaded(tmp_path) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-10"]


def test_of_several_states_the_one_after_most_epochs_is_loaded(tmp_path: Path) -> None:
    """Two are left where a kill comes before the older is removed; here there are three."""
    for epochs in (9, 10, 11):
        apart = tmp_path / str(epochs)
        apart.mkdir()
        checkpoint.save(apart, state(epochs), STAMP)
        (apart / f"epoch-{epochs}").rename(tmp_path / f"epoch-{epochs}")
    (tmp_path / "epoch-of-no-number").mkdir()

    assert loaded(tmp_path) == 11
    (tmp_path / "epoch-11/state.json").write_text("{}")
    assert loaded(tmp_path) == 10


def test_a_disk_that_is_full_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoint.save(tmp_path, state(1), STAMP)
    monkeypatch.setattr(np, "savez", fail)

    with pytest.raises(UserError, match=f"{tmp_path} can't be written: No space left on device"):
        checkpoint.save(tmp_path, state(2), STAMP)
    assert loaded(tmp_path) == 1


def test_a_folder_has_a_state_once_one_is_saved(tmp_path: Path) -> None:
    assert not checkpoint.has_state(tmp_path)
    checkpoint.save(tmp_path, state(1), STAMP)
    assert checkpoint.has_state(tmp_path)


@pytest.mark.parametrize("call", range(1, 10))
def test_a_kill_at_any_moment_of_saving_leaves_the_state_before_or_the_new_one(
    tmp_path: Path, call: int
) -> None:
    """The process dies before the n-th call that changes the disk for good."""

    def save_and_die() -> None:
        calls = itertools.count(1)

        def dying(function: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                if next(calls) == call:
                    os._exit(9)
                return function(*arguments, **options)

            return counted

        for target, name in (
            *((np, "savez"), (checkpoint, "sync_to_disk"), (shutil, "rmtree")),
            *((Path, "write_text"), (Path, "rename")),
        ):
            setattr(target, name, dying(getattr(target, name)))
        checkpoint.save(tmp_path, state(2), STAMP)
        os._exit(0)

    checkpoint.save(tmp_path, state(1), STAMP)
    process = multiprocessing.get_context("fork").Process(target=save_and_die)
    process.start()
    process.join()

    assert process.exitcode == 9  # it was killed, and not done before
    assert loaded(tmp_path) in (1, 2)
    checkpoint.save(tmp_path, state(3), STAMP)
    assert loaded(tmp_path) == 3


@pytest.mark.parametrize("file", ["variables.npz", "state.json"])
@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_torn_state_is_quarantined_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, size: int
) -> None:
    checkpoint.save(tmp_path, state(2), STAMP)
    path = tmp_path / "epoch-2" / file
    contents = path.read_bytes()
    path.write_bytes(contents[:size])

    assert loaded(tmp_path) == 0
    assert "epoch-2 is not used" in capsys.readouterr().err
    assert [path.name[:19] for path in tmp_path.iterdir()] == ["quarantined-epoch-2"]


def test_a_changed_state_is_quarantined(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(2), STAMP)
    path = tmp_path / "epoch-2/variables.npz"
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)

    assert loaded(tmp_path) == 0


def test_a_changed_history_is_quarantined(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(2), STAMP)
    path = tmp_path / "epoch-2/state.json"
    described = json.loads(path.read_text())
    described["rows"][0]["epoch"] += 1
    path.write_text(json.dumps(described))

    assert loaded(tmp_path) == 0


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, State([{"epoch": 0}], [np.array([{}], object)]), STAMP)

    assert checkpoint.load(tmp_path, STAMP) is None
    assert not checkpoint.has_state(tmp_path)


def test_a_foreign_state_is_quarantined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint.save(tmp_path, state(2), {"training": "another"})

    assert loaded(tmp_path) == 0
    assert "it was made by {'training': 'another'}" in capsys.readouterr().err
