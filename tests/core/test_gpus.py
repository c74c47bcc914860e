"""Which GPU each process of a sweep sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from image_classification.core import gpus

# Takes a GPU twice, as for two jobs; says which it sees; and holds it until its input ends.
PROCESS = """
import os, sys
from pathlib import Path
from image_classification.core import gpus
for _ in range(2):
    gpus.take_gpu(Path(sys.argv[1]))
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


def test_processes_at_once_see_a_gpu_each_and_the_next_one_that_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    started = []

    def seen() -> str:
        command = [sys.executable, "-c", PROCESS, str(tmp_path)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        assert started[-1].stdout is not None
        return started[-1].stdout.readline().strip()

    first_two = [seen(), seen()]
    started[1].communicate()
    third, more_than_gpus = seen(), seen()
    for process in started[:1] + started[2:]:
        process.communicate()

    assert first_two == ["3", "GPU-5"]
    assert (third, more_than_gpus) == ("GPU-5", "3")


@pytest.mark.parametrize("devices", [[], ["nvidia0"], ["nvidia0", "nvidiactl", "nvidia-uvm"]])
def test_a_process_that_sees_one_gpu_at_most_keeps_what_it_sees(
    devices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in devices:
        (tmp_path / name).touch()
    gpus.take_gpu(tmp_path)

    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_the_gpus_of_the_machine_are_those_that_linux_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.setattr(gpus, "_slot", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is taken back afterwards
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / name).touch()
    gpus.take_gpu(tmp_path)

    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
