"""A training's state on disk: whole, its own, and held by one process."""

import itertools
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from image_classification import checkpoint
from image_classification.checkpoint import State
from image_classification.errors import UserError

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


@pytest.mark.parametrize("call", range(1, 9))
def test_a_kill_at_any_moment_of_keeping_leaves_the_state_before_or_the_new_one(
    tmp_path: Path, call: int
) -> None:
    """The process dies before the n-th call that changes the disk for good."""

    def keep_and_die() -> None:
        calls = itertools.count(1)

        def dying(function: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                if next(calls) == call:
                    os._exit(9)
                return function(*arguments, **options)

            return counted

        for target, name in (
            *((np, "savez"), (checkpoint, "to_disk"), (shutil, "rmtree")),
            *((Path, "write_text"), (Path, "rename")),
        ):
            setattr(target, name, dying(getattr(target, name)))
        checkpoint.save(tmp_path, state(2), STAMP)
        os._exit(0)

    checkpoint.save(tmp_path, state(1), STAMP)
    process = multiprocessing.get_context("fork").Process(target=keep_and_die)
    process.start()
    process.join()

    assert process.exitcode == 9  # it was killed, and not done before
    assert loaded(tmp_path) in (1, 2)
    checkpoint.save(tmp_path, state(3), STAMP)
    assert loaded(tmp_path) == 3


@pytest.mark.parametrize("file", ["variables.npz", "state.json"])
@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_torn_state_is_set_aside_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, size: int
) -> None:
    checkpoint.save(tmp_path, state(2), STAMP)
    path = tmp_path / "epoch-2" / file
    contents = path.read_bytes()
    path.write_bytes(contents[:size])

    assert loaded(tmp_path) == 0
    assert "epoch-2 is not used" in capsys.readouterr().err
    assert [path.name[:17] for path in tmp_path.iterdir()] == ["set-aside-epoch-2"]


def test_a_changed_state_is_set_aside(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(2), STAMP)
    path = tmp_path / "epoch-2/variables.npz"
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)

    assert loaded(tmp_path) == 0


def test_a_foreign_state_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint.save(tmp_path, state(2), {"training": "another"})

    assert loaded(tmp_path) == 0
    assert "it was made by {'training': 'another'}" in capsys.readouterr().err


def test_a_training_is_done_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    said = f"process {os.getpid()} does this very training"
    with (
        checkpoint.claimed(folder),
        pytest.raises(UserError, match=said),
        checkpoint.claimed(folder),
    ):
        pass
    with checkpoint.claimed(folder):
        checkpoint.discard(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_holds_nothing(tmp_path: Path) -> None:
    def claim_and_die() -> None:
        with checkpoint.claimed(tmp_path):
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=claim_and_die)
    process.start()
    process.join()

    assert process.exitcode == 9
    with checkpoint.claimed(tmp_path):
        pass
