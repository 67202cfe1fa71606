"""Plots of the score report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from training.calibration import Reliability
from training.figures import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 60


def draw_histograms(scores: Mapping[str, Floats], path: Path) -> None:
    """Draw every scorer's standardised scores over the same bins."""
    low = min(float(values.min()) for values in scores.values())
    high = max(float(values.max()) for values in scores.values())
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    with _axes(path, (8, 4)) as axes:
        for name, values in scores.items():
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, label=name)
        axes.set(xlabel="standardised score", ylabel="share of the pairs", ylim=(0, None))
        axes.legend(fontsize=8)


def draw_reliability(tables: Mapping[str, Reliability], path: Path) -> None:
    """Draw the share of relevant pairs over the mean probability of each bin."""
    with _axes(path, (5, 5)) as axes:
        axes.plot([0, 1], [0, 1], ":", color="#7a7a7a", label="calibrated")
        for name, table in tables.items():
            means = [part.mean_probability for part in table.bins]
            shares = [part.relevant_share for part in table.bins]
            axes.plot(means, shares, "o-", markersize=4, label=f"{name}: ECE {table.ece:.3f}")
        axes.set(
            xlabel="mean probability", ylabel="share that is relevant", xlim=(0, 1), ylim=(0, 1)
        )
        axes.legend(fontsize=8)


@contextmanager
def _axes(path: Path, inches: tuple[float, float]) -> Iterator[Axes]:
    """Yield axes whose figure is written at the end of the block, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.grid(visible=True, alpha=0.3)
    yield axes
    # Without matplotlib's version in the file, equal figures are equal bytes.
    figure.savefig(path, dpi=120, metadata={"Software": None})
