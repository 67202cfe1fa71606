"""The overload report: goals, tables, plots, and what the figures do not say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from loadtest.bench.report import goals_table, host_line
from loadtest.bench.results import Measured
from loadtest.open_loop import LAG_LIMIT_S
from loadtest.overload.goals import verdicts
from loadtest.overload.measure import BURST_S, CALM, CLIENTS
from loadtest.overload.plots import draw
from loadtest.overload.results import OverloadResult
from loadtest.overload.tables import capacity_table, goodput_table, latency_table

OTHERS_SHARE = 0.1
"""Of the cores: less leaves the figures as they are."""

REPORT, RAW = "overload.md", "overload.json"


def write(measured: Measured[OverloadResult], folder: Path) -> Path:
    """Write the report, its plots and the raw figures into a folder, and return the report."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.loads(measured.model_dump_json())
    (folder / RAW).write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    report = folder / REPORT
    report.write_text(render(measured, draw(measured.result, folder)), encoding="utf-8")
    return report


def render(measured: Measured[OverloadResult], plots: Sequence[str]) -> str:
    """Return the report in Markdown, with the plots of those names."""
    result = measured.result
    first = result.rounds[0].steps
    lengths = ", ".join(f"{step.name} {step.seconds:.0f} s" for step in first)
    parts = [
        "# Overload",
        f"Written by `make overload`, not by hand; the raw figures are in `{RAW}`. Requests of "
        f"{result.candidates} candidates and a deadline of {result.deadline_ms:.0f} ms arrive open "
        "loop, as a Poisson process: when they are due, whatever is unanswered, and their latency "
        "is counted from then. Capacity is measured first, in the same run, by "
        f"{CLIENTS} clients that wait for their answers; loads are multiples of it. A request is "
        "in time when its whole answer came within the deadline. Absolute figures are this "
        "machine's, at that hour; client and service share its cores.",
        "## Goals",
        goals_table(verdicts(result)),
        "## Where and how",
        "\n".join(f"- {line}" for line in _origin(measured, lengths)),
        "## Capacity and recovery",
        f"After 5× for its time, and in the middle of a burst of {BURST_S:g} s of work at once, "
        f"the load is {CALM:g}× of capacity: back is when a second begins of which every request "
        "was answered in time.",
        capacity_table(result),
        "## Goodput",
        "Medians of the rounds; numbers of requests are of all rounds.",
        goodput_table(result),
        *(f"![{plot.removesuffix('.png')}]({plot})" for plot in plots if "latency" not in plot),
        "## Latency",
        "From when a request was due to the last byte of its answer, as its client sees it; "
        "accepted are those answered with 200 or 504. Of a refusal (429) also the service's own "
        "time, which its `Server-Timing` header tells.",
        latency_table(result),
        *(f"![{plot.removesuffix('.png')}]({plot})" for plot in plots if "latency" in plot),
        "## What to keep in mind",
        "\n".join(f"- {note}" for note in _notes(measured)),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(measured: Measured[OverloadResult], lengths: str) -> Iterator[str]:
    host, result = measured.host, measured.result
    yield host_line(host)
    yield f"`{measured.command}`, {measured.at} UTC, {measured.seconds:.0f} s"
    yield f"{measured.requests} requests; {host.bundle}; commit {host.commit}"
    yield f"`serve` with both caches off, so that every request costs all its work{_flags(result)}"
    yield f"rounds: {len(result.rounds)}; each load was measured, its warm-up aside, for: {lengths}"


def _flags(result: OverloadResult) -> str:
    return f", and `{result.flags}`" if result.flags else ""


def _notes(measured: Measured[OverloadResult]) -> Iterator[str]:
    host, result = measured.host, measured.result
    steps = [step for part in result.rounds for step in part.steps]
    others = [step.others_cpu for step in steps if step.others_cpu is not None]
    if others and max(others) > OTHERS_SHARE:
        yield (
            f"Other programs took {100 * min(others):.0f} to {100 * max(others):.0f} % of the "
            f"{host.cores} cores during the loads: capacity then differs from load to load, and "
            "tails are their turns on a core."
        )
    if behind := dict.fromkeys(step.name for step in steps if step.behind):
        yield (
            f"The client fell behind its schedule at {', '.join(behind)}: it sent one request in a "
            f"hundred more than {1000 * LAG_LIMIT_S:.0f} ms late, or not at all. Its lateness is "
            "in the latencies, since they count from when a request was due."
        )
    if any(step.wasted_share is None for step in steps):
        yield "This service does not tell the tokens it ran in vain."
    yield (
        "With requests of about equal cost, goodput in tokens and in requests agree; where they do "
        "not, small requests were taken and large ones refused."
    )
