"""Users search a real service; the exit code is by thresholds."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loadtest.server import our_service
from loadtest.users.crowd import crowd
from loadtest.users.log import query_log, told
from loadtest.users.slo import Slo, verdicts

ROOT = Path(__file__).parents[2]
SLO = Slo(p50_ms=1e9, p99_ms=1e9, error_share=0, requests_per_s=0)
EASY = "p50_ms = 1e9\np99_ms = 1e9\nerror_share = 0.0\nrequests_per_s = 0\n"


@pytest.fixture
def thresholds(tmp_path: Path) -> Path:
    path = tmp_path / "slo.toml"
    path.write_text(EASY)
    return path


def users(*arguments: str | Path, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest", "users", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def test_users_of_a_service_started_for_them_meet_easy_thresholds(
    bundle_path: Path, tmp_path: Path, thresholds: Path
) -> None:
    done = users(
        *("--bundle", bundle_path, "--users", "3", "--seconds", "2", "--candidates", "5"),
        *("--slo", thresholds, "--output", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    assert "requests not answered as asked: 0.00 % (≤ 0 %): met" in done.stdout
    report = (tmp_path / "out" / "loadtest.md").read_text(encoding="utf-8")
    assert "3 users who read for about a second, 5 candidates a request" in report
    assert (tmp_path / "out" / "loadtest.png").read_bytes().startswith(b"\x89PNG")


def test_running_service_that_misses_a_threshold_fails_the_run(
    bundle_path: Path, tmp_path: Path, thresholds: Path
) -> None:
    fast = EASY.replace("requests_per_s = 0", "requests_per_s = 1e6")
    thresholds.write_text(fast.replace("error_share = 0.0", "error_share = 1.0"))
    with our_service(bundle_path, "--threads", "1") as server:
        done = users(
            *("--url", server.url, "--bundle", bundle_path, "--users", "1", "--seconds", "2"),
            *("--candidates", "2", "--slo", thresholds, "--output", tmp_path),
        )
    assert done.returncode == 1, done.stderr
    assert "requests answered: " in done.stdout
    assert done.stdout.count("missed") == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense"])
def test_service_that_is_not_there_cannot_be_tested(
    bundle_path: Path, tmp_path: Path, thresholds: Path, url: str
) -> None:
    done = users(
        *("--url", url, "--bundle", bundle_path, "--seconds", "2"),
        *("--candidates", "2", "--slo", thresholds, "--output", tmp_path),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"loadtest: {url}: ")


def test_requests_that_a_stalled_service_never_answers_count_as_failed(bundle_path: Path) -> None:
    with our_service(bundle_path, "--threads", "1") as server:
        stall = threading.Timer(4, os.kill, (server.pid, signal.SIGSTOP))
        stall.start()
        try:
            requests = crowd(
                server.url, tokenizer_of=bundle_path, users=3, seconds=6, candidates=2, stop_s=1
            )
        finally:
            stall.cancel()
            os.kill(server.pid, signal.SIGCONT)
    assert sum(not request.ok for request in requests) == 3  # one each; nobody asks again
    failed = [verdict for verdict in verdicts(SLO, requests, run_s=6) if not verdict.met]
    assert [verdict.goal for verdict in failed] == ["requests not answered as asked"]


def test_bad_thresholds_are_named_in_one_line(tmp_path: Path, thresholds: Path) -> None:
    thresholds.write_text("p50_ms = 1\n")
    done = users("--slo", thresholds, "--output", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"loadtest: {thresholds}: p99_ms: Field required\n"


def test_log_repeats_within_a_lap_and_never_across(bundle_path: Path) -> None:
    log = query_log(bundle_path / "tokenizer.json", candidates=2, count=50)
    assert log == query_log(bundle_path / "tokenizer.json", candidates=2, count=50)
    other = query_log(bundle_path / "tokenizer.json", candidates=2, count=50, seed=1)
    assert log[0] != other[0]
    bodies = [json.loads(body) for body in itertools.islice(told(log), 150)]
    laps = [[body["query"] for body in bodies[start : start + 50]] for start in (0, 50, 100)]
    assert laps[0] == [example.query for example in log]
    assert all(len(set(lap)) == len(set(laps[0])) < 50 for lap in laps)
    assert not set(laps[0]) & set(laps[1])
    assert not set(laps[1]) & set(laps[2])
    assert {len(body["candidates"]) for body in bodies} == {2}
