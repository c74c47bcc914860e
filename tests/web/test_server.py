"""The whole command: what is answered over HTTP, and which model answers."""

import base64
import contextlib
import io
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import Once
from PIL import Image, ImageDraw
from running import (
    REVERSED,
    STRAIGHT,
    Answer,
    Server,
    command,
    copy_artifact,
    environment,
    make_artifacts,
    project,
    promote,
    serving,
    striped,
)

from image_classification.core import paths
from image_classification.monitoring import observations
from image_classification.web import bodies, limits

RAW = "application/octet-stream"


@pytest.fixture(scope="module")
def artifacts(once: Once) -> Path:
    return once("served artifacts", make_artifacts)


@pytest.fixture
def root(artifacts: Path, tmp_path: Path) -> Path:
    """A project whose champion counts straight."""
    promote(project(tmp_path / "project", artifacts), STRAIGHT)
    return tmp_path / "project"


@pytest.fixture(scope="module")
def shared_root(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = project(tmp_path_factory.mktemp("served") / "project", artifacts)
    promote(root, STRAIGHT)
    return root


@pytest.fixture(scope="module")
def server(shared_root: Path) -> Iterator[Server]:
    """One that all tests ask that change nothing."""
    with serving(shared_root) as running:
        yield running


def test_images_are_answered_in_every_form(server: Server) -> None:
    for place in (0, 7):
        image = striped(place)
        answers = [
            server.ask("/predict", image.tobytes(), RAW),
            server.ask("/predict", json.dumps({"image": image.tolist()}).encode(), bodies.JSON),
            server.ask(
                "/predict",
                json.dumps({"dataframe_records": [{"image": image.tolist()}]}).encode(),
                "Application/JSON; charset=utf-8",
            ),
        ]
        for answer in answers:
            assert answer.said == str(place)
            assert answer.headers["x-model-version"] == "1"
            (prediction,) = answer.json["predictions"]
            assert list(prediction["probabilities"]) == [str(digit) for digit in range(10)]
            assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-4)
            assert prediction["probability"] == prediction["probabilities"][str(place)] > 0.5


def test_several_images_of_one_request_are_answered_in_their_order(server: Server) -> None:
    places = [3, 1, 4, 1, 5, 9, 2, 6] * 20  # more than a batch
    body = b"".join(striped(place).tobytes() for place in places)

    answer = server.ask("/predict", body, RAW)

    assert [int(one["class"]) for one in answer.json["predictions"]] == places


def test_a_drawing_in_a_file_is_brought_to_the_models_form_and_shown(server: Server) -> None:
    picture = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(picture).line([(50, 20), (60, 180)], fill="black", width=20)
    for kind in ("png", "jpeg"):
        stream = io.BytesIO()
        picture.save(stream, kind)

        answer = server.ask("/predict?seen=true", stream.getvalue(), f"image/{kind}")

        assert answer.status == 200
        (seen,) = answer.json["seen"]
        pixels = np.frombuffer(base64.b64decode(seen), np.uint8).reshape(28, 28)
        assert pixels[:, :9].max() == 0  # black paper
        assert pixels[14, 12:16].max() > 200  # bright ink


def test_the_other_models_answer_beside_the_champion_when_asked(server: Server) -> None:
    answer = server.ask("/predict?models=all", striped(2).tobytes(), RAW)

    assert answer.said == "2"
    (other,) = answer.json["others"]
    assert (other["model"], other["version"]) == ("reversed", 2)
    assert other["predictions"][0]["class"] == "7"
    assert "others" not in server.predict(striped(2)).json


def test_invocations_are_answered_as_mlflow_does(server: Server) -> None:
    rows = np.stack([striped(3), striped(8)]).tolist()
    for form in (
        {"inputs": rows},
        {"instances": rows},
        {"dataframe_split": {"columns": ["image"], "data": [[row] for row in rows]}},
        {"dataframe_records": [{"image": row} for row in rows]},
    ):
        answer = server.ask("/invocations", json.dumps(form).encode(), bodies.JSON)

        assert answer.status == 200
        assert np.argmax(answer.json["predictions"], axis=1).tolist() == [3, 8]


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status", "said"),
    [
        ("POST", "/predict", b'{"image": [0.5]}', bodies.JSON, 422, "fractions from 0 to 1"),
        ("POST", "/invocations", b'{"inputs": [0.5]}', bodies.JSON, 422, "fractions from 0 to 1"),
        ("POST", "/predict", b"12", RAW, 422, "2 bytes are not a whole number"),
        ("POST", "/predict", b"12", "image/png", 422, "not an image"),
        ("POST", "/predict", b"x=1", "application/x-www-form-urlencoded", 415, "give one of"),
        ("POST", "/invocations", b"x", "image/png", 415, "application/json"),
        ("GET", "/predict", None, "", 405, "use POST"),
        ("POST", "/version", b"", "", 405, "use GET"),
        ("GET", "/nothing", None, "", 404, "/openapi.json"),
        ("POST", "/predict", b"1" * (limits.LARGEST_BODY + 1), RAW, 413, "16,777,216 bytes"),
    ],
)
def test_a_bad_request_is_refused_in_one_line_with_the_version(
    server: Server, method: str, path: str, body: bytes | None, kind: str, status: int, said: str
) -> None:
    answer = server.ask(path, body, kind, method)

    assert answer.status == status
    assert said in answer.json["error"]
    assert "\n" not in answer.json["error"]
    assert answer.headers["x-model-version"] == "1"
    assert server.predict(striped(1)).said == "1"


def send(server: Server, data: bytes, timeout: float = 30) -> bytes:
    """What a connection is answered that sends these bytes, and then nothing more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
    return answer


def test_what_is_no_http_is_refused_with_the_version(server: Server) -> None:
    answer = send(server, b"\x16\x03\x01 hello\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-model-version: 1\r\n" in answer


def test_a_body_without_a_length_is_bounded_as_well(server: Server) -> None:
    part = b"100000\r\n" + b"1" * 0x100000 + b"\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(17):
                connection.sendall(part)
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [
        b"POST /pre",
        b"POST /predict HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n1",
    ],
)
def test_a_client_that_sends_half_a_request_is_given_up(server: Server, start: bytes) -> None:
    answer = send(server, start, timeout=limits.REQUEST_SECONDS + 10)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"x-model-version: 1\r\n" in answer


def test_the_service_pages_say_what_is_there(server: Server) -> None:
    assert server.ask("/live").status == server.ask("/ready").status == 200
    version = server.ask("/version").json
    assert (version["name"], version["model"], version["version"]) == ("mnist", "straight", 1)
    assert version["is_current"] is True
    assert version["image_shape"] == [28, 28, 1]
    assert [other["model"] for other in version["others"]] == ["reversed"]
    described = server.ask("/openapi.json").json
    assert described["openapi"].startswith("3.")
    for path, methods in described["paths"].items():
        for method in methods:  # each is really there
            body = b"" if method == "post" else None
            assert server.ask(path, body, method=method.upper()).status in (200, 415), path
    named = json.dumps(described).count("#/components/schemas/")
    found = json.dumps(described).count('"#/components/schemas/')
    assert named == found > 0
    for name in ("Images", "Invocation", "Predictions", "Probabilities", "Error"):
        assert name in described["components"]["schemas"]


def test_an_answer_can_be_corrected_once(server: Server, shared_root: Path) -> None:
    def correct(prediction_id: str, label: str) -> Answer:
        body = json.dumps({"id": prediction_id, "label": label}).encode()
        return server.ask("/feedback", body, bodies.JSON)

    answer = server.ask("/predict?feedback=true", striped(4).tobytes(), RAW)
    prediction_id = answer.json["predictions"][0]["id"]

    assert correct(prediction_id, "eleven").status == 422
    assert correct("0" * 32, "1").status == 404
    assert server.ask("/feedback", b"[]", bodies.JSON).status == 422
    assert correct(prediction_id, "1").status == 201
    assert correct(prediction_id, "2").status == 409
    (line,) = (shared_root / "feedback/mnist/pending/labels.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert (kept["label"], kept["answer"], kept["version"]) == ("1", "4", 1)
    image = np.asarray(Image.open(shared_root / "feedback/mnist/pending" / kept["path"]))
    assert np.array_equal(image, striped(4)[..., 0])
    assert "id" not in server.predict(striped(4)).json["predictions"][0]


def test_what_is_answered_is_observed_for_drift_but_not_half_a_drawing(root: Path) -> None:
    with serving(root) as server:
        server.ask("/predict", striped(4).tobytes() * 60, RAW)
        server.ask("/predict?models=all", striped(5).tobytes(), RAW)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0

    with contextlib.chdir(root):
        window = observations.read("mnist")
    assert (window.key, window.seen) == (STRAIGHT, 60)
    assert set(window.statistics.classes) == {4}


def test_metrics_count_what_was_answered(server: Server) -> None:
    server.ask("/predict", striped(1).tobytes(), RAW)  # a metric has no row before
    before = server.metric('requests_total{path="/predict",status="200"}')
    images = server.metric("images_total")
    server.ask("/predict", striped(1).tobytes() * 3, RAW)

    assert server.metric('requests_total{path="/predict",status="200"}') == before + 1
    assert server.metric("images_total") == images + 3
    assert server.metric("queued_images") == 0
    info = 'model_info{role="champion",model="straight",run="straight-0",version="1"}'
    assert server.metric(info) == 1
    seconds = server.metric("request_seconds_count")
    assert server.metric('request_seconds_bucket{le="+Inf"}') == seconds + 1  # the one before


def test_the_process_holds_neither_tensorflow_nor_keras_nor_mlflow(server: Server) -> None:
    mapped = {Path(part.path).name for part in psutil.Process(server.process.pid).memory_maps()}
    assert not [name for name in mapped if "tensorflow" in name]
    found = subprocess.run(
        [
            *(command()[0], "-X", "importtime", "-c"),
            "import image_classification.commands.serve",
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    modules = {line.rpartition("|")[2].strip() for line in found.stderr.splitlines()}
    assert "uvicorn" in modules
    heavy = ("tensorflow", "keras", "mlflow", "pandas", "sklearn", "matplotlib")
    assert not {name for name in modules if name.split(".")[0] in heavy}


def test_a_new_champion_is_taken_up_without_losing_a_request(root: Path) -> None:
    with serving(root) as server:
        answers, ended = [], threading.Event()

        def ask() -> None:
            while not ended.is_set():
                answers.append(server.predict(striped(3)))

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        for key, run in ((REVERSED, "reversed-0"), (STRAIGHT, "straight-0")) * 2:
            (root / "log.txt").write_text("")
            promote(root, key)
            server.wait_for_log(f"{run} .* is served")
        ended.set()
        for thread in asking:
            thread.join()

        assert {answer.status for answer in answers} == {200}
        said = {(answer.headers["x-model-version"], answer.said) for answer in answers}
        assert said == {("1", "3"), ("2", "6")}  # each by the version that its header names
        assert server.metric("champion_loads_total") == 4
        assert server.metric("champion_load_failures_total") == 0


def test_a_broken_champion_never_answers(root: Path) -> None:
    cut = copy_artifact(root, REVERSED, "c" * 32) / "model.tflite"
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-5000])
    copy_artifact(root, REVERSED, "d" * 32)
    with serving(root) as server:
        for key, changes, said in (
            ("d" * 32, {"weights_sha256": "0" * 64}, "made from other weights than"),
            ("c" * 32, {}, "has SHA-256"),
        ):
            promote(root, key, **changes)
            server.wait_for_log(f"straight-0 .* stays in service: .*{said}")

            answer = server.predict(striped(3))
            assert (answer.headers["x-model-version"], answer.said) == ("1", "3")
            assert server.metric("champion_is_current") == 0
            assert server.ask("/ready").status == 200
        assert server.metric("champion_load_failures_total") == 2

        cut.write_bytes(whole)  # its file changes: it is tried again
        server.wait_for_log("cccc-0 .* is served")
        assert server.predict(striped(3)).said == "6"
        assert server.metric("champion_is_current") == 1


def test_damaged_records_leave_the_champion_alone(root: Path) -> None:
    with serving(root) as server:
        with (root / "promotions/mnist.jsonl").open("a") as stream:
            stream.write("{nonsense}\n")
        server.wait_for_log("stays in service: .*mnist.jsonl, line 2")

        assert server.predict(striped(3)).said == "3"


def test_what_was_asked_is_answered_before_the_server_ends(root: Path) -> None:
    with serving(root) as server:
        body = striped(4).tobytes()
        head = (
            "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(head.encode() + body[:100])
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(body[100:])
            answer = connection.recv(65536)

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("words", [["--port", "0"], ["other", "--port", "0"]])
def test_without_a_champion_one_line_says_what_to_do(
    artifacts: Path, tmp_path: Path, words: list[str]
) -> None:
    root = project(tmp_path / "project", artifacts)
    done = subprocess.run(
        command(*words), cwd=root, env=environment(), capture_output=True, text=True, check=False
    )

    name = words[0] if len(words) == 3 else "mnist"
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {name} has no champion: `image-classification promote` makes one\n"
    )


def test_a_port_that_is_taken_is_one_line(root: Path, server: Server) -> None:
    done = subprocess.run(
        command("--port", str(server.port)),
        cwd=root,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"error: 127.0.0.1:{server.port} can't be used: Address already in use: give another "
        "--port or --host"
    ]
    assert "Traceback" not in done.stderr


def test_only_this_machine_is_answered(server: Server) -> None:
    connections = psutil.Process(server.process.pid).net_connections("tcp")
    listening = {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


@pytest.mark.slow  # the export imports TensorFlow
def test_a_missing_artifact_is_a_line_of_the_export(root: Path) -> None:
    """There is no trained run here that could be exported."""
    with serving(root) as server:
        promote(root, "e" * 32)
        server.wait_for_log("straight-0 .* stays in service: other-0 can't be exported: ")

        assert server.predict(striped(3)).said == "3"
        assert not (root / paths.EXPORTED / ("e" * 32)).exists()
