"""No client can fill the server's memory or keep others out: its limits, over real connections."""

import asyncio
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_bodies import PIXELS, read_json, served

from image_classification.commands import serve
from image_classification.web import limits
from image_classification.web.errors import HTTPError
from image_classification.web.models import Models, Served

IMAGE = PIXELS[:1].tobytes()
RAW = "application/octet-stream"
WAIT = 30.0  # seconds, on a busy machine


@dataclass
class Running:
    """A server whose model answers only when it may."""

    port: int
    may_answer: threading.Event = field(default_factory=threading.Event)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT)

    def ask(self, head: str, body: bytes = b"") -> str:
        """The whole response; the connection is closed after it."""
        with self.connect() as connection:
            connection.sendall(request(head, "Connection: close") + body)
            return everything(connection)


def request(head: str, *headers: str) -> bytes:
    return "\r\n".join((f"{head} HTTP/1.1", "Host: x", *headers, "", "")).encode()


def prediction(images: bytes = IMAGE, query: str = "") -> bytes:
    headers = (f"Content-Type: {RAW}", f"Content-Length: {len(images)}", "Connection: close")
    return request(f"POST /predict{query}", *headers) + images


def everything(connection: socket.socket) -> str:
    """All that is received until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionResetError:  # it closed with some of the request unread
        pass
    return b"".join(parts).decode()


def status(response: str) -> int:
    return int(response.split(" ", 2)[1])


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Running]:
    """In a thread of this process, so that a test can lower the limits."""
    monkeypatch.chdir(tmp_path)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    server = Running(listening.getsockname()[1])

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        server.may_answer.wait(WAIT)
        return np.full((len(images), 2), 0.5, np.float32)

    models = Models(Served(served(), predict), (Served(served(), predict),))
    state = {"name": "tiny", "models": models, "is_current": True, "loads": 0, "failures": 0}
    watcher: Any = SimpleNamespace(start=lambda: None, close=lambda: None, **state)
    loop = asyncio.new_event_loop()
    stop: list[Callable[[], None]] = []

    def on_signal(number: int, do: Callable[..., None], *given: Any) -> None:
        stop.append(partial(do, *given))  # signals reach the main thread only

    monkeypatch.setattr(loop, "add_signal_handler", on_signal)
    run = partial(loop.run_until_complete, serve.serve(watcher, listening))
    thread = threading.Thread(target=run)
    thread.start()
    yield server
    server.may_answer.set()
    loop.call_soon_threadsafe(stop[0])
    thread.join(WAIT)
    assert not thread.is_alive()
    loop.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_model_that_mlflow_does_not_know_is_named_by_its_key(running: Running) -> None:
    assert "x-model-version: k\r\n" in running.ask("GET /live")


def test_strings_in_json_take_no_room() -> None:
    strings = ["a" * 10_000, *[""] * 10_000]
    tracemalloc.start()
    with pytest.raises(HTTPError, match="a pixel is not a number"):
        read_json({"images": strings})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 20_000_000  # NumPy would give each the room of the longest: 400 MB


def test_more_images_for_all_models_than_can_ever_wait_are_too_many(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_QUEUED", 3)
    running.may_answer.set()

    def asked(query: str) -> str:
        with running.connect() as connection:
            connection.sendall(prediction(IMAGE * 2, query))
            return everything(connection)

    assert status(asked("")) == 200
    refused = asked("?models=all")
    assert status(refused) == 413
    assert "2 images for 2 models are too many: send fewer" in refused


def test_a_full_queue_and_a_late_answer_say_when_to_try_again(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_QUEUED", 2)
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 2.0)
    with running.connect() as waiting, running.connect() as another:
        waiting.sendall(prediction(IMAGE * 2))
        until(lambda: "image_classification_queued_images 2" in metrics(running))
        another.sendall(prediction())
        full, late = everything(another), everything(waiting)

    assert (status(full), status(late)) == (503, 503)
    assert "2 images wait already" in full
    assert "not answered within 2 seconds" in late
    for response in (full, late):
        assert "retry-after: 1\r\n" in response


def metrics(running: Running) -> str:
    return running.ask("GET /metrics")


def test_whoever_asks_for_the_health_of_a_full_server_is_answered(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_REQUESTS", 1)
    with running.connect() as waiting, running.connect() as another:
        waiting.sendall(prediction())
        until(lambda: "image_classification_queued_images 1" in metrics(running))
        another.sendall(prediction())

        assert status(everything(another)) == 503
        assert [status(running.ask(f"GET {path}")) for path in ("/live", "/ready")] == [200, 200]


def test_a_body_that_is_announced_and_not_sent_keeps_nobody_out(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_IN_FLIGHT", limits.LARGEST_BODY)
    running.may_answer.set()
    with running.connect() as silent, running.connect() as other:
        headers = (f"Content-Type: {RAW}", f"Content-Length: {limits.LARGEST_BODY}")
        silent.sendall(request("POST /predict", *headers))
        assert status(running.ask("GET /live")) == 200  # the header has arrived by now
        other.sendall(prediction())

        assert status(everything(other)) == 200


def test_bodies_that_do_arrive_together_have_a_limit(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MOST_IN_FLIGHT", 2 * len(IMAGE))
    with running.connect() as connection:
        connection.sendall(prediction(IMAGE * 3))
        response = everything(connection)

    assert status(response) == 503
    assert "too much is being read" in response


@pytest.mark.parametrize(("count", "last"), [(17, 200), (18, 503)])
def test_requests_of_a_connection_that_wait_have_a_limit(
    running: Running, count: int, last: int
) -> None:
    with running.connect() as connection:
        together = request("GET /live") * (count - 1)
        connection.sendall(together + request("GET /live", "Connection: close"))
        responses = everything(connection).split("HTTP/1.1 ")[1:]

    assert limits.MOST_PIPELINED == 16  # and the one that is being answered
    assert responses[-1].startswith(f"{last} ")
    assert (len(responses) == count) is (last == 200)


def test_a_header_without_end_is_refused(running: Running) -> None:
    part = b"x" * 2**16
    sent = 0
    with running.connect() as connection:
        connection.sendall(b"GET /live HTTP/1.1\r\nLong: ")
        try:
            while sent < 4 * limits.LARGEST_HEADER:
                time.sleep(0.02)  # or it is reset before its answer is read
                connection.sendall(part)
                sent += len(part)
        except OSError:
            pass
        response = everything(connection)

    assert sent <= 2 * limits.LARGEST_HEADER
    assert status(response) == 431


def test_an_answer_that_is_not_read_is_given_up(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 1.0)
    monkeypatch.setattr(limits, "MOST_PIPELINED", 10_000)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(WAIT)
        connection.connect(("127.0.0.1", running.port))
        connection.sendall(request("GET /") * 500)  # the page, which fills every buffer
        time.sleep(4)
        received = everything(connection).count("HTTP/1.1 200")

    assert received < 500


def test_json_that_is_nested_too_deeply_is_one_line() -> None:
    value = json.loads("[" * 400 + "1" + "]" * 400)

    with pytest.raises(HTTPError):
        read_json({"images": value})
