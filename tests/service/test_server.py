"""A real server process: start, ready, rank, and a stop that loses nothing."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.asking import request

TIMEOUT_S = 60


class Server:
    """A running `serve`, its address and its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        port = self.wait_for("listening on")["port"]
        self.url = f"http://127.0.0.1:{port}"
        self.wait_for("ready")

    def wait_for(self, message: str) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            for line in list(self.log):
                if line["message"].startswith(message):
                    return line
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.01)
        raise AssertionError(f"{message!r} is not in the log: {self.log}")

    def stop(self, sig: int = signal.SIGTERM) -> int:
        self.process.send_signal(sig)
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))


def command(bundle_path: Path, *flags: str) -> list[str]:
    serve = [sys.executable, "-m", "service", "serve", "--port", "0", "--threads", "1"]
    return [*serve, "--bundle", str(bundle_path), *flags]


@contextmanager
def running(bundle_path: Path, *flags: str) -> Iterator[Server]:
    process = subprocess.Popen(command(bundle_path, *flags), stderr=subprocess.PIPE, text=True)
    try:
        yield Server(process)
    finally:
        process.kill()
        process.wait()


def refused(bundle_path: Path, *flags: str, **environ: str) -> str:
    """Return the one line of a start that failed with exit code 2."""
    found = subprocess.run(
        command(bundle_path, *flags),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **environ},
        check=False,
    )
    assert found.returncode == 2, found.stderr
    assert found.stderr.count("\n") == 1
    return found.stderr


def test_server_starts_gets_ready_ranks_and_stops(bundle_path: Path) -> None:
    with running(bundle_path) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").json()["ready"] is True
        answer = client.post("/rank", json=request(candidates=[{"text": "cat"}, {"text": "dog"}]))
        assert answer.status_code == 200
        assert len(answer.json()["results"]) == 2
        answer = client.post("/rank", content=b"x" * 2_000_000)
        assert answer.status_code == 413
        assert server.stop() == 0
    assert server.log[-1]["message"].startswith("Finished server process")
    lines = [line for line in server.log if line["logger"] == "service.requests"]
    assert [line["status"] for line in lines] == [200, 413]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_stop_under_load_answers_every_accepted_request(bundle_path: Path, sig: int) -> None:
    """Clients keep on asking over open connections until theirs is closed on them."""
    body = request(candidates=[{"text": "cat kettle " * 60}] * 40)
    answered: list[int] = []
    broken: list[str] = []

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S) as client:
            while True:
                try:
                    answered.append(client.post("/rank", json=body).status_code)
                except httpx.ConnectError:
                    return  # never accepted: the listening socket is closed
                except httpx.HTTPError as error:
                    broken.append(repr(error))
                    return

    with running(bundle_path, "--launch-tokens", "256") as server:
        clients = [threading.Thread(target=ask, args=(server.url,)) for _ in range(8)]
        for client in clients:
            client.start()
        while len(answered) < 16:
            time.sleep(0.005)
        assert server.stop(sig) == 0
        for client in clients:
            client.join(TIMEOUT_S)
    assert broken == []
    assert set(answered) == {200}
    logged = [line["status"] for line in server.log if line["logger"] == "service.requests"]
    assert logged == [200] * len(answered)


def test_stop_is_bounded(bundle_path: Path) -> None:
    with running(bundle_path, "--stop-timeout-s", "0.2") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            time.sleep(0.1)
            assert server.stop() == 0


def test_flipped_byte_stops_the_start_with_one_line(bundle_path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle_path, broken)
    model = (
        broken / json.loads((broken / "manifest.json").read_text())["precisions"]["int8"]["file"]
    )
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    assert f"file '{model.name}' was changed" in refused(broken)


def test_start_refuses_what_cannot_work_in_one_line(bundle_path: Path, tmp_path: Path) -> None:
    assert "is no bundle" in refused(tmp_path)
    assert "DISRANKER_PROT" in refused(bundle_path, DISRANKER_PROT="1")
    assert "budget_ms: " in refused(bundle_path, DISRANKER_BUDGET_MS="many")


def test_taken_port_is_one_line(bundle_path: Path) -> None:
    with running(bundle_path) as server:
        port = server.url.rsplit(":", 1)[1]
        assert f"127.0.0.1:{port}" in refused(bundle_path, "--port", port)
