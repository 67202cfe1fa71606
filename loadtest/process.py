"""A service in a process of its own, to be watched from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
START_TIMEOUT_S = 120


@dataclass(slots=True)
class Service:
    """A service process of our own.

    Attributes:
        process: The process.
        url: Where it listens.
        errors: What it logged as errors, and how often.
    """

    process: subprocess.Popen[bytes]
    url: str = ""
    errors: Counter[str] = field(default_factory=Counter)
    _ready: threading.Event = field(default_factory=threading.Event)

    @property
    def rss_bytes(self) -> int:
        """The memory it has resident."""
        statm = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(statm.split()[1]) * PAGE_BYTES

    def follow_log(self) -> None:
        """Read the log until the process ends, or its pipe would fill up and stop it."""
        for line in self.process.stderr or ():
            entry = json.loads(line)
            if entry["message"].startswith("listening on"):
                self.url = f"http://{entry['host']}:{entry['port']}"
            if entry["level"] == "error":
                self.errors[entry["message"]] += 1
            if entry["message"] == "ready":
                self._ready.set()
        self._ready.set()

    def wait(self) -> None:
        """Return once it is ready.

        Raises:
            RuntimeError: It ended, or took too long.
        """
        if not self._ready.wait(START_TIMEOUT_S) or self.process.poll() is not None:
            raise RuntimeError(f"the service did not get ready: {self.process.args!r}")


@contextmanager
def service(*flags: str, leak_bytes: int = 0) -> Iterator[Service]:
    """Run `python -m service serve` on a free port, leaking so many bytes a request.

    Raises:
        RuntimeError: It did not get ready.
    """
    module = ["loadtest.leaking", str(leak_bytes)] if leak_bytes else ["service"]
    command = [sys.executable, "-m", *module, "serve", "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)  # noqa: S603 - our own service
    running = Service(process)
    reader = threading.Thread(target=running.follow_log, daemon=True)
    reader.start()
    try:
        running.wait()
        yield running
    finally:
        process.kill()
        process.wait()
        reader.join()
