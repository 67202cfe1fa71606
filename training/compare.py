"""Comparison of systems on judged sets: paired differences, tests, and ΔGSB."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.evaluate import summarise
from training.figures import Estimate, JudgedScores, query_figures, resample
from training.judged import JudgedQueries, read_judged_queries
from training.judgements import Gsb, count_judgements, judge_by_grades, read_judgements
from training.recipe import EvaluateRecipe
from training.significance import Tested, difference, holm, p_text, randomisation_test
from training.systems import load_systems

GSB_DEPTH = 5
"""Documents that graded labels judge side by side by."""


@dataclass(frozen=True, slots=True)
class Row:
    """One test: a system against the baseline by one figure."""

    system: str
    figure: str
    difference: Estimate | Gsb
    tested: Tested
    p_holm: float

    def as_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "system": self.system,
            "figure": self.figure,
            "difference": _plain(self.difference),
            "p": _number(self.tested.p),
            "draws": self.tested.draws,
            "seed": self.tested.seed,
            "p_holm": _number(self.p_holm),
        }


def compare(
    recipe: EvaluateRecipe,
    *,
    data: Path,
    models: Sequence[Path],
    json_to: Path | None = None,
    seed: int = 0,
) -> None:
    """Print, for each set, every system's figures and each one's difference to the first.

    Args:
        recipe: The judged sets.
        data: Folder they lie in.
        models: Paths of bundles, checkpoints, label folders or TREC runs; the first is the
            baseline.
        json_to: Where to write the tests as JSON too.
        seed: Of the bootstrap and of the randomisation test.

    Raises:
        RecipeError: A set or a system cannot be read.
    """
    systems = load_systems(list(models))
    found = {}
    for source in recipe.sets:
        judged = read_judged_queries(source, data)
        scored = {system.name: judged.score(system) for system in systems}
        rows = compare_scores(scored, recipe, seed=seed)
        print(_section(judged, scored, rows, recipe, seed), flush=True)
        found[judged.name] = [row.as_dict() for row in rows]
    if json_to is not None:
        json_to.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def compare_scores(
    scored: Mapping[str, Sequence[JudgedScores]], recipe: EvaluateRecipe, *, seed: int = 0
) -> list[Row]:
    """Return every figure of every system tested against the first system.

    Holm's correction counts all tests that are returned: each system times each figure.

    Args:
        scored: Scores of the same queries in the same order, by system; the baseline first.
        recipe: Gain and relevance.
        seed: Of the bootstrap and of the randomisation test.
    """
    (_, base), *others = scored.items()
    picks = resample(len(base), seed=seed)
    baseline = query_figures(base, gain=recipe.gain, relevant_from=recipe.relevant_from)
    tests: list[tuple[str, str, Estimate | Gsb, Tested]] = []
    for name, scores in others:
        figures = query_figures(scores, gain=recipe.gain, relevant_from=recipe.relevant_from)
        for figure, values in figures.items():
            gap = difference(values, baseline[figure], picks)
            tested = randomisation_test(values, baseline[figure], seed=seed)
            tests.append((name, figure, gap, tested))
        gsb = judge_by_grades(scores, base, k=GSB_DEPTH)
        tests.append((name, f"ΔGSB of the top {GSB_DEPTH}", gsb, Tested(gsb.p, 0, seed)))
    adjusted = holm([tested.p for *_, tested in tests])
    return [Row(*test, p) for test, p in zip(tests, adjusted, strict=True)]


def print_judgements(path: Path) -> None:
    """Print ΔGSB of every pair of systems in a judgements file.

    Raises:
        RecipeError: The file cannot be read.
    """
    pairs = count_judgements(read_judgements(path))
    adjusted = holm([gsb.p for gsb in pairs.values()])
    print("| system | against | ΔGSB (good : same : bad) | p | p (Holm) |\n|---|---|---|---|---|")
    for ((system, other), gsb), p in zip(pairs.items(), adjusted, strict=True):
        print(f"| {system} | {other} | {gsb} | {p_text(gsb.p)} | {p_text(p)} |")


def _section(
    judged: JudgedQueries,
    scored: Mapping[str, Sequence[JudgedScores]],
    rows: Sequence[Row],
    recipe: EvaluateRecipe,
    seed: int,
) -> str:
    baseline = next(iter(scored))
    draws = max((row.tested.draws for row in rows), default=0)
    how = f"{draws:,} random swaps, seed {seed}" if draws else "every swap"
    lines = [
        f"## {judged.name}\n",
        f"{len(judged.examples)} queries. 95 % bootstrap intervals over queries; p of the paired "
        f"randomisation test ({how}; exact where 16 queries or fewer differ) and, for ΔGSB, of the "
        f"exact sign test, both two-sided; Holm over the {len(rows)} tests of this set.\n",
        f"| system | nDCG@5 ({recipe.gain}) | nDCG@10 ({recipe.gain}) | MRR@10 | PNR "
        "| pairwise accuracy |\n|---|---|---|---|---|---|",
        *(_figures(name, scores, recipe, seed) for name, scores in scored.items()),
        f"\n| system | figure | less {baseline} | p | p (Holm) |\n|---|---|---|---|---|",
        *(_difference(row) for row in rows),
        "",
    ]
    return "\n".join(lines)


def _figures(name: str, scores: Sequence[JudgedScores], recipe: EvaluateRecipe, seed: int) -> str:
    found = summarise(scores, relevant_from=recipe.relevant_from, gain=recipe.gain, seed=seed)
    figures = (
        found.ndcg_at_5,
        found.ndcg_at_10,
        found.mrr_at_10,
        found.pnr,
        found.pairwise_accuracy,
    )
    return " | ".join((f"| {name}", *map(str, figures))) + " |"


def _difference(row: Row) -> str:
    gap = row.difference
    text = str(gap)
    if isinstance(gap, Estimate):
        text = f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    return f"| {row.system} | {row.figure} | {text} | {row.tested} | {p_text(row.p_holm)} |"


def _plain(found: Estimate | Gsb) -> dict[str, float | int | None]:
    if isinstance(found, Gsb):
        return {
            "delta": _number(found.delta),
            "good": found.good,
            "same": found.same,
            "bad": found.bad,
        }
    return {
        "value": _number(found.value),
        "low": _number(found.low),
        "high": _number(found.high),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
