"""The report: goals, tables, plots, and what the figures do not say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from loadtest.bench.goals import Verdict, verdicts
from loadtest.bench.results import EngineResult, Host, Measured, PeersResult
from loadtest.bench.tables import (
    cache_table,
    cost_table,
    engine_table,
    front_end_table,
    peers_table,
    table,
)
from loadtest.statistics import median_ratio

Results = Mapping[str, Measured[Any]]

WRONG_INPUTS = 0.9
"""τ-b with the fp32 weights below this is more than the rounding of int8 and padding."""

PROSE: dict[str, tuple[str, str, Callable[[Any], str]]] = {
    "engine": (
        "Through HTTP at saturation",
        "48 candidates a request, both caches off, against bare loops over the same token pairs, "
        "without HTTP, tokenising or a queue, each at its best setting.",
        engine_table,
    ),
    "peers": (
        "Against other rerankers",
        "The same weights, requests and client for all; each at its own best settings, in an "
        "environment of its own; while one is measured the others are paused. Latency is one "
        "client's, requests/s that of several. Caches of the service are off. The weights are the "
        "bundle's: those that load no int8 get its int8 weights times their scales. τ-b shows that "
        "they rank alike.",
        peers_table,
    ),
    "front-end": (
        "Front end",
        "One client, 48 candidates, token cache warm, score cache off: what of the client's time "
        "was spent neither tokenising, nor in the queue, nor in the model.",
        front_end_table,
    ),
    "cost": (
        "Cost by number and length of candidates",
        "One client, caches off. Exact lengths are generated text.",
        cost_table,
    ),
    "cache": (
        "Warm caches on a repeating log",
        "The same log with the default caches and without, chunk by chunk by turns. It repeats "
        "queries as often, and as soon, as a log of 1997 (Excite): 47 % were asked before, half of "
        "those within three requests.",
        cache_table,
    ),
}


def render(results: Results, plots: Mapping[str, Sequence[str]]) -> str:
    """Return the report in Markdown.

    Args:
        results: The measured sections, in the report's order.
        plots: Names of the plots beside the report, by section.
    """
    parts = [
        "# Benchmarks",
        "Written by `make bench`, not by hand; the raw figures are in `results.json`. What is "
        "compared took turns within one run, on the same requests, and a ratio is the median of "
        "the rounds' ratios, so that it holds where the machine is shared. Absolute figures are "
        "this machine's, at that hour.",
        *_goals(results),
        *_origin(results),
    ]
    for name, measured in results.items():
        title, about, tabulate = PROSE[name]
        parts += [f"## {title}", about, tabulate(measured.result)]
        parts += [f"![{plot.removesuffix('.png')}]({plot})" for plot in plots.get(name, ())]
    parts += ["## What to keep in mind", "\n".join(f"- {note}" for note in _notes(results))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _goals(results: Results) -> list[str]:
    decided = tuple(verdicts(results))
    return ["## Goals", goals_table(decided)] if decided else []


def goals_table(decided: Iterable[Verdict]) -> str:
    """Return what was aimed for, what was measured, and by how much it is missed."""
    rows = [
        (
            verdict.goal,
            verdict.name,
            f"{verdict.found:.2f}{verdict.unit}",
            f"{'≤' if verdict.at_most else '≥'} {verdict.limit:.2f}{verdict.unit}",
            verdict.words,
        )
        for verdict in decided
    ]
    return table(("goal", "configuration", "measured", "aim", ""), rows)


def _origin(results: Results) -> list[str]:
    rows = [
        (
            name,
            measured.at,
            f"{measured.seconds:.0f} s",
            measured.requests,
            measured.host.commit,
            measured.host.bundle,
            f"{measured.host.load_before:.1f}",
        )
        for name, measured in results.items()
    ]
    headings = (
        "section",
        "measured at (UTC)",
        "took",
        "requests",
        "commit",
        "bundle",
        "load before",
    )
    hosts = {host_line(measured.host): None for measured in results.values()}
    commands = {f"`{measured.command}`": None for measured in results.values()}
    about = "\n".join(f"- {line}" for line in (*hosts, *commands))
    return ["## Where and how", about, table(headings, rows)]


def host_line(host: Host) -> str:
    """Return the machine and what it runs in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in host.versions.items())
    return (
        f"{host.cpu}, {host.cores} cores, {host.memory_gb:.0f} GB ({', '.join(host.flags)}); "
        f"{host.system}; {versions}"
    )


def _notes(results: Results) -> Iterator[str]:
    for name, measured in results.items():
        host = measured.host
        if host.load_before > host.cores / 4:
            yield (
                f"The machine was busy before `{name}`: load {host.load_before:.1f} on "
                f"{host.cores} cores. Take its ratios, not its milliseconds."
            )
    if "engine" in results:
        yield from _engine_notes(results["engine"].result)
    if "peers" in results:
        yield from _peer_notes(results["peers"].result)
    yield "Fewer than 100 requests have no 99th percentile; `≤` then stands before their largest."
    yield (
        "Generated requests have real words, lengths and repeats but no meaning; speed does not "
        "depend on it, agreement of rankings does."
    )


def _engine_notes(result: EngineResult) -> Iterator[str]:
    floors = {row.name: row for row in result.loops.values()}
    for row in result.services:
        if median_ratio(row.tokens_per_s, floors[row.floor].tokens_per_s) > 1:
            yield (
                f"`{row.name}` came out faster than its own bare loop, which cannot be: the machine"
                " was too busy for this ratio. Measure `--only engine` again."
            )


def _peer_notes(result: PeersResult) -> Iterator[str]:
    for row in result.rows:
        if row.tau_fp32 is not None and row.tau_fp32 < WRONG_INPUTS:
            reason = (
                "Infinity's optimum engine sends a cross-encoder no `token_type_ids`"
                if "optimum" in row.name
                else "it does not send the model the inputs it was trained on"
            )
            yield f"{row.name} ranks otherwise (τ-b {row.tau_fp32:.2f}): {reason}."
