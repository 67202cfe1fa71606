"""A stopped run goes on; a whole run measures a real service."""

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from loadtest.bench.plan import QUICK
from loadtest.bench.results import FrontEndResult, Measured, OverheadRow, Part
from loadtest.bench.run import Run, Section
from loadtest.bench.subject import Subject
from loadtest.peers.peer import PEERS
from service.contract.bundle import Bundle

ROOT = Path(__file__).parents[2]
RESULT = FrontEndResult(
    candidates=1, rows=(OverheadRow(name="service", latencies_ms=(2.0,), overheads_ms=(1.0,)),)
)


class Meter:
    """A section that counts how often it was measured, and may be stopped."""

    def __init__(self) -> None:
        self.calls = 0
        self.stop = False

    def section(self) -> Section:
        return Section("", "web", self.measure, Measured[FrontEndResult])

    def measure(self, _subject: Subject) -> Part:
        self.calls += 1
        if self.stop:
            raise KeyboardInterrupt
        return RESULT


def a_run(bundle: Path, tmp_path: Path, meters: list[Meter], *, fresh: bool = False) -> Run:
    subject = Subject(
        bundle=Bundle.open(bundle),
        plan=QUICK,
        services={"service": ()},
        peers=None,
        folder=None,
        cache=tmp_path / "cache",
        say=lambda _: None,
    )
    names = ("front-end", "cost", "cache")  # in the report's order
    sections = {name: meter.section() for name, meter in zip(names, meters, strict=False)}
    return Run(subject, sections, tmp_path / "out", "command", fresh)


def test_stopped_run_goes_on_after_its_finished_sections(bundle_path: Path, tmp_path: Path) -> None:
    first, second = Meter(), Meter()
    second.stop = True
    run = a_run(bundle_path, tmp_path, [first, second])
    with pytest.raises(KeyboardInterrupt):
        run.measured(Console(file=StringIO()))
    second.stop = False
    found = run.measured(Console(file=StringIO()))
    assert (first.calls, second.calls) == (1, 2)
    assert [part.result for part in found.values()] == [RESULT, RESULT]


def test_fresh_run_measures_everything_again(bundle_path: Path, tmp_path: Path) -> None:
    first, second = Meter(), Meter()
    second.stop = True
    with pytest.raises(KeyboardInterrupt):
        a_run(bundle_path, tmp_path, [first, second]).measured(Console(file=StringIO()))
    second.stop = False
    a_run(bundle_path, tmp_path, [first, second], fresh=True).measured(Console(file=StringIO()))
    assert first.calls == 2


def test_finished_run_is_forgotten_and_its_report_kept(bundle_path: Path, tmp_path: Path) -> None:
    meter = Meter()
    report = a_run(bundle_path, tmp_path, [meter]).finish(Console(file=StringIO()))
    assert "| service | 1.00 |" in report.read_text(encoding="utf-8")
    a_run(bundle_path, tmp_path, [meter]).finish(Console(file=StringIO()))
    assert meter.calls == 2


def test_bench_measures_a_real_service_and_reports_what_it_cannot_install(
    bundle_path: Path, tmp_path: Path
) -> None:
    cache, output = tmp_path / "cache", tmp_path / "out"
    cache.mkdir()
    (cache / "envs").write_text("a file where the peers' environments should go")
    command = [sys.executable, "-m", "loadtest", "bench", "--quick", "--only", "peers,cost,cache"]
    command += ["--bundle", str(bundle_path), "--cache", str(cache), "--output", str(output)]
    command += ["--service", "one=--threads 1"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(output / "README.md")
    assert str(tmp_path) not in (output / "README.md").read_text(encoding="utf-8")
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert [*results] == ["peers", "cost", "cache"]
    peers, cost, cached = (part["result"] for part in results.values())
    ours, *others = peers["rows"]
    assert (ours["name"], ours["tau_ours"], ours["failures"]) == ("one", 1, 0)
    assert ours["tau_fp32"] > 0.5
    assert len(others) == len(PEERS)
    assert all(row["missing"] for row in others)
    sizes = [(row["candidates"], row["document_tokens"]) for row in cost["rows"]]
    assert sizes == [(1, None), (10, None), (48, 16), (48, 64)]
    (row,) = cached["rows"]
    assert 0.3 < row["run_share"] < 1
    assert len(row["on_ms"]) == len(row["off_ms"]) == QUICK.log_requests
    assert not list((cache / "state").iterdir())


def test_bad_arguments_are_named_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest", "bench", "--data", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"loadtest: {tmp_path}: no mwmbl_web_llm and no trec_dl19_passage\n"
    command[-2:] = ["--only", "engines"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "'engines' is none of engine, peers, front-end, cost, cache" in done.stderr
