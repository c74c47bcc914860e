"""The door: which command runs, and what is said where there is none."""

import subprocess
import sys

import pytest

from image_classification import __main__ as door


def printed(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Run the door in this process; exit code, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", ["image-classification", *arguments])
    code: object = 0
    try:
        door.main()
    except SystemExit as end:
        code = end.code
    assert isinstance(code, int)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("arguments", [["trian", "model=cnn"], ["commands"], ["compose"]])
def test_an_unknown_command_is_one_line_and_the_usage(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, errors = printed(arguments, monkeypatch, capsys)

    assert (code, out) == (2, "")
    assert errors == f"error: {' '.join(arguments)}: no such command\n{door.USAGE}\n"


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_usage_names_every_command(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, errors = printed(arguments, monkeypatch, capsys)

    assert (code, errors) == (0, "")
    assert out == door.USAGE + "\n"
    for command in (*door.STAGES, *door.COMMANDS):
        assert command in out


def test_the_door_itself_imports_no_library_of_a_stage() -> None:
    code = (
        "import sys\n"
        "from image_classification import __main__\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    imported = set(done.stdout.split())
    assert {"image_classification", "hydra"} <= imported
    heavy = {"tensorflow", "keras", "mlflow", "sklearn", "matplotlib", "pandas", "numpy"}
    assert not imported & heavy
