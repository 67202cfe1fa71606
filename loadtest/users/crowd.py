"""A headless run of locust in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from loadtest.client import START_TIMEOUT_S, ClientError
from loadtest.server import ROOT
from loadtest.users.slo import Ended

STOP_S = 10
"""How long locust waits for the last answers."""


def crowd(
    url: str, *, tokenizer_of: Path, users: int, seconds: float, candidates: int
) -> tuple[Ended, ...]:
    """Let users search a service, and return their requests in the order of their ends.

    Args:
        url: Where the service listens.
        tokenizer_of: The bundle whose tokenizer's words the requests have.
        users: How many, one started each tenth of a second.
        seconds: For how long.
        candidates: Documents a request.

    Raises:
        ClientError: Locust failed; failed requests are no such failure.
    """
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch) / "record.json"
        command = [sys.executable, "-m", "locust", "--locustfile", "loadtest/locustfile.py"]
        command += ["--headless", "--only-summary", "--loglevel", "WARNING", "--host", url]
        command += ["--users", str(users), "--spawn-rate", "10", "--run-time", f"{seconds:.0f}s"]
        command += ["--stop-timeout", str(STOP_S), "--exit-code-on-error", "0"]
        command += ["--bundle", str(tokenizer_of.resolve()), "--candidates", str(candidates)]
        command += ["--record", str(record)]
        done = subprocess.run(  # noqa: S603
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S + seconds + 2 * STOP_S,
        )
        if done.returncode or not record.exists():
            raise ClientError(f"locust failed: {done.stderr.strip()[-500:]}")
        rows = json.loads(record.read_text(encoding="utf-8"))
    first_s = rows[0][0] if rows else 0.0
    return tuple(Ended(at_s - first_s, latency_s, ok) for at_s, latency_s, ok in rows)
