"""The heart of a pipeline's report: how its systems rank on each judged set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.figures import Estimate
from training.judged import JudgedQueries, read_judged_queries
from training.pipeline.comparison import Comparison, Measured, compare_arms
from training.pipeline.recipe import Figure, ReportOptions
from training.pipeline.scored import Arm
from training.pipeline.table import table
from training.recipe import EvaluatedSet, EvaluateRecipe, JudgedSet
from training.scores import score_section
from training.significance import p_text

TITLES: dict[Figure, str] = {
    "ndcg_at_5": "nDCG@5",
    "ndcg_at_10": "nDCG@10",
    "mrr_at_10": "MRR@10",
    "pnr": "PNR",
    "pairwise_accuracy": "pairwise accuracy",
}

PROTOCOL = """\
A query's figure is its mean over the seeds, its pairs are those of all seeds together. Brackets: \
95 % bootstrap intervals over queries; below them, the seeds' least and greatest. \
nDCG has {gain} gain; MRR counts grades from {relevant_from:g}; PNR pools pairs within queries, \
ties count for neither.
"""
CHOSEN = """\
Checkpoints were chosen and calibrated by these very queries, so their figures are somewhat too \
good beside systems that were not.
"""
TESTS = """\
p: two-sided paired randomisation test over queries, of PNR as its pairwise accuracy; Holm's \
correction over the set's {tests} tests. PNR's difference is in per cent of the baseline's.
"""


@dataclass(frozen=True, slots=True)
class Ranking:
    """What is compared on what.

    Attributes:
        options: Figures, baseline, and whose scores are shown.
        sets: The judged sets.
        arms: The systems that have finished with one seed at least.
        data: Folder of the sets.
        scores: Folder of the scores that are kept.
        chosen_on: (path, split, part) of the sets by which the stages chose their checkpoints.
    """

    options: ReportOptions
    sets: EvaluateRecipe
    arms: Sequence[Arm]
    data: Path
    scores: Path
    chosen_on: frozenset[tuple[str | None, ...]]

    def parts(self, folder: Path) -> Iterator[str]:
        """Yield the report's parts in Markdown; plots are written to folder.

        Raises:
            RecipeError: A set or a system cannot be read.
        """
        yield "## Ranking\n"
        yield PROTOCOL.format(gain=self.sets.gain, relevant_from=self.sets.relevant_from)
        for number, source in enumerate(self.sets.sets, start=1):
            judged = read_judged_queries(source, self.data)
            yield f"### {judged.name}\n"
            if self._chose(source):
                yield CHOSEN
            yield from self._compared(judged)
            yield from self._distributions(judged, folder, number)

    def _chose(self, source: EvaluatedSet) -> bool:
        if not isinstance(source, JudgedSet):
            return False
        return (source.path, source.split, source.part) in self.chosen_on

    def _compared(self, judged: JudgedQueries) -> Iterator[str]:
        scored = {arm.name: arm.score(judged, self.scores) for arm in self.arms}
        if silent := [name for name, runs in scored.items() if not runs]:
            yield f"No scores of this set: {', '.join(silent)}.\n"
        scored = {name: runs for name, runs in scored.items() if runs}
        if judged.first_stage_name is not None:
            scored[judged.first_stage_name] = [judged.first_stage()]
        if not scored:
            return
        baseline = self.options.baseline or self.options.systems[0]
        found = compare_arms(
            scored,
            self.options.figures,
            baseline=baseline,
            gain=self.sets.gain,
            relevant_from=self.sets.relevant_from,
        )
        yield f"{len(judged.examples):,} queries.\n"
        yield _figures_table(found, self.options.figures)
        if found.gaps:
            yield _gaps_table(found, baseline)
            yield TESTS.format(tests=found.tests)

    def _distributions(self, judged: JudgedQueries, folder: Path, number: int) -> Iterator[str]:
        """Yield how the chosen systems' scores are distributed, of the first seed each."""
        first = {arm.name: arm.runs[0] for arm in self.arms}
        runs = [first[name] for name in self.options.scores if name in first]
        recorded = [run.recorded(judged, self.scores) for run in runs]
        if known := [one for one in recorded if one is not None]:
            yield "#### Scores\n"
            yield from score_section(judged, known, self.sets.relevant_from, folder, number)


def _figures_table(found: Comparison, figures: Sequence[Figure]) -> str:
    rows = [
        [name, str(len(cells[figures[0]].seeds)), *(_cell(cells[figure]) for figure in figures)]
        for name, cells in found.measured.items()
    ]
    return table(["system", "seeds", *(TITLES[figure] for figure in figures)], rows)


def _cell(found: Measured) -> str:
    value, _, interval = str(found.estimate).partition(" ")
    lines = [value, f"<small>{interval}</small>"]
    if len(found.seeds) > 1:
        lines.append(f"<small>{min(found.seeds):.4f} – {max(found.seeds):.4f}</small>")
    return "<br>".join(lines)


def _gaps_table(found: Comparison, baseline: str) -> str:
    rows = [
        [name, TITLES[figure], _gap(figure, gap.difference), str(gap.tested), p_text(gap.p_holm)]
        for name, gaps in found.gaps.items()
        for figure, gap in gaps.items()
    ]
    return table(["system", "figure", f"less {baseline}", "p", "p (Holm)"], rows)


def _gap(figure: Figure, gap: Estimate) -> str:
    if figure == "pnr":
        return f"{gap.value:+.1%} [{gap.low:+.1%}, {gap.high:+.1%}]"
    return f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
