"""What this process runs on: an inference runtime, a heap, and cores."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Collection
from importlib.metadata import distributions

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")

NICENESS = 10
"""Of threads that compute, beyond the event loop's: enough to let it interrupt them."""

M_ARENA_MAX = -8
"""Of glibc's `mallopt`."""


class RuntimeChoiceError(Exception):
    """No runtime, or two that overwrite each other; the message says what to install."""


def installed_runtimes() -> set[str]:
    """Return which of `RUNTIMES` are installed."""
    names = {(found.metadata["Name"] or "").lower() for found in distributions()}
    return names.intersection(RUNTIMES)


def require_one_runtime(installed: Collection[str]) -> None:
    """Pass where exactly one runtime is installed.

    Both install the same import package, so that with two of them the last one written wins.

    Raises:
        RuntimeChoiceError: There is none, or there are two.
    """
    if not installed:
        raise RuntimeChoiceError(
            "no inference runtime is installed: pip install '.[cpu]' or '.[gpu]'"
        )
    if len(installed) > 1:
        raise RuntimeChoiceError(
            f"{' and '.join(sorted(installed))} are both installed and overwrite each other: "
            "uninstall both, then pip install '.[cpu]' or '.[gpu]'"
        )


def share_heaps() -> None:
    """Let all threads allocate from one heap, where the C library is glibc; call it first.

    By default each thread has its own, and what one frees is of no use to another: under requests
    of changing shapes, resident memory crept up by 0.4 kB a request for as long as was watched,
    with one heap it came to rest.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 1)


def return_memory() -> None:
    """Give free memory back to the system, where the C library is glibc; after a model has gone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def step_back() -> None:
    """Let the calling thread give way to the event loop's, where the system is Linux.

    Refusing a request takes half a millisecond of a core; behind threads that compute, each of them
    as important, it waited up to six for one.
    """
    if sys.platform == "linux":  # elsewhere priorities belong to processes
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


def usable_cores() -> int:
    """Return how many cores this process may run on; a container's CPU quota is not seen."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
