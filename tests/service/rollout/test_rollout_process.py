"""The decider as a process: killed at any point, two at a time, and with a real service."""

import contextlib
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.__main__ import main
from service.rollout.desired import Desired
from service.rollout.progress import Rollout
from service.rollout.store import Store
from tests.service.asking import request
from tests.service.test_server import running

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 120
STEPS = (0.01, 0.05, 0.25, 0.5, 1.0)
DOCUMENTS = [{"text": "the cat " * n + "kettle"} for n in range(1, 13)]

# The command alone: the whole command line imports what serves, which would be most of a run.
DECIDER = (
    "import argparse; from service.rollout.command import add_rollout;"
    "parser = argparse.ArgumentParser(); add_rollout(parser.add_subparsers());"
    "options = vars(parser.parse_args()); options.pop('command')(options)"
)


class Instance:
    """Metrics of a service that answers and compares some more requests at each scrape."""

    def __init__(self) -> None:
        self.flows = True
        self._requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.exposition().encode()
                with contextlib.suppress(ConnectionError):  # whoever asked may have been killed
                    self.send_response(200)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def exposition(self) -> str:
        self._requests += 40 * self.flows
        n = self._requests
        lines = ["disranker_split_generation 0"]
        for lane, version, other in (("stable", "s", "c"), ("canary", "c", "s")):
            model = f'version="{version}",variant="{lane}"'
            pair = f'{model},against_version="{other}"'
            lines += [f"disranker_lane_weight{{{model}}} 0.5"]
            for name, labels in (
                ("request_duration_seconds", f'{model},outcome="ok"'),
                ("agreement", f'{pair},measure="concordance"'),
                ("agreement", f'{pair},measure="overlap_10"'),
                ("scores", f'{pair},side="answered"'),
                ("scores", f'{pair},side="against"'),
            ):
                for le, part in (("0.5", n // 2), ("1", n), ("+Inf", n)):
                    lines.append(f'disranker_{name}_bucket{{{labels},le="{le}"}} {part}')
                lines.append(f"disranker_{name}_sum{{{labels}}} {0.9 * n}")
        return "\n".join(lines) + "\n"


@pytest.fixture
def instance() -> Iterator[Instance]:
    found = Instance()
    yield found
    found.close()


class Decider(subprocess.Popen[str]):
    """A process that decides; its log is read while it runs, or it would stop at a full pipe."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.log: list[str] = []


@contextlib.contextmanager
def deciding(folder: Path, url: str, *more: str, every_s: float = 0.01) -> Iterator[Decider]:
    flags = ["--folder", str(folder), "--metrics", url, "--every-s", str(every_s)]
    command = [sys.executable, "-c", DECIDER, "rollout", "run", *flags, *more]
    with Decider(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        log = threading.Thread(target=process.log.extend, args=[process.stderr])
        try:
            assert "deciding" in process.stderr.readline()
            log.start()
            yield process
        finally:
            process.kill()
            if log.ident is not None:
                log.join(TIMEOUT_S)


def rollout(folder: Path, command: str, *flags: str) -> None:
    assert main(["rollout", command, "--folder", str(folder), *flags]) == 0


def told(store: Store) -> Desired:
    return Desired.model_validate_json(store.weights.read_bytes())


def check(store: Store, before: Rollout) -> Rollout:
    """Return the state that a kill left, after checking that it makes sense."""
    state, desired = store.load(), told(store)
    assert state.generation >= before.generation
    assert desired.generation <= state.generation
    if desired.generation == state.generation:
        assert desired == state.desired
    if state.status == "running":
        assert state.weight == state.plan.steps[state.stage.step]
    events = [event for event in state.events if event.what in ("began", "advanced")]
    assert [event.weight for event in events] == [*STEPS[: len(events)]]
    assert {event.reason for event in events[1:]} <= {"good by every guardrail"}
    return state


def kill_at(process: subprocess.Popen[str], after_s: float) -> None:
    """Kill a decider so long after it began to decide."""
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait(TIMEOUT_S)


def test_a_decider_killed_at_every_step_goes_on_where_it_was(
    instance: Instance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, rng, state = Store(tmp_path), random.Random(5), Rollout()
    rollout(tmp_path, "start", "--step-s", "0")
    killed = set()
    for _ in range(200):
        with deciding(tmp_path, instance.url) as process:
            kill_at(process, rng.uniform(0, 0.12))
        state = check(store, state)
        if state.status == "finished":
            break
        killed.add(state.stage.step)
    assert (state.status, state.weight) == ("finished", 1.0)
    assert killed == {*range(len(STEPS))}
    rollout(tmp_path, "status")
    assert "finished" in capsys.readouterr().out


def test_nothing_goes_on_without_new_requests_however_often_it_begins_anew(
    instance: Instance, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    rollout(tmp_path, "start", "--step-s", "0")
    with deciding(tmp_path, instance.url) as process:
        end = time.monotonic() + TIMEOUT_S
        while store.load().stage.step < 1 and time.monotonic() < end:
            time.sleep(0.01)
        instance.flows = False
        kill_at(process, 0.2)
    before = store.load()
    for _ in range(3):
        with deciding(tmp_path, instance.url) as process:
            kill_at(process, 0.2)
        after = check(store, before)
        assert (after.stage.step, after.weight) == (before.stage.step, before.weight)


def test_a_kill_between_both_files_leaves_the_older_weights_until_the_next_start(
    tmp_path: Path, instance: Instance
) -> None:
    store = Store(tmp_path)
    rollout(tmp_path, "start")
    older = store.weights.read_text()
    rollout(tmp_path, "rollback")
    store.weights.write_text(older)  # as it was when the state was new
    (tmp_path / ".weights.json.part").write_text('{"gen')
    with deciding(tmp_path, instance.url) as process:
        kill_at(process, 0)
    assert told(store) == store.load().desired
    assert (told(store).weight, told(store).generation) == (0.0, 2)


def test_a_second_decider_is_refused(instance: Instance, tmp_path: Path) -> None:
    with deciding(tmp_path, instance.url):
        flags = ["--folder", str(tmp_path), "--metrics", instance.url]
        assert main(["rollout", "run", *flags]) == 2


def test_people_hold_go_on_promote_and_roll_back(
    instance: Instance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    for command in ("hold", "promote", "rollback"):
        assert main(["rollout", command, "--folder", str(tmp_path)]) == 2  # there is nothing yet
    rollout(tmp_path, "start", "--step-s", "0", "--steps", "0.5,1")
    assert main(["rollout", "start", "--folder", str(tmp_path)]) == 2
    instance.flows = False
    with deciding(tmp_path, instance.url):
        wait_for(store, "running")
        rollout(tmp_path, "hold", "--reason", "lunch")
        instance.flows = True
        end = time.monotonic() + TIMEOUT_S
        while store.load().seen.canary.arm.requests < 1_500:
            assert time.monotonic() < end
            time.sleep(0.02)
        held = store.load()
        assert (held.status, held.weight, held.events[-1].reason) == ("held", 0.5, "lunch")
        rollout(tmp_path, "promote", "--reason", "it is good")
        assert (store.load().status, told(store).weight) == ("finished", 1.0)
        rollout(tmp_path, "rollback", "--reason", "it was not")
        assert (store.load().status, told(store).weight) == ("rolled_back", 0.0)
    capsys.readouterr()


def test_bounds_come_from_a_bundles_parity_report_unless_they_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, shipped = Store(tmp_path), ROOT / "models/default/manifest.json"
    reports = json.loads(shipped.read_text())["metrics"]["parity"].values()
    least = min(report["kendall_tau"] for report in reports)
    rollout(tmp_path, "start", "--parity", str(shipped), "--min-overlap-10", "0.7")
    bounds = store.load().plan.bounds
    assert bounds.tau_b == pytest.approx(least - 0.05)
    assert (bounds.overlap_10, bounds.stability) == (0.7, 0.5)
    assert main(["rollout", "start", "--folder", str(tmp_path / "b"), "--parity", __file__]) == 2
    assert "no manifest" in capsys.readouterr().err


def wait_for(store: Store, *statuses: str) -> Rollout:
    end = time.monotonic() + 2 * TIMEOUT_S
    while (state := store.load()).status not in statuses:
        assert time.monotonic() < end, state
        time.sleep(0.05)
    return state


@contextlib.contextmanager
def traffic(url: str) -> Iterator[None]:
    """Send requests of ever new users, one after the other."""
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            for number in itertools.count():
                body = request(query=f"cat {number}", candidates=DOCUMENTS, routing_key=f"{number}")
                client.post("/rank", json=body).raise_for_status()
                if ended.is_set():
                    return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(TIMEOUT_S)


def test_a_real_service_is_walked_through_the_steps_and_back(
    bundle_path: Path, candidate_path: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    flags = ["--canary", str(candidate_path), "--rollout-weights", str(store.weights)]
    plan = ["--steps", "0.4,1", "--step-s", "0", "--min-requests", "60", "--min-sampled", "40"]
    lenient = ["--min-tau-b", "-1", "--min-overlap-10", "0", "--max-psi", "100"]
    with (
        running(bundle_path, *flags, "--shadow-sample", "1") as server,
        deciding(tmp_path, f"{server.url}/metrics", every_s=0.1) as decider,
        traffic(server.url),
    ):
        rollout(tmp_path, "start", *plan, *lenient)  # two random models: any order will do
        state = wait_for(store, "finished", "rolled_back")
        assert state.status == "finished", state
        assert [event.weight for event in state.events if event.what in ("began", "advanced")] == [
            0.4,
            1.0,
        ]
        answered_by(server.url, "canary")
        rollout(tmp_path, "rollback")
        answered_by(server.url, "stable")

        rollout(tmp_path, "start", *plan)  # held to what two good models have in common
        state = wait_for(store, "finished", "rolled_back")
        assert (state.status, state.weight) == ("rolled_back", 0.0)
        assert state.events[-1].reason.startswith("worse by ")
        answered_by(server.url, "stable")
    lines = [json.loads(line) for line in decider.log]
    (end,) = [line for line in lines if line["message"] == "canary rollback"]
    assert {finding["name"] for finding in end["findings"]} >= {"errors", "p99", "concordance"}
    assert all({"p", "n", "value"} <= finding.keys() for finding in end["findings"])


def answered_by(url: str, lane: str) -> None:
    """Wait until everybody's requests go to a lane."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        keys = [{"X-Routing-Key": f"user-{n}"} for n in range(10)]
        body = request(candidates=DOCUMENTS)
        answers = [httpx.post(f"{url}/rank", json=body, headers=key, timeout=30) for key in keys]
        if {answer.headers["x-variant"] for answer in answers} == {lane}:
            return
        assert time.monotonic() < end
        time.sleep(0.2)
