"""Command `image-classification serve`: serve the champion over HTTP, until stopped."""

import argparse
import asyncio
import logging
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

import uvicorn
import uvloop
from numpy.typing import NDArray
from PIL import Image

from image_classification.core import paths
from image_classification.core.command import one_line_errors
from image_classification.core.compose import compose
from image_classification.core.errors import UserError
from image_classification.monitoring.observations import Observations
from image_classification.web import limits, served_runs
from image_classification.web.application import Application
from image_classification.web.models import Served
from image_classification.web.predictor import Predictor
from image_classification.web.protocol import LimitedProtocol, give_up_slow
from image_classification.web.watcher import Watcher

HOST, PORT = "127.0.0.1", 8000
BACKLOG = 1024  # connections that the system holds until they are accepted
log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Run the command.

    Args:
        arguments: after its name.
    """
    options = parser().parse_args(arguments)
    with one_line_errors():
        run(options.dataset, options.host, options.port)


def run(dataset: str | None, host: str, port: int) -> None:
    """Load a champion and serve it until stopped.

    Args:
        dataset: its champion; if None, the only one with a champion, else that of params.yaml.
        host: to listen on.
        port: to listen on.

    Raises:
        UserError: there is no champion, it can't be used, or the port can't.
    """
    os.chdir(paths.project_root())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    Image.MAX_IMAGE_PIXELS = limits.MOST_PIXELS
    watcher = Watcher(dataset or served_runs.dataset() or compose().data.dataset)
    listening = _listen(host, port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(watcher, listening))


async def serve(watcher: Watcher, listening: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT; those received by then are still answered.

    Args:
        watcher: holds the models.
        listening: a bound socket.
    """
    loop = asyncio.get_running_loop()
    observations = Observations(watcher.name)

    def observe(served: Served, images: NDArray[Any], probabilities: NDArray[Any]) -> None:
        if served is watcher.models.champion:  # what an earlier champion sees does not count
            observations.observe(served.artifact.key, images, probabilities)

    predictor = Predictor(loop, observe)
    application = Application(watcher, predictor)
    server = uvicorn.Server(_config(application))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, setattr, server, "should_exit", True)
    watcher.start()
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("%s is served at http://%s:%d/", watcher.models.champion.title, shown, port)
    tasks = [
        loop.create_task(_expire_slow_requests(server, predictor)),
        loop.create_task(_write_periodically(observations)),
    ]
    try:
        # Not `serve`, whose own handlers raise the signal again when it has ended.
        await server._serve([listening])
    finally:
        for task in tasks:
            task.cancel()
        watcher.close()
        application.close()
        _write(observations)


async def _expire_slow_requests(server: uvicorn.Server, predictor: Predictor) -> None:
    """End what takes too long, once a second."""
    while True:
        await asyncio.sleep(1)
        give_up_slow(server.server_state.connections, asyncio.get_running_loop().time())
        predictor.expire()


async def _write_periodically(observations: Observations) -> None:
    while True:
        await asyncio.sleep(limits.OBSERVE_SECONDS)
        await asyncio.to_thread(_write, observations)


def _write(observations: Observations) -> None:
    """Write what was observed; if that fails, the server keeps running."""
    try:
        observations.write()
    except UserError as error:
        log.error("%s", error)


def _config(application: Application) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=LimitedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.KEEP_ALIVE_SECONDS),
        timeout_graceful_shutdown=int(limits.ANSWER_SECONDS + limits.REQUEST_SECONDS),
    )


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(
        "image-classification serve", description="Serve the champion over HTTP."
    )
    made.add_argument(
        "dataset",
        nargs="?",
        help="whose champion to serve (default: the only one there is, else that of params.yaml)",
    )
    made.add_argument("--host", default=HOST, help=f"address to listen on ({HOST}: this machine)")
    made.add_argument("--port", type=int, default=PORT, help=f"{PORT} if not given; 0: any")
    return made


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        cause = os.strerror(number) if number and number > 0 else error
        raise UserError(
            f"{host}:{port} can't be used: {cause}: give another --port or --host"
        ) from error
    listening.setblocking(False)
    return listening
