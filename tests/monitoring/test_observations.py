"""What a server keeps of the images it answers: bounded, anonymous, and found again."""

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from image_classification.core.errors import UserError
from image_classification.monitoring import observations
from image_classification.monitoring.observations import (
    HOUR,
    HOURS,
    RESERVOIR_SIZE,
    Observations,
    read,
)
from image_classification.monitoring.statistics import NAMES, describe

START = 1_000_000 * HOUR


class Clock:
    """Seconds since 1970, which tests set."""

    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def batch(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 6, 6, 1), np.uint8)
    return images, random.dirichlet(np.ones(4), count).astype(np.float32)


def test_what_was_observed_is_read_as_it_was() -> None:
    clock = Clock()
    seen = Observations("digits", clock)
    images, probabilities = batch(150)
    for start in range(0, 150, 7):
        seen.observe("key", images[start : start + 7], probabilities[start : start + 7])
    clock.now += 60
    seen.observe("key", images[:1], probabilities[:1])
    seen.write()

    window = read("digits", now=clock.now)

    assert (window.key, window.seen) == ("key", 151)
    assert (window.begin, window.end) == (START, START + 60)
    values, classes = describe(images, probabilities)
    np.testing.assert_allclose(window.statistics.values[:150], values, atol=1.1e-4)
    assert window.statistics.classes[:150].tolist() == classes.tolist()


def test_nothing_but_the_statistics_and_the_hours_reaches_the_disk(tmp_path: Path) -> None:
    seen = Observations("digits", Clock())
    for number in range(10):
        seen.observe("key", *batch(20, number))
    seen.write()

    file, lock = tmp_path / "observations/digits.npz", tmp_path / "observations/digits.lock"
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [lock, file]
    assert lock.read_bytes() == b""
    with np.load(file, allow_pickle=False) as archive:
        sizes = {name: archive[name].size for name in archive.files}
    rows = 200
    expected = {"key": 1, "names": len(NAMES), "times": 3, "seen": 1}
    assert sizes == {**expected, "values": rows * len(NAMES), "classes": rows}


def test_a_busy_day_stays_small_and_all_of_an_hour_are_as_likely_kept(tmp_path: Path) -> None:
    clock = Clock()
    seen = Observations("digits", clock, seed=0)
    count = 8 * RESERVOIR_SIZE
    images = np.zeros((count, 1, 1, 1), np.uint8)
    # The class tells when it came.
    order = np.repeat(np.eye(8, dtype=np.float32), RESERVOIR_SIZE, axis=0)
    for _ in range(HOURS + 3):
        clock.now += HOUR
        for start in range(0, count, 50):
            seen.observe("key", images[start : start + 50], order[start : start + 50])
    seen.write()

    window = read("digits", now=clock.now)
    kept = np.bincount(window.statistics.classes)

    assert window.seen == HOURS * count
    assert kept.sum() == HOURS * RESERVOIR_SIZE
    assert abs(kept / (HOURS * RESERVOIR_SIZE) - 1 / 8).max() < 0.02  # 6 standard deviations
    assert (tmp_path / "observations/digits.npz").stat().st_size < 2**20


def test_the_last_hours_alone_can_be_asked_for() -> None:
    clock = Clock()
    seen = Observations("digits", clock)
    seen.observe("key", *batch(30))
    clock.now += 5 * HOUR
    seen.observe("key", *batch(20))
    seen.write()

    assert read("digits", now=clock.now).seen == 50
    assert read("digits", hours=1, now=clock.now).seen == 20
    with pytest.raises(UserError, match="holds nothing of the last 1 hours"):
        read("digits", hours=1, now=clock.now + 2 * HOUR)


def test_a_server_goes_on_where_the_last_one_ended() -> None:
    clock = Clock()
    for number in range(2):
        seen = Observations("digits", clock)
        seen.observe("key", *batch(30, number))
        seen.write()

    window = read("digits", now=clock.now)

    assert (window.seen, len(window.statistics.classes)) == (60, 60)


def test_two_servers_at_once_are_both_read() -> None:
    clock = Clock()
    first, second = (Observations("digits", clock) for _ in range(2))
    first.observe("key", *batch(30))
    clock.now += 60
    second.observe("key", *batch(20, 1))
    for seen in (first, second, first):
        seen.write()

    window = read("digits", now=clock.now)

    assert (window.seen, len(window.statistics.classes)) == (50, 50)
    assert (window.begin, window.end) == (START, START + 60)
    second.observe("new", *batch(7))  # it has taken up the next champion first
    second.write()
    assert (read("digits", now=clock.now).key, read("digits", now=clock.now).seen) == ("new", 7)


def test_a_folder_that_cannot_be_made_stops_no_server(tmp_path: Path) -> None:
    (tmp_path / "observations").write_text("no folder")

    Observations("digits", Clock()).observe("key", *batch(3))


def test_the_last_write_waits_for_one_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer's thread may still write when the server is told to end."""
    savez, clock = np.savez, Clock()
    at_work, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any, **arrays: Any) -> None:
        if not at_work.is_set():
            at_work.set()
            assert go_on.wait(10)
        savez(*arguments, **arrays)

    monkeypatch.setattr(np, "savez", slow)
    seen = Observations("digits", clock)
    seen.observe("key", *batch(3))
    timer = threading.Thread(target=seen.write)
    timer.start()
    assert at_work.wait(10)
    seen.observe("key", *batch(4))
    last = threading.Thread(target=seen.write)
    last.start()
    last.join(0.2)
    go_on.set()
    for thread in (timer, last):
        thread.join()

    assert read("digits", now=clock.now).seen == 7


def test_another_model_begins_anew() -> None:
    clock = Clock()
    seen = Observations("digits", clock)
    seen.observe("old", *batch(30))
    seen.observe("new", *batch(7))
    seen.write()

    window = read("digits", now=clock.now)

    assert (window.key, window.seen, len(window.statistics.classes)) == ("new", 7, 7)


def test_models_may_take_images_of_different_sizes() -> None:
    clock = Clock()
    seen = Observations("digits", clock)
    seen.observe("old", *batch(5))
    seen.observe("new", np.zeros((3, 9, 9, 3), np.uint8), np.full((3, 2), 0.5, np.float32))
    seen.write()

    assert read("digits", now=clock.now).seen == 3


def test_a_damaged_file_is_named_and_stops_no_server(tmp_path: Path) -> None:
    path = tmp_path / "observations/digits.npz"
    clock = Clock()
    seen = Observations("digits", clock)
    seen.observe("key", *batch(30))
    seen.write()
    whole = path.read_bytes()

    for damaged in (b"", b"PK\3\4 no archive", whole[:-30], whole[:200], b"\x93NUMPY\1\0"):
        path.write_bytes(damaged)
        del seen  # its server has ended
        with pytest.raises(UserError, match=r"digits\.npz is damaged .*: delete it"):
            read("digits")
        seen = Observations("digits", clock)
        seen.observe("key", *batch(8))
        seen.write()
        assert read("digits", now=clock.now).seen == 8


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", np.full(30, -1, np.int32)),
        ("classes", np.zeros(29, np.int32)),
        ("values", np.full((30, len(NAMES)), np.nan, np.float32)),
        ("values", np.zeros((30, 2), np.float32)),
        ("seen", np.array([2**40])),
        ("names", np.array(["ink"])),
    ],
)
def test_a_file_of_other_contents_is_refused(
    name: str, value: NDArray[np.generic], tmp_path: Path
) -> None:
    seen = Observations("digits", Clock())
    seen.observe("key", *batch(30))
    seen.write()
    path = tmp_path / "observations/digits.npz"
    with np.load(path) as archive:
        contents = dict(archive)
    np.savez(path, allow_pickle=False, **{**contents, name: value})

    with pytest.raises(UserError, match="is damaged"):
        read("digits")


def test_a_disk_that_takes_nothing_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    clock = Clock()
    seen = Observations("digits", clock)
    seen.observe("key", *batch(30))
    shutil.rmtree(tmp_path / "observations")
    (tmp_path / "observations").write_text("no folder")

    with pytest.raises(UserError, match=r"digits\.npz can't be written"):
        seen.write()

    (tmp_path / "observations").unlink()
    seen.write()
    assert read("digits", now=clock.now).seen == 30


def test_nothing_new_is_not_written_again(tmp_path: Path) -> None:
    seen = Observations("digits", Clock())
    seen.observe("key", *batch(3))
    seen.write()
    observations.path_of("digits").unlink()

    seen.write()

    assert not observations.path_of("digits").exists()
