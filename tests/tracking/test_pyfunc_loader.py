"""The registered model refuses what it would answer with nonsense, wherever it is served."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from conftest import Project

ANSWER = """
import json, sys
import mlflow, numpy as np
from mlflow.utils.proto_json_utils import parse_tf_serving_input

assert not any("image_classification" in name for name in sys.modules)
model = mlflow.pyfunc.load_model(sys.argv[1])
schema = model.metadata.get_input_schema()
answers = []
for inputs in json.load(open(sys.argv[2])):
    try:  # as MLflow's scoring server does
        answers.append(model.predict(parse_tf_serving_input({"inputs": inputs}, schema)).tolist())
    except mlflow.exceptions.MlflowException as error:
        answers.append([error.error_code, error.message])
images = np.load(sys.argv[3])
answers.append(model.predict(images).tolist())
answers.append(model.predict(images[:0]).shape)
answers.append(model.predict(np.resize(images, (1001, *images.shape[1:]))).argmax(axis=1).tolist())
json.dump(answers, open(sys.argv[4], "w"))
"""


@pytest.fixture(scope="module")
def answers(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a process without this project answers."""
    folder = tmp_path_factory.mktemp("answers")
    images = np.load(trained.root / "data/split/test_images.npy")[:3]
    runs = (trained.root / "mlartifacts").rglob("MLmodel")
    logged = sorted(path.parent for path in runs)[0]
    asked = [
        images.tolist(),
        images.astype(float).tolist(),
        (images / 255).tolist(),
        (images > 100).astype(int).tolist(),
        (images.astype(int) + 200).tolist(),
        images[:, :5].tolist(),
        [[1, 2], [3]],
    ]
    (folder / "asked.json").write_text(json.dumps(asked))
    np.save(folder / "images.npy", images)
    command = [sys.executable, "-c", ANSWER, str(logged)]
    command += [str(folder / name) for name in ("asked.json", "images.npy", "answers.json")]
    environment = trained.environment(PYTHONPATH="")
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # no progress bar
    return json.loads((folder / "answers.json").read_text())


def test_whole_numbers_are_answered_whatever_their_type(answers: Any) -> None:
    by_integers, by_floats, *_, by_array, _, _ = answers

    assert np.shape(by_array) == (3, 10)
    assert np.allclose(np.sum(by_array, axis=1), 1, atol=1e-5)
    assert by_integers == by_floats == by_array


def test_any_number_of_images_is_answered(answers: Any) -> None:
    *_, by_array, of_none, of_many = answers

    assert of_none == [0, 10]
    assert of_many == np.resize(np.argmax(by_array, axis=1), 1001).tolist()


@pytest.mark.parametrize(
    ("index", "cause"),
    [
        (2, "not fractions"),
        (3, "not fractions"),  # of images in black and white, which are 0 and 1
        (4, "from 0 to 255"),
        (5, "shape"),
        (6, "same number"),
    ],
)
def test_what_is_no_image_is_refused(answers: Any, index: int, cause: str) -> None:
    code, message = answers[index]

    assert code == "INVALID_PARAMETER_VALUE"  # answered with 400
    assert cause in message
