"""Runs inside the container: waits until it is ready, ranks once, and checks how it is confined.

Arguments: when the container was started, in seconds since the epoch, and the image's health
check as JSON.
"""

import contextlib
import errno
import importlib.util
import json
import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
QUERY = "how to bake bread at home"
CANDIDATES = [
    {"id": "fox", "text": "The quick brown fox jumps over the lazy dog."},
    {"id": "bread", "title": "Baking bread", "summary": "How to bake a loaf of bread at home."},
    {"id": "tax", "title": "Income tax", "summary": "When and how to file a tax return."},
]


def main() -> None:
    """Print what was seen, or exit with the first thing that is wrong."""
    ready_s = wait_until_ready() - float(sys.argv[1])
    check_confinement()
    health_check = json.loads(sys.argv[2])[1:]
    check(subprocess.run(health_check).returncode == 0, "a green health check")  # noqa: S603
    check_engine()
    response = rank()
    results = response["results"]
    scores = [result["score"] for result in results]
    check(sorted(result["id"] for result in results) == ["bread", "fox", "tax"], "every id once")
    check(scores == sorted(scores, reverse=True), "best score first")
    print(f"ready {ready_s:.2f} s after the start; model {response['model']}")
    print("order: " + ", ".join(f"{result['id']} {result['score']:.3f}" for result in results))


def wait_until_ready() -> float:
    """Return the time at which /readyz turned green."""
    give_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up_at:
        with contextlib.suppress(OSError):
            if call("GET", "/readyz")[0] == 200:
                return time.time()
        time.sleep(0.02)
    sys.exit(f"wrong: not ready after {PATIENCE_S:.0f} s")


def check_confinement() -> None:
    """Check that the service is nobody, can write nothing, and carries nothing it does not need."""
    check(os.getuid() != 0 and os.getgid() != 0, "not root")
    for package in ("torch", "transformers", "training", "export", "pip"):
        check(importlib.util.find_spec(package) is None, f"no {package}")
    try:
        Path("/app/written").touch()
    except OSError as error:
        check(error.errno == errno.EROFS, "a read-only root")
    else:
        check(False, "a read-only root")


def check_engine() -> None:
    """Check that the native engine was compiled, where this CPU can run it."""
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    expected = "native" if {"avx2", "fma"} <= {*flags} else "onnx"
    metrics = call("GET", "/metrics")[1].decode()
    check(f'engine="{expected}"' in metrics, f"the {expected} engine")
    print(f"engine {expected}")


def rank() -> dict[str, Any]:
    """Return the service's answer to one request."""
    body = json.dumps({"query": QUERY, "candidates": CANDIDATES})
    status, answer = call("POST", "/rank", body)
    check(status == 200, f"200 from /rank, not {status}: {answer.decode()}")
    ranking: dict[str, Any] = json.loads(answer)
    return ranking


def call(method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    """Return the status and the body of the service's answer."""
    connection = HTTPConnection("127.0.0.1", 8080, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def check(holds: bool, expected: str) -> None:
    """Exit unless what was expected holds."""
    if not holds:
        sys.exit(f"wrong: expected {expected}")


if __name__ == "__main__":
    main()
