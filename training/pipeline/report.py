"""A pipeline's report: how its systems rank, how they learnt, and what was run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.contract.bundle import Bundle
from service.contract.folder import replaced_folder
from training.pipeline.alone import alone
from training.pipeline.clock import duration
from training.pipeline.curves import draw_curves, read_curves
from training.pipeline.machine import describe_machine, describe_versions
from training.pipeline.marks import Mark
from training.pipeline.page import html_page
from training.pipeline.pipeline import STAGES, Pipeline
from training.pipeline.plan import Step
from training.pipeline.ranking import Ranking
from training.pipeline.scored import arms_of
from training.pipeline.table import table
from training.recipe import RecipeError

PARITY = {
    "max_delta": "largest Δ",
    "kendall_tau": "Kendall τ",
    "top10_overlap": "top-10 overlap",
    "ndcg_drop": "nDCG@10 drop",
}


def write_report(pipeline: Pipeline) -> Path:
    """Write `report.md`, its plots and `report.html` on what is finished; return the page's path.

    The folder is replaced whole. Scores are kept beside it, so that only new systems are run.

    Raises:
        RecipeError: There is nothing to report on, or a set or a system cannot be read.
    """
    done = pipeline.finished()
    if not done:
        raise RecipeError(f"{pipeline.folder}: no stage is finished yet")
    target = pipeline.folder / "report"
    lock = pipeline.folder / STAGES / "report.lock"  # a pipeline that goes on writes reports, too
    with alone(lock, behind="another report of it"), replaced_folder(target) as folder:
        text = "\n".join(_parts(pipeline, done, folder))
        (folder / "report.md").write_text(text, encoding="utf-8")
        page = html_page(text, title=pipeline.recipe.name, folder=folder)
        (folder / "report.html").write_text(page, encoding="utf-8")
    return target / "report.html"


def _parts(pipeline: Pipeline, done: Mapping[str, Mark], folder: Path) -> Iterator[str]:
    finished = [step for step in pipeline.steps if step.name in done]
    yield _head(pipeline, done)
    if pipeline.recipe.report is not None and pipeline.sets is not None:
        arms = [arm for arm in arms_of(pipeline, done) if arm.runs]
        scores = pipeline.folder / "scores"
        ranking = Ranking(
            pipeline.recipe.report, pipeline.sets, arms, pipeline.data, scores, _chosen_on(finished)
        )
        yield from ranking.parts(folder)
    if curves := read_curves(finished):
        draw_curves(curves, folder / "curves.png")
        yield "## Learning curves\n\n![loss and validation figure by step](curves.png)\n"
    yield from _bundles(finished)
    yield from _latency(finished)
    yield from _what_was_run(finished, done)


def _head(pipeline: Pipeline, done: Mapping[str, Mark]) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [f"# {pipeline.recipe.name}\n"]
    lines.append(f"{len(done)} of {len(pipeline.steps)} steps finished by {now}.")
    if missing := [step.name for step in pipeline.steps if step.name not in done]:
        lines.append(f"Still to come: {', '.join(missing)}.")
    return "\n".join([*lines, ""])


def _chosen_on(finished: Sequence[Step]) -> frozenset[tuple[str | None, ...]]:
    return frozenset(
        (source["path"], source.get("split"), source.get("part"))
        for step in finished
        if step.stage.stage in ("sft", "rra_gpt", "distill")
        for source in step.fields["validation"]
    )


def _bundles(finished: Sequence[Step]) -> Iterator[str]:
    rows = []
    for step in finished:
        if step.stage.stage != "export":
            continue
        manifest = Bundle.open(step.output).manifest
        size = sum(entry.size_bytes for entry in manifest.files.values()) / 1e6
        bundle = [step.name, manifest.version[:12], f"{size:.1f} MB"]
        parity: Any = manifest.metrics.get("parity", {})
        rows += [[*bundle, engine, *_parity(found)] for engine, found in parity.items()]
    if rows:
        yield "## Bundles\n\nEach model's scores against its checkpoint's.\n"
        yield table(["bundle", "version", "size", "model", *PARITY.values()], rows)


def _parity(found: Mapping[str, float | None]) -> list[str]:
    return ["–" if found.get(name) is None else f"{found[name]:.4f}" for name in PARITY]


def _latency(finished: Sequence[Step]) -> Iterator[str]:
    for step in finished:
        if step.stage.stage == "latency":
            fields = json.loads(step.output.read_text(encoding="utf-8"))
            yield f"## Latency\n\n{fields['report']}\n"


def _what_was_run(finished: Sequence[Step], done: Mapping[str, Mark]) -> Iterator[str]:
    yield "## What was run\n"
    yield f"{describe_machine()}. {describe_versions()}.\n"
    rows = []
    for step in finished:
        mark = done[step.name]
        alone = shlex.join(["python", *mark.command[1:]])
        took = duration(mark.seconds) if mark.seconds else "taken over"
        rows.append([step.name, took, f"{mark.finished_at:.16}", f"`{alone}`"])
    yield table(["step", "time", "finished (UTC)", "command, by which it is run alone"], rows)
    yield f"{duration(sum(mark.seconds for mark in done.values()))} in all.\n"
