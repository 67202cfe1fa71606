"""The sections' results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadtest.bench.results import (
    CacheResult,
    CostResult,
    EngineResult,
    EngineRow,
    FrontEndResult,
    PeerRow,
    PeersResult,
)
from loadtest.statistics import median, median_ratio, percentile

Cells = Sequence[str]
FEW = 100
"""Fewer values have no 99th percentile; their largest is shown as what it is."""


def table(headings: Cells, rows: Iterable[Cells]) -> str:
    """Return a Markdown table; the first column is text, the others numbers."""
    rule = ["---", *("---:" for _ in headings[1:])]
    lines = (f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))
    return "\n".join(lines)


def engine_table(result: EngineResult) -> str:
    """Return the tokens/s of services and bare loops, and the services' share of their floor."""
    headings = ("what", "tokens/s", "of its bare loop", "of plain int8", "padding", "client's CPU")
    floors = {row.name: row for row in result.loops.values()}
    plain = result.loops["plain"]
    rows = [*result.services, *result.loops.values()]
    text = table(headings, (_engine_cells(row, floors[row.floor], plain) for row in rows))
    details = "\n".join(f"- {row.name}: {row.detail}." for row in rows)
    tried = "\n".join(
        f"- {name}: " + "; ".join(f"{setting} {rate:,.0f}" for setting, rate in found.items())
        for name, found in result.searched.items()
    )
    return (
        f"{text}\n\n{result.pair_tokens:.0f} tokens a pair; real tokens count, padding does not. "
        f"Settings:\n\n{details}\n\nWhat the loops tried first, tokens/s:\n\n{tried}"
    )


def _engine_cells(row: EngineRow, floor: EngineRow, plain: EngineRow) -> Cells:
    return (
        row.name,
        f"{median(row.tokens_per_s):,.0f}",
        "" if row is floor else f"{median_ratio(row.tokens_per_s, floor.tokens_per_s):.2f}",
        f"{median_ratio(row.tokens_per_s, plain.tokens_per_s):.2f}",
        f"{100 * row.padding:.0f} %",
        "" if row.client_cpu is None else f"{100 * row.client_cpu:.1f} %",
    )


def peers_table(result: PeersResult) -> str:
    """Return the peers' latency, throughput, factor and agreement."""
    ours = next(row for row in result.rows if row.engine == "ours")
    headings = (
        *("what", "p50 ms", "p99 ms", "n", "requests/s", f"{ours.name} is faster by"),
        *("τ-b with it", "τ-b with fp32", "client's CPU", "failed"),
    )
    there = [row for row in result.rows if not row.missing]
    text = table(headings, (_peer_cells(row, ours) for row in there))
    details = "\n".join(f"- {row.name}: {row.detail}." for row in there)
    missing = "\n".join(f"- {row.name}: {row.missing}" for row in result.rows if row.missing)
    absent = f"\n\nNot measured:\n\n{missing}" if missing else ""
    return f"{text}\n\nSettings:\n\n{details}{absent}"


def _peer_cells(row: PeerRow, ours: PeerRow) -> Cells:
    faster = median_ratio(ours.requests_per_s, row.requests_per_s)
    return (
        row.name,
        f"{percentile(row.latencies_ms, 50):,.0f}",
        p99(row.latencies_ms),
        str(len(row.latencies_ms)),
        f"{median(row.requests_per_s):.2f}",
        "" if row is ours else f"{faster:.2f} ×",
        _tau(row.tau_ours),
        _tau(row.tau_fp32),
        "" if row.client_cpu is None else f"{100 * row.client_cpu:.1f} %",
        str(row.failures),
    )


def _tau(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def p99(values: Sequence[float], digits: int = 0) -> str:
    """Return the 99th percentile, or, of few values, the largest, marked as such."""
    if len(values) < FEW:
        return f"≤ {percentile(values, 100):,.{digits}f}"
    return f"{percentile(values, 99):,.{digits}f}"


def front_end_table(result: FrontEndResult) -> str:
    """Return the overheads."""
    headings = ("what", "overhead p50 ms", "p99 ms", "latency p50 ms", "p99 ms", "n")
    return table(
        headings,
        (
            (
                row.name,
                f"{percentile(row.overheads_ms, 50):.2f}",
                p99(row.overheads_ms, 2),
                f"{percentile(row.latencies_ms, 50):.1f}",
                p99(row.latencies_ms, 1),
                str(len(row.overheads_ms)),
            )
            for row in result.rows
        ),
    )


def cost_table(result: CostResult) -> str:
    """Return latency and tokens/s by number and by length of documents."""
    headings = ("what", "candidates", "tokens each", "tokens", "p50 ms", "n", "tokens/s")
    return table(
        headings,
        (
            (
                row.name,
                str(row.candidates),
                "real" if row.document_tokens is None else str(row.document_tokens),
                f"{row.tokens:,.0f}",
                f"{percentile(row.latencies_ms, 50):,.1f}",
                str(len(row.latencies_ms)),
                f"{1000 * row.tokens / percentile(row.latencies_ms, 50):,.0f}",
            )
            for row in result.rows
        ),
    )


def cache_table(result: CacheResult) -> str:
    """Return the factor of warm caches."""
    headings = ("what", "factor", "p50 ms on", "off", "p99 ms on", "off", "tokens run with caches")
    rows = (
        (
            row.name,
            f"{sum(row.off_s) / sum(row.on_s):.2f} ×",
            f"{percentile(row.on_ms, 50):.1f}",
            f"{percentile(row.off_ms, 50):.1f}",
            p99(row.on_ms),
            p99(row.off_ms),
            f"{100 * row.run_share:.0f} %",
        )
        for row in result.rows
    )
    return (
        f"{table(headings, rows)}\n\n{result.requests} requests by one client, "
        f"{100 * result.repeated:.0f} % of them asked before. The factor is that of the time for "
        "the whole log, cold start included."
    )
