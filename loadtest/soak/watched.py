"""A service of our own, watched from outside: its memory and what it logs as errors."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadtest.server import Server, running

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def service(*flags: str, leak_bytes: int = 0) -> Iterator[Server]:
    """Run `python -m service serve` on a free port, leaking so many bytes a request.

    Raises:
        ServerError: It did not get ready.
    """
    module = ["loadtest.soak.leaking", str(leak_bytes)] if leak_bytes else ["service"]
    command = [sys.executable, "-m", *module, "serve", "--port", "{port}", *flags]
    with running(command, ready="/readyz") as server:
        yield server


def rss_bytes(server: Server) -> int:
    """Return the memory that a server has resident."""
    statm = Path(f"/proc/{server.pid}/statm").read_text()
    return int(statm.split()[1]) * PAGE_BYTES


def logged_errors(server: Server) -> Counter[str]:
    """Return what a running service has logged as errors, and how often."""
    with server.log.open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines if '"level": "error"' in line]
    return Counter(entry["message"] for entry in entries)
