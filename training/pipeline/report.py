"""A pipeline's report: how its systems compare, how they learnt, and what was run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.contract.bundle import Bundle
from service.contract.folder import replaced_folder
from training.figures import Estimate
from training.judged import JudgedQueries, read_judged_queries
from training.pipeline.clock import duration
from training.pipeline.comparison import Comparison, Measured, compare_arms
from training.pipeline.curves import draw_curves, read_curves
from training.pipeline.machine import describe_machine, describe_versions
from training.pipeline.marks import Mark
from training.pipeline.page import html_page
from training.pipeline.pipeline import Pipeline
from training.pipeline.plan import Step
from training.pipeline.recipe import Figure, ReportOptions
from training.pipeline.scored import Arm, arms_of
from training.recipe import EvaluateRecipe, RecipeError
from training.scores import score_section

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
PARITY = {
    "max_delta": "largest Δ",
    "kendall_tau": "Kendall τ",
    "top10_overlap": "top-10 overlap",
    "ndcg_drop": "nDCG@10 drop",
}
TESTS = """\
p: two-sided paired randomisation test over queries, of PNR as its pairwise accuracy; Holm's \
correction over the set's {tests} tests. PNR's difference is in per cent of the baseline's.
"""


def write_report(pipeline: Pipeline) -> Path:
    """Write `report.md`, its plots and `report.html` on what is finished; return the page's path.

    The folder is replaced whole. Scores are kept beside it, so that only new systems are run.

    Raises:
        RecipeError: There is nothing to report on, or a set or a system cannot be read.
    """
    done = pipeline.finished()
    finished = [step for step in pipeline.steps if step.name in done]
    if not finished:
        raise RecipeError(f"{pipeline.folder}: no stage is finished yet")
    target = pipeline.folder / "report"
    with replaced_folder(target) as folder:
        text = "\n".join(_parts(pipeline, finished, done, folder))
        (folder / "report.md").write_text(text, encoding="utf-8")
        page = html_page(text, title=pipeline.recipe.name, folder=folder)
        (folder / "report.html").write_text(page, encoding="utf-8")
    return target / "report.html"


def _parts(
    pipeline: Pipeline, finished: Sequence[Step], done: Mapping[str, Mark], folder: Path
) -> Iterator[str]:
    yield _head(pipeline, finished)
    if pipeline.recipe.report is not None and pipeline.sets is not None:
        yield from _quality(pipeline, pipeline.recipe.report, pipeline.sets, done, folder)
    if curves := read_curves(finished):
        draw_curves(curves, folder / "curves.png")
        yield "## Learning curves\n\n![loss and validation figure by step](curves.png)\n"
    yield from _bundles(finished)
    yield from _latency(finished)
    yield from _what_was_run(finished, done)


def _head(pipeline: Pipeline, finished: Sequence[Step]) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"# {pipeline.recipe.name}\n"]
    count = len(pipeline.steps)
    lines.append(f"{len(finished)} of {count} steps finished by {now}.")
    names = {step.name for step in finished}
    if missing := [step.name for step in pipeline.steps if step.name not in names]:
        lines.append(f"Still to come: {', '.join(missing)}.")
    return "\n".join([*lines, ""])


def _quality(
    pipeline: Pipeline,
    options: ReportOptions,
    sets: EvaluateRecipe,
    done: Mapping[str, Mark],
    folder: Path,
) -> Iterator[str]:
    arms = [arm for arm in arms_of(pipeline, done) if arm.runs]
    yield "## Ranking\n"
    yield PROTOCOL.format(gain=sets.gain, relevant_from=sets.relevant_from)
    for number, source in enumerate(sets.sets, start=1):
        judged = read_judged_queries(source, pipeline.data)
        yield from _set(pipeline, options, sets, arms, judged)
        yield from _scores(pipeline, options, sets, arms, judged, folder, number)


def _set(
    pipeline: Pipeline,
    options: ReportOptions,
    sets: EvaluateRecipe,
    arms: Sequence[Arm],
    judged: JudgedQueries,
) -> Iterator[str]:
    scored = {arm.name: arm.score(judged, pipeline.folder / "scores") for arm in arms}
    silent = [name for name, runs in scored.items() if not runs]
    scored = {name: runs for name, runs in scored.items() if runs}
    if judged.first_stage_name is not None:
        scored[judged.first_stage_name] = [judged.first_stage()]
    yield f"### {judged.name}\n"
    if silent:
        yield f"No scores of this set: {', '.join(silent)}.\n"
    if not scored:
        return
    baseline = options.baseline or options.systems[0]
    found = compare_arms(
        scored,
        options.figures,
        baseline=baseline,
        gain=sets.gain,
        relevant_from=sets.relevant_from,
    )
    yield _figures_table(found, options.figures, len(judged.examples))
    if found.gaps:
        yield _gaps_table(found, baseline)
        yield TESTS.format(tests=found.tests)


def _scores(
    pipeline: Pipeline,
    options: ReportOptions,
    sets: EvaluateRecipe,
    arms: Sequence[Arm],
    judged: JudgedQueries,
    folder: Path,
    number: int,
) -> Iterator[str]:
    """Yield how the chosen systems' scores are distributed, of the first seed each."""
    runs = [arm.runs[0] for arm in arms if arm.name in options.scores]
    recorded = [run.recorded(judged, pipeline.folder / "scores") for run in runs]
    if known := [one for one in recorded if one is not None]:
        yield "#### Scores\n"
        yield from score_section(judged, known, sets.relevant_from, folder, number)


def _figures_table(found: Comparison, figures: Sequence[Figure], queries: int) -> str:
    heads = ["system", "seeds", *(TITLES[figure] for figure in figures)]
    rows = [
        [name, str(len(cells[figures[0]].seeds)), *(_cell(cells[figure]) for figure in figures)]
        for name, cells in found.measured.items()
    ]
    return f"{queries} queries.\n\n{table(heads, rows)}"


def _cell(found: Measured) -> str:
    value, _, interval = str(found.estimate).partition(" ")
    lines = [value, f"<small>{interval}</small>"]
    if len(found.seeds) > 1:
        lines.append(f"<small>{min(found.seeds):.4f} – {max(found.seeds):.4f}</small>")
    return "<br>".join(lines)


def _gaps_table(found: Comparison, baseline: str) -> str:
    heads = ["system", "figure", f"less {baseline}", "p", "p (Holm)"]
    rows = [
        [name, TITLES[figure], _gap(figure, gap.difference), str(gap.tested), f"{gap.p_holm:.4f}"]
        for name, gaps in found.gaps.items()
        for figure, gap in gaps.items()
    ]
    return table(heads, rows)


def _gap(figure: Figure, gap: Estimate) -> str:
    if figure == "pnr":
        return f"{gap.value:+.1%} [{gap.low:+.1%}, {gap.high:+.1%}]"
    return f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


def _bundles(finished: Sequence[Step]) -> Iterator[str]:
    rows = []
    for step in finished:
        if step.stage.stage != "export":
            continue
        manifest = Bundle.open(step.output).manifest
        size = sum(entry.size_bytes for entry in manifest.files.values()) / 1e6
        found: Any = manifest.metrics.get("parity", {})
        for engine, parity in found.items():
            rows.append(
                [step.name, manifest.version[:12], f"{size:.1f} MB", engine, *_parity(parity)]
            )
    if rows:
        yield "## Bundles\n\nEach model's scores against its checkpoint's.\n"
        yield table(["bundle", "version", "size", "model", *PARITY.values()], rows)


def _parity(parity: Mapping[str, float | None]) -> list[str]:
    return ["–" if parity.get(name) is None else f"{parity[name]:.4f}" for name in PARITY]


def _latency(finished: Sequence[Step]) -> Iterator[str]:
    for step in finished:
        if step.stage.stage == "latency":
            fields = json.loads(step.output.read_text(encoding="utf-8"))
            yield f"## Latency\n\n{fields['report']}\n"


def _what_was_run(finished: Sequence[Step], done: Mapping[str, Mark]) -> Iterator[str]:
    total = sum(done[step.name].seconds for step in finished)
    yield "## What was run\n"
    yield f"{describe_machine()}. {describe_versions()}.\n"
    rows = [
        [
            step.name,
            duration(done[step.name].seconds),
            f"{done[step.name].finished_at:.16}",
            f"`{shlex.join(['python', *done[step.name].command[1:]])}`",
        ]
        for step in finished
    ]
    yield table(["step", "time", "finished (UTC)", "command, by which it is run alone"], rows)
    yield f"\n{duration(total)} in all.\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, with a line's end after it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
