"""One process at a time."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(lock: Path, *, behind: str) -> Iterator[int]:
    """Wait until no other process has a lock, and yield its descriptor.

    A process that inherits the descriptor holds the lock, too, even if it outlives this one.

    Args:
        lock: The lock's file, made with its folder.
        behind: What is waited for, to be told where that is needed.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for {behind}", file=sys.stderr, flush=True)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream.fileno()
