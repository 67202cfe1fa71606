"""A server under test: started on loopback, waited for, paused while another is measured."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

ROOT = Path(__file__).parents[1]
READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0
LAST_BYTES = 1500


class ServerError(Exception):
    """A server that did not start or get ready; the message ends with what it wrote."""


class Server:
    """A running server, the leader of a process group of its own.

    Attributes:
        url: Where it listens.
        pid: Of its first process.
        log: What it writes, as long as it runs.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.url = url
        self.pid = process.pid
        self.log = log
        self._process = process

    @contextlib.contextmanager
    def turn(self) -> Iterator[str]:
        """Let it run within the block, and pause it, with threads that only poll, after it."""
        self._signal(signal.SIGCONT)
        try:
            yield self.url
        finally:
            self._signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it and what it started, in bounded time."""
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)

    def await_ready(self, path: str) -> None:
        """Return once path answers 200.

        Raises:
            ServerError: It ended, or took too long.
        """
        end = time.monotonic() + READY_TIMEOUT_S
        while not _answers(self.url + path):
            if self._process.poll() is not None:
                raise ServerError(f"it ended with {self._process.returncode}: {_tail(self.log)}")
            if time.monotonic() > end:
                raise ServerError(f"not ready after {READY_TIMEOUT_S:.0f} s: {_tail(self.log)}")
            time.sleep(0.05)

    def _signal(self, sig: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, sig)  # the group outlives a leader that ended first


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    *,
    ready: str,
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start a server and end it, and all it started, with the block.

    Args:
        command: Its command line, in which `{port}` becomes a free port.
        ready: The path that answers 200 once it is ready.
        cwd: Its working directory.
        environ: What it gets beside this process's environment.

    Raises:
        ServerError: It did not get ready.
    """
    port = _free_port()
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log") as log:
        try:
            process = subprocess.Popen(  # noqa: S603
                [str(part).replace("{port}", str(port)) for part in command],
                cwd=cwd,
                env={**os.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise ServerError(str(error)) from None
        server = Server(process, f"http://127.0.0.1:{port}", Path(log.name))
        try:
            server.await_ready(ready)
            yield server
        finally:
            server.stop()


def our_service(bundle: Path, *flags: str) -> AbstractContextManager[Server]:
    """Start `python -m service serve` with a bundle and more flags; see `running`."""
    command = [sys.executable, "-m", "service", "serve", "--port", "{port}"]
    command += ["--bundle", str(bundle.resolve()), "--log-level", "error", *flags]
    return running(command, ready="/readyz", cwd=ROOT)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def _tail(log: Path) -> str:
    return log.read_bytes()[-LAST_BYTES:].decode(errors="replace").strip()
