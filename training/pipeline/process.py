"""A stage as a process of its own: shown as it runs, kept in a log, stopped with the pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

PATIENCE_S = 10.0
"""A stage that Ctrl-C reached ends by itself; one that it did not reach is told, then killed."""


def run_logged(command: Sequence[str], log: Path, *, keep: int | None = None) -> int:
    """Run a command and return its exit status; what it prints goes to stderr and is added to log.

    Progress bars pass through as they are; in the log only their last state is kept.

    Args:
        command: Program and arguments.
        log: Text file to add to.
        keep: A descriptor that the process inherits.

    Raises:
        KeyboardInterrupt: Ctrl-C; the process has ended then, and what it still said is not shown.
    """
    columns, lines = shutil.get_terminal_size()
    size = {"COLUMNS": str(columns), "LINES": str(lines)}
    process = subprocess.Popen(  # noqa: S603 - the recipe's owner says what is run
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        pass_fds=() if keep is None else (keep,),
        env={**os.environ, "PYTHONUNBUFFERED": "1", **size},
    )
    assert process.stdout is not None  # noqa: S101 - for mypy: it is a pipe
    with process.stdout as pipe, log.open("ab") as stream:
        lines_of = _Lines(stream)
        try:
            while chunk := os.read(pipe.fileno(), 65536):
                sys.stderr.buffer.write(chunk)
                sys.stderr.flush()
                lines_of.write(chunk)
            return process.wait()
        except BaseException:
            lines_of.write(_stop(process))
            raise
        finally:
            process.kill()
            lines_of.close()


def _stop(process: subprocess.Popen[bytes]) -> bytes:
    """End a process and return what it said on the way."""
    for tell in (process.terminate, process.kill):
        try:
            return process.communicate(timeout=PATIENCE_S)[0]
        except subprocess.TimeoutExpired:
            tell()
    return process.communicate()[0]


class _Lines:
    """Writes whole lines; of a line that was written over again and again, its last state."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._rest = b""

    def write(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._stream.write(_last(line) + b"\n")
        self._rest = _last(self._rest) + b"\r" * self._rest.endswith(b"\r")
        self._stream.flush()

    def close(self) -> None:
        if self._rest:
            self._stream.write(self._rest + b"\n")
        self._rest = b""


def _last(line: bytes) -> bytes:
    """Return what stands on a line after its carriage returns."""
    return line.rstrip(b"\r").rsplit(b"\r", 1)[-1]
