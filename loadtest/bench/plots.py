"""The plots beside the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.bench.results import CostResult, Measured, PeerRow, PeersResult
from loadtest.figure import Figure
from loadtest.statistics import median, percentile

COLOURS = {"ours": "#c8102e", "onnx": "#1f6f8b", "torch": "#7a7a7a"}
STYLES = ("-", "--", ":", "-.")


def draw(results: Mapping[str, Measured[Any]], folder: Path) -> dict[str, list[str]]:
    """Write the plots of the measured sections and return their names by section."""
    drawn: dict[str, list[str]] = {}
    if "peers" in results:
        rows = [row for row in results["peers"].result.rows if row.latencies_ms]
        _latency(rows, folder / "latency.png")
        _throughput(results["peers"].result, folder / "throughput.png")
        drawn["peers"] = ["latency.png", "throughput.png"]
    if "cost" in results:
        _cost(results["cost"].result, folder / "cost.png")
        drawn["cost"] = ["cost.png"]
    return drawn


def _latency(rows: list[PeerRow], path: Path) -> None:
    with Figure(path, (8, 4.5)) as (axes,):
        seen: dict[str, int] = {}
        for row in rows:
            place = seen[row.engine] = seen.get(row.engine, -1) + 1
            ranked = np.sort(row.latencies_ms)
            shares = np.arange(1, len(ranked) + 1) / len(ranked)
            style = STYLES[place % len(STYLES)]
            colour = COLOURS[row.engine]
            axes.step(ranked, shares, style, color=colour, label=row.name, where="post")
        axes.set(
            xscale="log",
            xlabel="latency in ms, one client, 48 candidates",
            ylabel="share of requests answered within",
            ylim=(0, 1.02),
        )
        axes.legend(fontsize=8, loc="lower right")


def _throughput(result: PeersResult, path: Path) -> None:
    rows = sorted(
        (r for r in result.rows if r.requests_per_s), key=lambda r: median(r.requests_per_s)
    )
    with Figure(path, (8, 0.6 + 0.45 * len(rows))) as (axes,):
        rates = [median(row.requests_per_s) for row in rows]
        spreads = [
            [rate - min(row.requests_per_s) for rate, row in zip(rates, rows, strict=True)],
            [max(row.requests_per_s) - rate for rate, row in zip(rates, rows, strict=True)],
        ]
        colours = [COLOURS[row.engine] for row in rows]
        bars = axes.barh([row.name for row in rows], rates, xerr=spreads, color=colours, capsize=2)
        axes.bar_label(bars, [f"{rate:.1f}" for rate in rates], padding=6, fontsize=8)
        axes.set(xlabel=f"requests/s at saturation, {result.candidates} candidates each")


def _cost(result: CostResult, path: Path) -> None:
    with Figure(path, (9, 4), columns=2) as (by_count, by_length):
        for style, name in zip(
            STYLES, dict.fromkeys(row.name for row in result.rows), strict=False
        ):
            rows = [row for row in result.rows if row.name == name]
            for axes, real in ((by_count, True), (by_length, False)):
                chosen = [row for row in rows if (row.document_tokens is None) == real]
                xs = [row.document_tokens or row.candidates for row in chosen]
                ys = [percentile(row.latencies_ms, 50) for row in chosen]
                axes.plot(xs, ys, f"o{style}", color=COLOURS["ours"], label=name)
        by_count.set(xscale="log", yscale="log", xlabel="candidates", ylabel="p50 latency in ms")
        by_length.set(xlabel="tokens a document, 48 candidates", ylim=(0, None))
        by_count.legend(fontsize=8)
