"""The ASGI application: requests in, responses out."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from image_classification.core.errors import UserError
from image_classification.monitoring.corrections import Corrections
from image_classification.monitoring.recent_predictions import (
    FeedbackError,
    RecentPredictions,
    ServedPrediction,
)
from image_classification.web import bodies, limits, openapi, page, responses
from image_classification.web.errors import HTTPError
from image_classification.web.metrics import CONTENT_TYPE, Metrics
from image_classification.web.models import Models, Served
from image_classification.web.predictor import RETRY, Predictor
from image_classification.web.responses import Response
from image_classification.web.watcher import Watcher

SMALL_JSON = 2**16  # bytes that are parsed at once, without a thread
PREDICT_KINDS = (*bodies.FILES, bodies.RAW, bodies.JSON)
log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class DisconnectedError(Exception):
    """The client has gone."""


@dataclass(slots=True)
class Request:
    """What a handler gets.

    Attributes:
        query: after the question mark.
        headers: names in lower case.
        receive: gives the body.
        models: those served when the request came.
    """

    query: bytes
    headers: list[tuple[bytes, bytes]]
    receive: Receive
    models: Models

    @property
    def served(self) -> Served:
        """The champion when the request came."""
        return self.models.champion

    def header(self, name: bytes) -> bytes:
        """A header's value, empty if there is none."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""

    def kind(self) -> str:
        """The media type of the body, without parameters, in lower case."""
        return self.header(b"content-type").partition(b";")[0].strip().lower().decode("latin-1")


class Application:
    """Serves the champion that the watcher holds."""

    def __init__(self, watcher: Watcher, predictor: Predictor) -> None:
        self._watcher = watcher
        self._predictor = predictor
        self._recent = RecentPredictions()
        self._corrections = Corrections(watcher.name)
        self._decoder = ThreadPoolExecutor(1, "decoder")
        self._metrics = Metrics()
        self._requests = 0  # that are being answered
        self._bytes = 0  # of their bodies
        self._page = page.load()
        self._handlers: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {
            "/": {"GET": self._show_page},
            "/predict": {"POST": self._predict},
            "/invocations": {"POST": self._invocations},
            "/feedback": {"POST": self._feedback},
            "/live": {"GET": self._live},
            "/ready": {"GET": self._ready},
            "/ping": {"GET": self._ready},  # MLflow's names
            "/health": {"GET": self._ready},
            "/version": {"GET": self._version},
            "/metrics": {"GET": self._show_metrics},
            "/openapi.json": {"GET": self._openapi},
        }

    def version(self) -> bytes:
        """What the header `X-Model-Version` says of the champion."""
        return self._watcher.models.champion.header[1]

    def close(self) -> None:
        """End the threads."""
        self._decoder.shutdown(cancel_futures=True)
        self._predictor.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI specifies."""
        started = time.perf_counter()
        path = scope["path"]
        models = self._watcher.models
        self._requests += 1
        try:
            response = await self._answer(scope, receive, models)
        except HTTPError as error:
            response = responses.error(error.status, str(error), *error.headers)
        except DisconnectedError:
            return
        except Exception:
            log.exception("%s could not be answered", path)
            response = responses.error(500, "internal error: the server's log says more")
        finally:
            self._requests -= 1
        known = path if path in self._handlers else "other"
        self._metrics.count(known, response.status, time.perf_counter() - started)
        header = (response.served or models.champion).header
        length = (b"content-length", b"%d" % len(response.body))
        headers = [(b"content-type", response.kind), length, header, *response.headers]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _answer(self, scope: Scope, receive: Receive, models: Models) -> Response:
        if scope["method"] == "POST" and self._requests > limits.MOST_REQUESTS:
            raise HTTPError(503, "too many requests at once: try again soon", RETRY)
        methods = self._handlers.get(scope["path"])
        if methods is None:
            raise HTTPError(404, "no such address: /openapi.json lists them")
        handler = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if handler is None:
            allowed = ", ".join(methods)
            raise HTTPError(405, f"use {allowed}", (b"allow", allowed.encode()))
        return await handler(Request(scope["query_string"], scope["headers"], receive, models))

    async def _predict(self, request: Request) -> Response:
        kind = request.kind()
        bodies.require_kind(kind, PREDICT_KINDS)
        images = await self._images(kind, request)
        query = dict(parse_qsl(request.query.decode("latin-1"))) if request.query else {}
        others = request.models.others if query.get("models") == "all" else []
        asked = [request.served, *others]
        if len(images) * len(asked) > limits.MOST_QUEUED:
            text = f"{len(images):,} images for {len(asked)} models are too many: send fewer"
            raise HTTPError(413, text)
        # The page also sends unfinished drawings, which must not count for drift.
        waiting = [self._predictor.submit(request.served, images, "models" not in query)]
        waiting += [self._predictor.submit(served, images) for served in others]
        probabilities = await asyncio.gather(*waiting)
        seen = images if query.get("seen") == "true" else None
        ids = None
        if query.get("feedback") == "true":
            ids = [*map(self._remembered, repeat(request.served), images, probabilities[0])]
        return responses.predictions(asked, probabilities, seen, ids)

    def _remembered(
        self, served: Served, image: NDArray[np.uint8], probabilities: NDArray[np.float32]
    ) -> str:
        """The id by which this prediction can be corrected."""
        index, artifact = int(probabilities.argmax()), served.artifact
        prediction = ServedPrediction(
            image,
            artifact.classes[index],
            float(probabilities[index]),
            artifact.key,
            artifact.version,
            artifact.classes,
        )
        return self._recent.remember(prediction)

    async def _feedback(self, request: Request) -> Response:
        """Store what an image really was."""
        bodies.require_kind(request.kind(), (bodies.JSON,))
        body = await _body(request.receive, limits.LARGEST_FEEDBACK)
        prediction_id, label = bodies.feedback(body)
        try:  # not by the decoder, which would wait as long as a command holds the store
            await asyncio.to_thread(self._corrections.add, self._recent, prediction_id, label)
        except FeedbackError as error:
            raise HTTPError(error.status, str(error)) from error
        except UserError as error:  # of the disk
            raise HTTPError(507, str(error)) from error
        return responses.json(201, {"id": prediction_id, "label": label})

    async def _invocations(self, request: Request) -> Response:
        kind = request.kind()
        bodies.require_kind(kind, (bodies.JSON,))
        images = await self._images(kind, request)
        probabilities = await self._predictor.submit(request.served, images, True)
        return responses.mlflow(request.served, probabilities)

    async def _images(self, kind: str, request: Request) -> NDArray[Any]:
        """The images of a request, decoded by a thread of its own if that may take long."""
        arrived = 0

        def count(size: int) -> None:
            nonlocal arrived
            arrived += size
            self._bytes += size
            if self._bytes > limits.MOST_IN_FLIGHT:
                raise HTTPError(503, "too much is being read: try again soon", RETRY)

        try:
            body = await _body(request.receive, _length(request), count)
            artifact = request.served.artifact
            if kind == bodies.RAW or (kind == bodies.JSON and len(body) <= SMALL_JSON):
                return bodies.read(kind, body, artifact)
            loop = asyncio.get_running_loop()
            reading = loop.run_in_executor(self._decoder, bodies.read, kind, body, artifact)
            try:
                async with asyncio.timeout(limits.ANSWER_SECONDS):
                    return await reading
            except TimeoutError:
                text = f"not decoded within {limits.ANSWER_SECONDS:g} seconds: try again soon"
                raise HTTPError(503, text, RETRY) from None
        finally:
            self._bytes -= arrived

    async def _show_page(self, request: Request) -> Response:
        return self._page

    async def _live(self, request: Request) -> Response:
        return responses.text(200, "live")

    async def _ready(self, request: Request) -> Response:
        if self._predictor.is_ready():
            return responses.text(200, "ready")
        return responses.text(503, "not ready: the engine does not respond", RETRY)

    async def _version(self, request: Request) -> Response:
        return responses.version(self._watcher.models, self._watcher.is_current)

    async def _show_metrics(self, request: Request) -> Response:
        return Response(200, self._metrics.page(self._predictor, self._watcher), CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        return responses.json(200, openapi.description(self._watcher.models.champion.artifact))


def _length(request: Request) -> int:
    """How many bytes the body may have, by its header."""
    said = request.header(b"content-length")
    length = int(said) if said.isdigit() and len(said) < 20 else limits.LARGEST_BODY
    if length > limits.LARGEST_BODY:
        raise HTTPError(413, f"a body of more than {limits.LARGEST_BODY:,} bytes")
    return length


async def _body(
    receive: Receive, most: int, count: Callable[[int], None] = lambda size: None
) -> bytes:
    """A request's body, which has usually arrived with its header.

    Args:
        receive: ASGI's.
        most: bytes that it may have.
        count: called with the size of each part that arrives.

    Raises:
        HTTPError: 413, it is longer than any may be; or what `count` raises.
        DisconnectedError: the client has gone, or took too long.
    """
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        parts.append(message["body"])
        size += len(parts[-1])
        count(len(parts[-1]))
        if size > most:
            raise HTTPError(413, f"a body of more than {most:,} bytes")
        more = message["more_body"]
    return b"".join(parts) if len(parts) > 1 else parts[0]
