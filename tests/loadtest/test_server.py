"""A server under test is waited for, paused between its turns, and ended with all it started."""

import sys
import time
from pathlib import Path

import httpx
import pytest

from loadtest.server import ServerError, running

# Serves, and starts a child of its own that ignores the request to end.
PARENT = """
import http.server, os, pathlib, subprocess, sys
ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
child = subprocess.Popen([sys.executable, "-c", ignore + "print(flush=True); time.sleep(600)"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
pathlib.Path(sys.argv[2]).write_text(f"{os.getpid()} {child.pid}")
http.server.ThreadingHTTPServer(
    ("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler
).serve_forever()
"""


def state(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return "gone" if (letter := status.rsplit(") ", 1)[1][0]) == "Z" else letter


def wait_for(pid: int, wanted: str) -> None:
    end = time.monotonic() + 30
    while state(pid) != wanted:
        assert time.monotonic() < end, f"{pid} is {state(pid)}, not {wanted}"
        time.sleep(0.01)


def test_server_runs_in_its_turns_and_ends_with_its_children(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, "{port}", str(tmp_path / "pids")]
    with running(command, ready="/", cwd=tmp_path) as server:
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        for _ in range(2):
            with server.turn() as url:
                assert httpx.get(url).status_code == 200
            for pid in pids:
                wait_for(pid, "T")
    for pid in pids:
        wait_for(pid, "gone")


def test_server_that_ends_early_says_its_last_words() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such model: {port}')"]
    with pytest.raises(ServerError, match=r"ended with 1: no such model: \d+"):
        running(command, ready="/").__enter__()


def test_server_that_is_no_program_is_named() -> None:
    with pytest.raises(ServerError, match="no-such-program"):
        running(["/no-such-program"], ready="/").__enter__()
