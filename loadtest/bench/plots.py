"""The plots beside the report."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.bench.results import CostResult, Measured, PeerRow, PeersResult
from loadtest.figure import Figure
from loadtest.statistics import median, percentile

COLOURS = {
    "ours": ("#c8102e", "#f0868f"),
    "onnx": ("#1f6f8b", "#2a9d8f", "#e9a23b", "#6a4c93", "#3a86ff", "#8d6e63"),
    "torch": ("#555555", "#aaaaaa"),
}


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
    colours = _colours(rows)
    with Figure(path, (10, 4.5)) as (axes,):
        for row in rows:
            ranked = np.sort(row.latencies_ms)
            shares = np.arange(1, len(ranked) + 1) / len(ranked)
            axes.step(ranked, shares, color=colours[row.name], label=row.name, where="post")
        axes.set(
            xscale="log",
            xlabel="latency in ms, one client, 48 candidates",
            ylabel="share of requests answered within",
            ylim=(0, 1.02),
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _throughput(result: PeersResult, path: Path) -> None:
    there = (row for row in result.rows if row.requests_per_s)
    rows = sorted(there, key=lambda row: median(row.requests_per_s))
    colours = _colours(result.rows)
    rates = [median(row.requests_per_s) for row in rows]
    below = [rate - min(row.requests_per_s) for rate, row in zip(rates, rows, strict=True)]
    above = [max(row.requests_per_s) - rate for rate, row in zip(rates, rows, strict=True)]
    with Figure(path, (9, 0.8 + 0.4 * len(rows))) as (axes,):
        bars = axes.barh(
            [row.name for row in rows],
            rates,
            xerr=[below, above],
            color=[colours[row.name] for row in rows],
            capsize=2,
        )
        axes.bar_label(bars, [f"{rate:.1f}" for rate in rates], padding=6, fontsize=8)
        axes.margins(x=0.1)
        axes.set(
            xlabel=f"requests/s at saturation, {result.candidates} candidates each: "
            "median, least and most of the rounds"
        )


def _colours(rows: Iterable[PeerRow]) -> dict[str, str]:
    """Return a colour for each row, ours apart from the rest."""
    palettes = {engine: itertools.cycle(colours) for engine, colours in COLOURS.items()}
    return {row.name: next(palettes[row.engine]) for row in rows}


def _cost(result: CostResult, path: Path) -> None:
    names = dict.fromkeys(row.name for row in result.rows)
    with Figure(path, (9, 4), columns=2) as (by_count, by_length):
        for colour, name in zip(itertools.cycle(COLOURS["ours"]), names, strict=False):
            rows = [row for row in result.rows if row.name == name]
            for axes, real in ((by_count, True), (by_length, False)):
                chosen = [row for row in rows if (row.document_tokens is None) == real]
                xs = [row.document_tokens or row.candidates for row in chosen]
                ys = [percentile(row.latencies_ms, 50) for row in chosen]
                axes.plot(xs, ys, "o-", color=colour, label=name)
        by_count.set(xscale="log", yscale="log", xlabel="candidates", ylabel="p50 latency in ms")
        by_count.xaxis.set_major_formatter("{x:g}")
        by_count.yaxis.set_major_formatter("{x:g}")
        by_length.set(xlabel="tokens a document, 48 candidates", ylim=(0, None))
        by_count.legend(fontsize=8)
