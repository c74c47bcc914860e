"""Load a server as fast as it responds, from a process of its own, and print the results as JSON.

Each client has one connection and sends its next request after each response. A response is good if
its status is 200 and its probabilities are the expected ones, where those are given.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

HEADER_END = b"\r\n\r\n"
TOLERANCE = 1e-4  # of a probability

Expected = dict[str, list[list[float]]]


def request(path: str, kind: str, body: bytes, host: str) -> bytes:
    """A POST request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Tally:
    """What all clients have seen."""

    def __init__(
        self,
        requests: Sequence[bytes],
        expected: Expected | None,
        until: float,
        end: Path | None,
    ) -> None:
        self.requests = requests
        self.end = end  # a file whose appearance ends the load before its time
        self.expected = expected  # by version, the probabilities for each of the requests
        self.until = until  # by time.perf_counter
        self.asked = 0
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lost = 0  # asked, and the connection closed without an answer

    def is_over(self, now: float) -> bool:
        """Whether no more requests are to be sent."""
        ended = self.end is not None and self.asked % 100 == 0 and self.end.exists()
        self.until = 0 if ended else self.until
        return now >= self.until

    def check(self, place: int, head: bytes, body: bytes) -> None:
        """Count a response to one of the requests."""
        status = head[9:12].decode()
        self.statuses[status] += 1
        found = head.find(b"x-model-version: ")
        version = head[found + 17 : head.index(b"\r\n", found)].decode() if found >= 0 else ""
        self.versions[version] += 1
        if self.expected is None or status != "200":
            return
        given = list(json.loads(body)["predictions"][0]["probabilities"].values())
        good = self.expected.get(version)
        if not good or max(map(_apart, given, good[place])) > TOLERANCE:
            self.wrong.append(f"version {version!r}: {body[:80]!r}")


def _apart(one: float, other: float) -> float:
    return abs(one - other)


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, tally: Tally, place: int) -> None:
        self.tally, self.place = tally, place
        self.done = asyncio.get_running_loop().create_future()
        self.got = b""
        self.asked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport: Any = transport  # uvloop's are not asyncio's
        self.ask()

    def ask(self) -> None:
        """Send the next request."""
        self.place = (self.place + 1) % len(self.tally.requests)
        self.tally.asked += 1
        self.asked_at = time.perf_counter()
        self.transport.write(self.tally.requests[self.place])

    def data_received(self, data: bytes) -> None:
        """Count a response once it is complete, and send the next request."""
        self.got = self.got + data if self.got else data
        end = self.got.find(HEADER_END)
        if end < 0:
            return
        head = self.got[: end + 2].lower()
        at = head.find(b"content-length: ")
        length = int(head[at + 16 :].split(b"\r\n", 1)[0])
        if len(self.got) < end + 4 + length:
            return
        now = time.perf_counter()
        self.tally.seconds.append(now - self.asked_at)
        self.tally.check(self.place, head, self.got[end + 4 :])
        self.got = b""
        self.asked_at = 0.0
        if self.tally.is_over(now):
            self.transport.close()
        else:
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        """End; a request without a response is lost."""
        self.tally.lost += self.asked_at > 0
        self.done.set_result(None)


async def load(
    port: int,
    clients: int,
    seconds: float,
    requests: Sequence[bytes],
    expected: Expected | None,
    end: Path | None,
) -> dict[str, Any]:
    """Send requests for some seconds; what came back."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    tally = Tally(requests, expected, started + seconds, end)
    while time.perf_counter() < tally.until:  # a connection that the server closes is made again
        made = []
        for place in range(clients):
            connecting = loop.create_connection(partial(Client, tally, place), "127.0.0.1", port)
            made.append((await connecting)[1])
        await asyncio.gather(*(client.done for client in made))
    taken = time.perf_counter() - started
    times = sorted(tally.seconds)
    return {
        "asked": tally.asked,
        "per_second": len(times) / taken,
        "p50_ms": 1000 * times[len(times) // 2] if times else None,
        "p99_ms": 1000 * times[len(times) * 99 // 100] if times else None,
        "statuses": dict(tally.statuses),
        "versions": dict(tally.versions),
        "lost": tally.lost,
        "wrong": len(tally.wrong),
        "first_wrong": tally.wrong[:3],
    }


def main() -> None:
    """Read the requests' bodies, one file each, ask, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bodies", nargs="+", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/predict")
    parser.add_argument("--kind", default="application/octet-stream")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--expected", type=Path)
    parser.add_argument("--until", type=Path, help="end when this file appears")
    options = parser.parse_args()
    host = f"127.0.0.1:{options.port}"
    requests = [
        request(options.path, options.kind, body.read_bytes(), host) for body in options.bodies
    ]
    expected = json.loads(options.expected.read_text()) if options.expected else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        asking = load(
            options.port, options.clients, options.seconds, requests, expected, options.until
        )
        print(json.dumps(runner.run(asking)))


if __name__ == "__main__":
    main()
