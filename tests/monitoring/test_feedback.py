"""Feedback: it counts once, for an answer that was given, and waits for a person."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
from conftest import Compose
from numpy.typing import NDArray

from image_classification.core.errors import UserError
from image_classification.download import download
from image_classification.formats import table
from image_classification.formats.decode import decode
from image_classification.monitoring import corrections
from image_classification.monitoring.corrections import MANIFEST, Corrections, read
from image_classification.monitoring.recent_predictions import (
    FeedbackError,
    RecentPredictions,
    ServedPrediction,
)
from image_classification.split import split

CLASSES = ("cat", "dog", "line\nbreak, comma")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def image(seed: int, channels: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, channels), np.uint8)


def prediction(seed: int = 0, channels: int = 1) -> ServedPrediction:
    return ServedPrediction(image(seed, channels), "cat", 0.9, "key", 3, CLASSES)


def refused(act: Callable[[], object]) -> HTTPStatus:
    with pytest.raises(FeedbackError) as raised:
        act()
    assert "\n" not in str(raised.value)
    return raised.value.status


def filled(count: int) -> tuple[Corrections, list[str]]:
    """Corrections that wait, and their ids."""
    recent, store = RecentPredictions(), Corrections("pets")
    ids = [recent.remember(prediction(seed)) for seed in range(count)]
    for name in ids:
        store.add(recent, name, "dog")
    return store, ids


@pytest.mark.parametrize("channels", [1, 3])
def test_feedback_keeps_the_image_bit_for_bit_and_what_was_said(channels: int) -> None:
    recent, store = RecentPredictions(), Corrections("pets")
    name = recent.remember(prediction(5, channels))

    store.add(recent, name, CLASSES[2])

    (one,) = store.waiting()
    assert (one.id, one.label, one.answer, one.probability) == (name, CLASSES[2], "cat", 0.9)
    assert (one.key, one.version) == ("key", 3)
    stored = decode(store.pending / one.path, (8, 8, channels), "pad")
    np.testing.assert_array_equal(stored, image(5, channels))


def test_an_answer_counts_once() -> None:
    recent, store = RecentPredictions(), Corrections("pets")
    name = recent.remember(prediction())
    store.add(recent, name, "dog")

    assert refused(lambda: store.add(recent, name, "dog")) == HTTPStatus.CONFLICT
    assert len(store.waiting()) == 1


def test_an_answer_counts_once_however_many_say_so_at_the_same_time() -> None:
    recent, store = RecentPredictions(), Corrections("pets")
    name = recent.remember(prediction())

    def add(_: int) -> bool:
        try:
            store.add(recent, name, "dog")
        except FeedbackError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        counted = list(pool.map(add, range(30)))

    assert sum(counted) == len(store.waiting()) == 1


def test_an_answer_that_was_never_given_does_not_count() -> None:
    recent, store = RecentPredictions(), Corrections("pets")
    recent.remember(prediction())

    for guess in ("", "0" * 32, "../../etc/passwd"):
        assert refused(lambda guess=guess: store.add(recent, guess, "dog")) == HTTPStatus.NOT_FOUND  # type: ignore[misc]  # mypy can't infer a default's type
    assert not store.folder.exists()


def test_a_label_that_is_no_class_does_not_count_and_uses_nothing_up() -> None:
    recent, store = RecentPredictions(), Corrections("pets")
    name = recent.remember(prediction())

    assert refused(lambda: store.add(recent, name, "bird")) == HTTPStatus.UNPROCESSABLE_ENTITY

    store.add(recent, name, "dog")
    assert len(store.waiting()) == 1


@pytest.mark.parametrize("cap", [{"most": 2}, {"most_bytes": 300}])
def test_a_full_store_takes_no_more_until_somebody_has_decided(cap: dict[str, int]) -> None:
    recent, store = RecentPredictions(), Corrections("pets", **cap)
    ids = [recent.remember(prediction(seed)) for seed in range(3)]
    for name in ids[:2]:
        store.add(recent, name, "dog")

    assert refused(lambda: store.add(recent, ids[2], "dog")) == HTTPStatus.INSUFFICIENT_STORAGE

    store.accept(ids[:1])
    store.add(recent, ids[2], "dog")
    assert [one.id for one in store.waiting()] == ids[1:]


def test_old_answers_are_forgotten_by_number_size_and_time() -> None:
    now = [0.0]
    recent = RecentPredictions(most=3, most_bytes=1000, seconds=60, clock=lambda: now[0])
    store = Corrections("pets")
    ids = [recent.remember(prediction(seed)) for seed in range(5)]
    assert len(recent) == 3
    assert refused(lambda: store.add(recent, ids[1], "dog")) == HTTPStatus.NOT_FOUND

    large = recent.remember(replace(prediction(), image=np.zeros((30, 30, 1), np.uint8)))
    assert len(recent) == 2  # 900 + 64 bytes

    now[0] = 61
    assert refused(lambda: store.add(recent, large, "dog")) == HTTPStatus.NOT_FOUND
    assert len(recent) == 0


def test_a_remembered_image_is_a_copy() -> None:
    recent, store = RecentPredictions(), Corrections("pets")
    batch = np.stack([image(0), image(1)])
    name = recent.remember(replace(prediction(), image=batch[1]))
    batch[:] = 0

    one = store.add(recent, name, "dog")

    stored = decode(store.pending / one.path, (8, 8, 1), "pad")
    np.testing.assert_array_equal(stored, image(1))


def test_accepted_ones_move_and_discarded_ones_are_gone() -> None:
    store, ids = filled(4)

    store.accept([ids[2]])
    store.discard([ids[0]])
    store.accept([ids[3]])

    assert [one.id for one in store.waiting()] == [ids[1]]
    assert [one.id for one in read(store.accepted / MANIFEST)] == [ids[2], ids[3]]
    files = {path.name for path in store.folder.rglob("*.png")}
    assert files == {f"{name}.png" for name in ids[1:]}


def test_no_ids_mean_all() -> None:
    store, ids = filled(3)

    assert [one.id for one in store.accept([])] == ids
    assert store.waiting() == store.discard([]) == []


def test_the_beginning_of_an_id_is_enough_if_only_one_begins_so() -> None:
    store, ids = filled(2)

    with pytest.raises(UserError, match="matches 2 corrections"):
        store.accept([""])
    with pytest.raises(UserError, match="is not a correction"):
        store.discard(["nobody"])
    assert len(store.waiting()) == 2
    assert [one.id for one in store.accept([ids[1][:10]])] == [ids[1]]


def test_a_kill_between_the_steps_of_accept_loses_and_doubles_nothing() -> None:
    """What is in both places, as a kill leaves it, is accepted once more."""
    store, ids = filled(2)
    before = {path: path.read_bytes() for path in store.pending.iterdir()}
    store.accept([])
    for path, contents in before.items():
        path.write_bytes(contents)

    store.accept([])

    assert [one.id for one in read(store.accepted / MANIFEST)] == ids
    assert store.waiting() == []


def test_a_line_that_a_kill_cut_short_does_not_count_and_is_mended() -> None:
    recent = RecentPredictions()
    store, ids = filled(2)
    manifest = store.pending / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-20])
    assert [one.id for one in store.waiting()] == ids[:1]

    name = recent.remember(prediction(9))
    store.add(recent, name, "cat")

    assert [one.id for one in store.waiting()] == [ids[0], name]


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[]",
        "{}",
        '{"path": "../../x.png"}',
        "[" * 100_000,
        json.dumps({"path": "a.png", "label": 1, "answer": "1", "key": "k", "time": "t"}),
    ],
)
def test_a_damaged_line_is_named(line: str) -> None:
    store, _ = filled(1)
    with (store.pending / MANIFEST).open("a") as stream:
        stream.write(f"{line}\n")

    with pytest.raises(UserError, match=r"labels\.jsonl, line 2 is damaged"):
        store.waiting()


def test_an_accepted_manifest_names_no_file_outside_its_folder() -> None:
    store, _ = filled(1)
    manifest = store.pending / MANIFEST
    text = manifest.read_text()
    values = json.loads(text)
    manifest.write_text(json.dumps({**values, "path": "../../x.png"}) + "\n")

    with pytest.raises(UserError, match="line 1 is damaged"):
        store.accept([])


def test_a_missing_image_says_what_to_do() -> None:
    store, ids = filled(1)
    (store.pending / f"{ids[0]}.png").unlink()

    with pytest.raises(UserError, match=f"feedback discard {ids[0]}"):
        store.accept([])

    store.discard([])
    assert store.waiting() == []


def test_images_of_other_channels_are_refused() -> None:
    recent, store = RecentPredictions(), Corrections("pets")
    name = recent.remember(prediction(0, channels=4))

    assert refused(lambda: store.add(recent, name, "dog")) == HTTPStatus.UNPROCESSABLE_ENTITY


def test_the_split_reads_what_was_accepted_and_nothing_else(compose: Compose) -> None:
    recent, store = RecentPredictions(), Corrections("pets")
    ids = [recent.remember(prediction(seed)) for seed in range(60)]
    for number, name in enumerate(ids):
        store.add(recent, name, CLASSES[number % 2])
    store.accept(ids[:40])
    config = compose("data=table", f"data.path={store.accepted}")

    download(config)
    parts = split(config)

    assert sum(len(part.labels) for part in parts.values()) == 40
    accepted = {image(seed).tobytes() for seed in range(40)}
    assert {one.tobytes() for part in parts.values() for one in part.images} == accepted
    labels = [record.label for record in table.read(config.data).records]
    assert labels == ["cat", "dog"] * 20


def test_a_disk_that_is_full_is_one_line_and_what_is_left_of_it_goes_with_the_next_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recent = RecentPredictions()
    store, ids = filled(1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(corrections, "_append", full)
        with pytest.raises(UserError, match="pending can't be written: No space left on device"):
            store.add(recent, recent.remember(prediction(7)), "dog")
    assert len(list(store.pending.glob("*.png"))) == 2
    assert [one.id for one in store.waiting()] == ids

    store.accept([])

    assert list(store.pending.glob("*.png")) == []
