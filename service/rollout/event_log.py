"""Lines in files, written beside the requests and never in their way."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from time import monotonic

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from service.contract.events import SUFFIX
from service.runtime import step_back

log = logging.getLogger(__name__)

WAITING_BYTES = 16_000_000
"""Of lines not written yet; what comes beyond is dropped."""

RETRY_S = 1.0
"""Between two trials of a folder that cannot be written."""

CLOSE_S = 5.0
"""For the last lines at the end; a folder may hang, as one on a network does."""

COMPRESSION = 1
"""Four times smaller as it is; the next levels take twice the time for a tenth."""


class EventLog:
    """Appends whole lines to files that are turned over and compressed.

    A thread of low priority writes them. Nobody waits for it: lines beyond `WAITING_BYTES` are
    dropped, and those that cannot be written are lost, both counted. A line is one write, so that
    a kill leaves whole lines; after a short one the file is left and a new one begun.

    Attributes:
        written: Lines in files.
        dropped: Lines not taken, because too many were waiting.
        lost: Lines taken and not written.
    """

    def __init__(self, folder: Path, *, file_bytes: int, file_s: float) -> None:
        """Take a folder; it is made when the first line is written.

        Args:
            folder: Where the files are.
            file_bytes: Size at which a file is turned over.
            file_s: Age at which it is.
        """
        self.written = self.dropped = self.lost = 0
        self._folder = folder
        self._file_bytes = file_bytes
        self._file_s = file_s
        self._ready = threading.Condition()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._closing = False
        self._file: FileIO | None = None
        self._path = folder
        self._size = 0
        self._number = 0
        self._began = 0.0
        self._retry = 0.0
        # A daemon: a folder that hangs must not keep the process from its end.
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    def append(self, line: bytes) -> None:
        """Have a line written, soon; without its line break."""
        with self._ready:
            if self._closing or self._waiting_bytes + len(line) > WAITING_BYTES:
                self.dropped += 1
                return
            self._waiting.append(line + b"\n")
            self._waiting_bytes += len(line) + 1
            self._ready.notify()

    def close(self) -> None:
        """Write what waits and end, in bounded time; safe to repeat."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        step_back()
        while True:
            with self._ready:
                while not (self._waiting or self._closing or self._is_old()):
                    self._ready.wait(
                        self._began + self._file_s - monotonic() if self._file else None
                    )
                lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
                closing = self._closing
            for line in lines:
                self._write(line)
            if closing or self._is_old():
                self._turn_over()
            if closing and not lines:
                return

    def _is_old(self) -> bool:
        return self._file is not None and monotonic() - self._began >= self._file_s

    def _write(self, line: bytes) -> None:
        if monotonic() < self._retry:
            self.lost += 1
            return
        try:
            if self._file is not None and self._size + len(line) > self._file_bytes:
                self._turn_over()
            file = self._file or self._open()
            if file.write(line) != len(line):
                raise OSError("the disk is full")
        except OSError as error:
            self.lost += 1
            self._retry = monotonic() + RETRY_S
            self._leave()
            log.error("an event was lost: %s", error.strerror or error)
            return
        self._size += len(line)
        self.written += 1

    def _open(self) -> FileIO:
        self._number += 1
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = self._folder / f"{time}-{os.getpid()}-{self._number:06d}{SUFFIX}"
        self._file = FileIO(self._path, "xb", opener=_open_private)
        self._size, self._began = 0, monotonic()
        return self._file

    def _leave(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # a file system may tell of a lost write only now
                file.close()

    def _turn_over(self) -> None:
        """End the file and compress it; it stays as it is where that fails."""
        if self._file is None:
            return
        part = self._path.with_suffix(f"{SUFFIX}.part")
        try:
            self._leave()
            with (
                self._path.open("rb") as source,
                FileIO(part, "xb", opener=_open_private) as raw,
                gzip.GzipFile("", "wb", COMPRESSION, raw) as target,
            ):
                shutil.copyfileobj(source, target, 1 << 18)
            part.rename(self._path.with_suffix(f"{SUFFIX}.gz"))
            self._path.unlink()
        except OSError as error:
            log.error("a file of events was not compressed: %s", error.strerror or error)
            with suppress(OSError):
                part.unlink()


class EventLogCollector(Collector):
    """Turns a log's own counts into a metric."""

    def __init__(self, events: EventLog) -> None:
        self._events = events

    def collect(self) -> Iterator[Metric]:
        """Yield the metric."""
        counts = CounterMetricFamily(
            "disranker_events",
            "Records for the event log: written, dropped because too many waited, or lost because "
            "the folder could not be written.",
            labels=("outcome",),
        )
        for outcome in ("written", "dropped", "lost"):
            counts.add_metric((outcome,), getattr(self._events, outcome))
        yield counts


def _open_private(path: str, flags: int) -> int:
    """Open for the service's user alone, with its group reading: texts may be in it."""
    return os.open(path, flags, 0o640)
