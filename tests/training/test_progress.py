"""What a terminal and a log show while a model is trained."""

import os
import pty
import re
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path

import keras
import pytest
from conftest import Compose, tiny_examples
from tqdm import tqdm

from image_classification.core.config import Config
from image_classification.models import build
from image_classification.train import train
from image_classification.training.fit import fit
from image_classification.training.progress import EpochBars, epoch_bars


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Make stderr a terminal of 100 columns; when the block ends, the list holds what it got."""
    controller, terminal_end = pty.openpty()
    termios.tcsetwinsize(terminal_end, (24, 100))
    received, shown = bytearray(), list[str]()

    def receive() -> None:  # meanwhile: a terminal that nobody reads blocks who writes
        while b"\0" not in received:
            received.extend(os.read(controller, 4096))

    reader = threading.Thread(target=receive)
    reader.start()
    with os.fdopen(terminal_end, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        every_change = partialmethod(tqdm.__init__, mininterval=0)
        patch.setattr(tqdm, "__init__", every_change)
        try:
            yield shown
        finally:
            stream.write("\0")
            stream.flush()
            reader.join()
    os.close(controller)
    shown.append(received.decode().removesuffix("\0"))


def tiny(compose: Compose, *overrides: str) -> Config:
    """Two epochs of 63 steps, two at a time; the last step comes alone."""
    return compose(
        *("recipe=notebook", "recipe.epochs=2", "recipe.batch_size=8"),
        *("recipe.steps_per_execution=2", *overrides),
    )


@pytest.mark.slow
def test_a_terminal_shows_the_steps_of_each_epoch_and_clears_them(
    workspace: Path,
    compose: Compose,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with terminal(monkeypatch) as shown:
        train(tiny(compose, "model=lm", "output_dir=shown"))

    drawn = shown[0].split("\r")
    for epoch in (1, 2):
        pattern = rf"epoch {epoch} of 2: +\d+%\|.*\| (\d+)/63 \[.*<.*steps/s, loss=[\d.]+\]"
        steps = [int(found[1]) for line in drawn if (found := re.fullmatch(pattern, line.rstrip()))]
        assert len(steps) > 2
        assert set(steps) <= {*range(2, 63, 2), 63}
        assert steps == sorted(steps)
        assert steps[-1] == 63
    assert any(line.startswith("epoch 2 of 2, validation: 100%|") for line in drawn)
    assert "\n" not in shown[0]
    assert drawn[-1] == ""
    assert drawn[-2].strip() == ""  # over the last bar
    assert_one_line_an_epoch(capsys.readouterr().out)


def test_a_log_has_one_line_an_epoch(
    workspace: Path, compose: Compose, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny(compose, "model=tiny_lm", "output_dir=logged"))

    printed = capsys.readouterr()
    assert_one_line_an_epoch(printed.out)
    assert "epoch" not in printed.err
    assert "\r" not in printed.err


def assert_one_line_an_epoch(printed: str) -> None:
    lines = [line for line in printed.splitlines() if "epoch" in line]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]


def fitted(config: Config, progress: bool) -> list[bytes]:
    """The weights after a fit from a fixed start."""
    keras.utils.set_random_seed(1)
    model = build.build(config.model, (28, 28, 1), classes=10)
    train, validation = tiny_examples(100, seed=0), tiny_examples(20, seed=1)
    jit_compile = config.model.jit_compile
    fit(model, config.recipe, 5, jit_compile, train, validation, None, lambda _: None, progress)
    return [weights.tobytes() for weights in model.get_weights()]


@pytest.mark.slow
def test_the_bar_changes_no_weight(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(compose, "model=nn")
    without = fitted(config, progress=False)
    with terminal(monkeypatch) as shown:
        assert fitted(config, progress=True) == without

    assert "epoch 2 of 2" in shown[0]


@contextmanager
def an_epoch(steps: int, steps_per_group: int, groups: int) -> Iterator[EpochBars]:
    """The bars of an epoch that has begun."""
    with epoch_bars(steps, steps_per_group) as (bars,):
        assert isinstance(bars, EpochBars)
        bars.set_params({"epochs": 1, "steps": groups})
        bars.on_epoch_begin(0)
        yield bars


def test_messages_appear_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown, an_epoch(steps=4, steps_per_group=2, groups=2) as bars:
        bars.on_train_batch_end(0, {"loss": 0.5})
        print("a message", file=sys.stderr)

    assert "2/4" in shown[0].partition("a message")[0]
    assert re.search(r"\r +\ra message\r\n\repoch 1 of 1:  50%", shown[0])


def test_an_interruption_clears_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_epoch() -> None:
        with an_epoch(steps=4, steps_per_group=2, groups=2) as bars:
            bars.on_train_batch_end(0, {"loss": 0.5})
            raise KeyboardInterrupt

    with terminal(monkeypatch) as shown:
        with pytest.raises(KeyboardInterrupt):
            interrupted_epoch()
        print("error", file=sys.stderr)

    assert re.search(r"2/4.*\r +\rerror\r\n$", shown[0])


@pytest.mark.parametrize(
    ("steps", "groups", "expected"),
    [
        (6, 3, [2, 4, 6]),  # whole groups
        (5, 3, [2, 4, 5]),  # a short last group, or a short last batch after whole groups
        (6, 4, [2, 4, 5, 6]),  # a short group, and then a short batch
    ],
)
def test_a_group_counts_the_steps_that_it_has(
    monkeypatch: pytest.MonkeyPatch, steps: int, groups: int, expected: list[int]
) -> None:
    with terminal(monkeypatch) as shown, an_epoch(steps, 2, groups) as bars:
        for group in range(groups):
            bars.on_train_batch_end(group, {"loss": 0.5})

    drawn = re.findall(rf" (\d+)/{steps} ", shown[0])
    assert [int(done) for done in drawn] == [0, *expected]


def test_groups_that_are_reported_late_move_no_bar_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown, an_epoch(steps=6, steps_per_group=2, groups=3) as bars:
        for group in (1, 0, 2):
            bars.on_train_batch_end(group, {"loss": 0.5})

    assert re.findall(r" (\d+)/6 ", shown[0]) == ["0", "4", "6"]
