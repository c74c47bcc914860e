"""uvicorn's HTTP protocol, with limits that it lacks: connections, header, pipelining and time."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from image_classification.web import limits, responses
from image_classification.web.predictor import RETRY
from image_classification.web.responses import Response


class LimitedProtocol(HttpToolsProtocol):
    """A connection that is closed if it is one too many, or its client too slow or too greedy."""

    waiting_since: float | None = None  # for the rest of a request, by the loop's time
    unread_since: float | None = None  # the client reads no more of its answer
    header_bytes = 0  # of the request that is arriving

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.waiting_since = self.loop.time()
        if len(self.connections) > limits.MOST_CONNECTIONS:
            self._refuse(responses.error(503, "too many connections: try again soon", RETRY))

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a request."""
        super().on_message_begin()
        self.waiting_since = self.loop.time()
        self.header_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Refuse a header that is too long."""
        self.header_bytes += len(data)
        super().data_received(data)
        if self.header_bytes > limits.LARGEST_HEADER:
            self._refuse(responses.error(431, "the header is too long"))

    def on_body(self, body: bytes) -> None:
        """The application limits the body."""
        self.header_bytes -= len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Refuse a connection that sends requests without waiting for the answers."""
        if len(self.pipeline) >= limits.MOST_PIPELINED:
            self._refuse(responses.error(503, "too many requests at once: wait for answers", RETRY))
            raise ValueError  # ends the parsing
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is there: from here on the application limits the time."""
        self.waiting_since = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self.unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self.unread_since = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(responses.error(400, "this is not a valid HTTP request"))

    def give_up(self) -> None:
        """Wait no longer."""
        self.waiting_since = None
        if self.cycle is not None and self.cycle.response_complete:  # refused before its end
            self.transport.close()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True  # the application is waiting for the body
            self.cycle.message_event.set()
        text = f"the request did not arrive within {limits.REQUEST_SECONDS:g} seconds"
        self._refuse(responses.error(408, text))

    def _refuse(self, response: Response) -> None:
        """Answer without the application, and close the connection."""
        if self.transport.is_closing():
            return
        application: Any = self.config.app
        headers = (
            *((b"content-type", response.kind), (b"content-length", b"%d" % len(response.body))),
            *((b"x-model-version", application.version()), (b"connection", b"close")),
            *response.headers,
        )
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[response.status] + lines + b"\r\n" + response.body)
        self.transport.close()


def give_up_slow(connections: set[Any], now: float) -> None:
    """Give up the connections that have not sent a request, or read an answer, in time.

    Args:
        connections: of the server.
        now: by the loop's time.
    """
    for connection in list(connections):
        since = connection.waiting_since
        if since is not None and now - since > limits.REQUEST_SECONDS:
            connection.give_up()
        unread = connection.unread_since
        if unread is not None and now - unread > limits.REQUEST_SECONDS:
            connection.transport.abort()
