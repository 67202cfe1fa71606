"""The soak's report: goals, a table and a plot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from loadtest.bench.goals import Verdict
from loadtest.bench.report import goals_table, host_line
from loadtest.bench.results import Measured
from loadtest.bench.tables import Cells, table
from loadtest.figure import BLUE, RED, Figure
from loadtest.soak.measure import BLOCKS, CLIENTS
from loadtest.soak.results import Slope, SoakResult, Watch

REPORT, RAW, PLOT = "soak.md", "soak.json", "soak.png"

LIMIT_MB_PER_HOUR = 5.0
HEADINGS = (
    *("", "watched", "requests", "MB at the start", "MB at the end", "MB/h", "bytes a request"),
    "answers by status (0: abandoned)",
)
UNFORESEEN = ("500", "503")


def verdicts(result: SoakResult) -> Iterator[Verdict]:
    """Yield a verdict for each goal."""
    steady, control = result.steady, result.control
    goal = "slope of memory, upper end of its 95 % interval"
    yield Verdict(
        goal, "service", steady.mb_per_hour.high, LIMIT_MB_PER_HOUR, at_most=True, unit=" MB/h"
    )
    goal = "slope of memory of the control, lower end of its 95 % interval"
    yield Verdict(goal, "control", control.mb_per_hour.low, LIMIT_MB_PER_HOUR, unit=" MB/h")
    failed = sum(steady.endings.get(status, 0) for status in UNFORESEEN)
    goal = f"requests answered with {' or '.join(UNFORESEEN)}"
    yield Verdict(goal, "service", failed, 0, at_most=True, unit="")


def write(measured: Measured[SoakResult], folder: Path) -> Path:
    """Write the report, its plot and the raw figures into a folder, and return the report."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.loads(measured.model_dump_json())
    (folder / RAW).write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    _draw(measured.result, folder / PLOT)
    report = folder / REPORT
    report.write_text(render(measured), encoding="utf-8")
    return report


def render(measured: Measured[SoakResult]) -> str:
    """Return the report in Markdown."""
    host, result = measured.host, measured.result
    origin = (
        host_line(host),
        f"`{measured.command}`, {measured.at} UTC, {measured.seconds / 60:.0f} minutes",
        f"{host.bundle}; commit {host.commit}; load of the machine before: {host.load_before:g}",
        *_errors(result),
    )
    parts = [
        "# Soak",
        f"Written by `make soak`, not by hand; the raw figures are in `{RAW}`. {CLIENTS} clients "
        "send requests of every shape: 1 to 1,000 new documents of 1 to 400 words, a tenth of the "
        "bodies bad, a tenth of the clients leaving early, a tenth of the deadlines hardly "
        "possible. The caches are small and fill during the warm-up. Memory's floor is the lowest "
        f"sample of each of {BLOCKS} blocks of time, its slope Theil and Sen's. The control is the "
        f"same service, but keeps {result.control.leak_bytes} bytes of each request.",
        "## Goals",
        goals_table(verdicts(result)),
        "## Where and how",
        "\n".join(f"- {line}" for line in origin),
        "## Memory",
        table(
            HEADINGS,
            [_row("service", result.steady), _row("control", result.control)],
        ),
        f"![soak]({PLOT})",
    ]
    return "\n\n".join(parts) + "\n"


def _row(name: str, watch: Watch) -> Cells:
    return (
        name,
        f"{watch.seconds / 60:.1f} min",
        f"{watch.requests:,}",
        f"{watch.floor_mb[0]:.1f}",
        f"{watch.floor_mb[-1]:.1f}",
        _shown(watch.mb_per_hour, 2),
        _shown(watch.bytes_per_request, 0),
        ", ".join(f"{status}: {times:,}" for status, times in watch.endings.items()),
    )


def _shown(slope: Slope, digits: int) -> str:
    return f"{slope.slope:.{digits}f} [{slope.low:.{digits}f}, {slope.high:.{digits}f}]"


def _errors(result: SoakResult) -> Iterator[str]:
    for message, times in result.steady.errors.items():
        yield f"logged as an error {times} times: {message}"


def _draw(result: SoakResult, path: Path) -> None:
    with Figure(path, (8, 4)) as (axes,):
        for name, colour, watch in (
            ("service", BLUE, result.steady),
            (f"control, keeps {result.control.leak_bytes} bytes a request", RED, result.control),
        ):
            minutes = [seconds / 60 for seconds in watch.block_s]
            axes.plot(minutes, watch.floor_mb, "o-", color=colour, label=name)
        axes.set(xlabel="minutes after the warm-up", ylabel="resident memory's floor, MB")
        axes.set_ylim(0, None)
        axes.legend(fontsize=8)
