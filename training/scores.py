"""Score report: what several scorers' scores of the same pairs look like, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from service.contract.folder import replaced_folder
from training.calibration import Reliability, cross_fitted, reliability, sigmoid
from training.distributions import (
    QUANTILES,
    Likeness,
    ScoredPairs,
    common_pairs,
    likenesses,
    quantiles,
)
from training.figures import Floats
from training.judged import JudgedQueries, read_judged_queries
from training.plots import draw_histograms, draw_reliability
from training.recipe import EvaluateRecipe
from training.systems import System, load_systems

NOTES = """\
PSI has the first scorer's deciles as its bins (below 0.1 stable, above 0.25 a shift, by custom); \
KS is the greatest distance of the two distribution functions. Standardised: each scorer's scores \
less their mean, over their deviation, which compares shapes whatever the scales. τ-b and the \
overlap of the top 10 are means over queries.

A pair is relevant from grade {relevant_from:g}. "Fitted" probabilities are Platt's, each query's \
from a fit on the other half of the queries (halved by hash); "as served" ones are the model's own \
scale and offset. ECE is over ten equal bins.
"""


def write_scores(recipe: EvaluateRecipe, *, data: Path, models: Sequence[Path], out: Path) -> None:
    """Write `report.md` and its plots into a folder, which replaces an older one in one step.

    Args:
        recipe: The judged sets.
        data: Folder they lie in.
        models: Paths of bundles, checkpoints, label folders or TREC runs (whose score column
            should then be the scorer's own); PSI takes the earlier one as its reference.
        out: The report's folder.

    Raises:
        RecipeError: A set or a scorer cannot be read, or no pair is scored by all.
    """
    systems = load_systems(list(models))
    with replaced_folder(out) as folder:
        parts = ["# Scores\n", NOTES.format(relevant_from=recipe.relevant_from)]
        for number, source in enumerate(recipe.sets, start=1):
            judged = read_judged_queries(source, data)
            parts.append(f"## {judged.name}\n")
            parts.extend(score_section(judged, systems, recipe.relevant_from, folder, number))
        (folder / "report.md").write_text("\n".join(parts) + "\n", encoding="utf-8")


def score_section(
    judged: JudgedQueries,
    systems: Sequence[System],
    relevant_from: float,
    folder: Path,
    number: int,
) -> list[str]:
    """Return a set's part of the report, and write its plots, which have the number, to folder.

    Raises:
        RecipeError: No pair is scored by all systems.
    """
    pairs = common_pairs({system.name: judged.score(system) for system in systems})
    tables = _reliabilities(judged, systems, pairs, relevant_from)
    histograms, curves = f"scores-{number}.png", f"calibration-{number}.png"
    draw_histograms(pairs.standardised, folder / histograms)
    draw_reliability(tables, folder / curves)
    return [
        f"{len(pairs.grades):,} pairs of {len(pairs.queries):,} queries; {pairs.left_out:,} pairs "
        "left out that some scorer has no score for.\n",
        _quantile_table(pairs),
        f"\n![standardised scores]({histograms})\n",
        *([_likeness_table(likenesses(pairs))] if len(systems) > 1 else []),
        f"\n![calibration]({curves})\n",
        _reliability_table(tables),
        "",
    ]


def _reliabilities(
    judged: JudgedQueries, systems: Sequence[System], pairs: ScoredPairs, relevant_from: float
) -> dict[str, Reliability]:
    relevant = pairs.grades >= relevant_from
    texts = [
        example.query
        for example, query in zip(judged.examples, pairs.queries, strict=True)
        for _ in range(query.stop - query.start)
    ]
    found = {}
    for system in systems:
        scores = pairs.scores[system.name]
        fitted = cross_fitted(scores, relevant, texts)
        found[f"{system.name}, fitted"] = reliability(fitted, relevant)
        if system.relevance is not None:
            served = sigmoid(system.relevance.scale * scores + system.relevance.offset)
            found[f"{system.name}, as served"] = reliability(served, relevant)
    return found


def _quantile_table(pairs: ScoredPairs) -> str:
    names = " | ".join(f"{share:.0%}" for share in QUANTILES)
    lines = [f"| scorer | mean | deviation | {names} |", "|---" * (len(QUANTILES) + 3) + "|"]
    for name, scores in pairs.scores.items():
        lines.append(_cells(name, float(scores.mean()), float(scores.std()), quantiles(scores)))
    return "\n".join(lines)


def _cells(name: str, mean: float, deviation: float, values: Floats) -> str:
    return f"| {name} | " + " | ".join(f"{v:.3f}" for v in (mean, deviation, *values)) + " |"


def _likeness_table(found: Sequence[Likeness]) -> str:
    lines = [
        "| scorers | PSI | KS | PSI standardised | KS standardised | τ-b | top-10 overlap |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        figures = (one.psi, one.ks, one.psi_standardised, one.ks_standardised)
        cells = " | ".join(f"{value:.3f}" for value in (*figures, one.tau_b, one.top_10))
        lines.append(f"| {one.first} / {one.second} | {cells} |")
    return "\n".join(lines)


def _reliability_table(tables: dict[str, Reliability]) -> str:
    lines = [
        "| probabilities | ECE | bin | pairs | mean probability | relevant |",
        "|---|---|---|---|---|---|",
    ]
    for name, table in tables.items():
        for place, part in enumerate(table.bins):
            head = f"| {name} | {table.ece:.4f}" if place == 0 else "| | "
            lines.append(
                f"{head} | {part.low:.1f}–{part.high:.1f} | {part.pairs:,} "
                f"| {part.mean_probability:.3f} | {part.relevant_share:.3f} |"
            )
    return "\n".join(lines)
