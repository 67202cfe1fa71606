"""Learning curves of a pipeline's finished stages, from what their checkpoints say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.pipeline.plan import Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CARDS = {
    "cpt": "cpt.json",
    "sft": "disranker.json",
    "rra_gpt": "disranker.json",
    "distill": "disranker.json",
    "layerwise": "disranker.json",
}
VALIDATION = {
    "cpt": "held_out_loss",
    "sft": "ndcg_at_10",
    "rra_gpt": "ndcg_at_10",
    "distill": "ndcg_at_10",
    "layerwise": "held_out_loss",
}
TITLES = {"held_out_loss": "held-out loss", "ndcg_at_10": "validation nDCG@10"}


@dataclass(frozen=True, slots=True)
class Curve:
    """A run's evaluations: its training loss since the last one, and its validation figure."""

    stage: str
    name: str
    steps: tuple[float, ...]
    losses: tuple[float, ...]
    figures: tuple[float, ...]


def read_curves(steps: Sequence[Step]) -> list[Curve]:
    """Return the curves of those steps that were evaluated twice or more, in their order."""
    curves = [_curve(step) for step in steps if step.stage.stage in CARDS]
    return [curve for curve in curves if len(curve.steps) > 1]


def draw_curves(curves: Sequence[Curve], path: Path) -> None:
    """Draw loss and validation figure by step, a row each kind of stage, a colour each stage."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(curve.stage for curve in curves))
    figure = Figure(figsize=(9, 3 * len(kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(kinds), 2, squeeze=False)
    for kind, row in zip(kinds, rows, strict=True):
        of_kind = [curve for curve in curves if curve.stage == kind]
        _draw(row[0], {curve: curve.losses for curve in of_kind}, f"{kind}: training loss")
        title = f"{kind}: {TITLES[VALIDATION[kind]]}"
        _draw(row[1], {curve: curve.figures for curve in of_kind}, title)
        row[1].legend(fontsize=8)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _draw(axes: Axes, lines: Mapping[Curve, Sequence[float]], title: str) -> None:
    names = list(dict.fromkeys(curve.name for curve in lines))
    labelled: set[str] = set()
    for curve, values in lines.items():
        label = "_" if curve.name in labelled else curve.name
        labelled.add(curve.name)
        colour = f"C{names.index(curve.name) % 10}"
        axes.plot(curve.steps, values, ".-", color=colour, label=label, linewidth=1.2)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.grid(visible=True, alpha=0.3)


def _curve(step: Step) -> Curve:
    stage = step.stage.stage
    rows = list(_history(step.output / CARDS[stage]))
    return Curve(
        stage,
        step.stage.name,
        tuple(row["step"] for row in rows),
        tuple(row["loss"] for row in rows),
        tuple(row[VALIDATION[stage]] for row in rows),
    )


def _history(card: Path) -> Iterator[dict[str, float]]:
    fields: dict[str, Any] = json.loads(card.read_text(encoding="utf-8"))
    yield from fields.get("metrics", fields).get("history", ())
