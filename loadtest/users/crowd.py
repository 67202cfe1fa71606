"""A headless run of locust in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from loadtest.client import START_TIMEOUT_S, ClientError
from loadtest.server import ROOT
from loadtest.users.slo import Ended

STOP_S = 10
"""For the last answers, when the time is up."""


def crowd(
    url: str,
    *,
    tokenizer_of: Path,
    users: int,
    seconds: float,
    candidates: int,
    seed: int = 0,
    stop_s: float = STOP_S,
) -> tuple[Ended, ...]:
    """Let users search a service, and return their requests in the order of their ends.

    Args:
        url: Where the service listens.
        tokenizer_of: The bundle whose tokenizer's words the requests have.
        users: How many, one started each tenth of a second.
        seconds: For how long.
        candidates: Documents a request.
        seed: Of the requests.
        stop_s: How long to wait for the last answers; those that do not come count as failed.

    Raises:
        ClientError: Locust failed; failed requests are no such failure.
    """
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch) / "record.json"
        command = [sys.executable, "-m", "locust", "--locustfile", "loadtest/locustfile.py"]
        command += ["--headless", "--only-summary", "--loglevel", "WARNING", "--host", url]
        command += ["--users", str(users), "--spawn-rate", "10", "--run-time", f"{seconds:.0f}s"]
        command += ["--stop-timeout", str(stop_s), "--exit-code-on-error", "0"]
        command += ["--bundle", str(tokenizer_of.resolve()), "--candidates", str(candidates)]
        command += ["--record", str(record), "--seed", str(seed)]
        done = subprocess.run(  # noqa: S603
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S + seconds + 2 * stop_s,
        )
        if done.returncode or not record.exists():
            raise ClientError(f"locust failed: {done.stderr.strip()[-500:]}")
        rows = json.loads(record.read_text(encoding="utf-8"))
    first_s = rows[0][0] if rows else 0.0
    return tuple(Ended(at_s - first_s, latency_s, ok) for at_s, latency_s, ok in rows)


def require_ready(url: str) -> None:
    """Pass where a service is ready.

    Raises:
        ClientError: Nobody is there, or not ready to rank.
    """
    try:
        answer = httpx.get(f"{url}/readyz", timeout=START_TIMEOUT_S)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ClientError(f"{url}: {error or type(error).__name__}") from None
    if not answer.is_success:
        raise ClientError(f"{url}/readyz: {answer.status_code}: {answer.text[:200]}")
