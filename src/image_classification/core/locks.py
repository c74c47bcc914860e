"""One kind of lock for everything that two processes must not do at once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from image_classification.core.errors import UserError

TRIES = 3  # a holder may end, and remove the file, while another process looks at it


@contextmanager
def locked(path: Path, work: str = "", wait: bool = True) -> Iterator[None]:
    """Hold a lock file; the system releases it when the process dies.

    Args:
        path: of the lock file, made when it is missing; it holds the process id of its holder.
        work: what the holder does, for a message to those who wait; without it they wait silently.
        wait: whether to wait while another process holds the lock.

    Raises:
        UserError: another process holds it, and `wait` is false; or the file can't be written.
    """
    lock = FileLock(path, on_acquired=_write_process_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(TRIES)):
            try:
                lock.acquire(blocking=False)
                break
            except Timeout:
                try:
                    holder = f"process {path.read_text() or 'unknown'} {work}"
                except FileNotFoundError:
                    if left:  # its holder has just ended
                        continue
                    raise  # it can't be made
                if not wait:
                    raise UserError(f"{holder}: wait until it ends") from None
                if work:
                    print(f"{holder}: waiting for it to end", flush=True)
                lock.acquire()
                break
    except OSError as error:
        raise UserError(f"{path} can't be locked: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _write_process_id(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
