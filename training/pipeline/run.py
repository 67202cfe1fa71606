"""A pipeline's run: each step that is not finished, one after another, then the report."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import tomli_w

from training.pipeline.alone import alone
from training.pipeline.clock import duration, time_left
from training.pipeline.marks import Mark, write_mark
from training.pipeline.pipeline import STAGES, Pipeline, Standing
from training.pipeline.plan import Step
from training.pipeline.process import run_logged
from training.pipeline.recipe import RecipeStage
from training.recipe import RecipeError

Call = Callable[[Sequence[str], Path], int]
"""Runs a command with a log and returns its exit status."""


class Start(Protocol):
    """Runs a command with a log and a lock that it inherits, and returns its exit status."""

    def __call__(self, command: Sequence[str], log: Path, *, keep: int) -> int:  # noqa: D102
        ...


AHEAD = {
    "done": "finished",
    "found": "there already, taken over",
    "new": "to do",
    "stopped": "begun, goes on",
    "changed": "to do again from the start",
}


class StepError(Exception):
    """A step ended with an error; the message names it, its exit status and its log."""


def print_plan(pipeline: Pipeline) -> None:
    """Print every step with its command and how it stands; nothing is run or written."""
    done: dict[str, Mark] = {}
    for number, step in enumerate(pipeline.steps, start=1):
        standing = pipeline.standing(step, done)
        if standing.mark is not None and standing.state in ("done", "found"):
            done[step.name] = standing.mark
        why = f" ({standing.reason} changed)" if standing.state == "changed" else ""
        print(f"[{number}/{len(pipeline.steps)}] {step.name}: {AHEAD[standing.state]}{why}")
        print(f"    {shlex.join(pipeline.command(step))}")


def run(pipeline: Pipeline, *, restart: bool = False, start: Start = run_logged) -> None:
    """Run what is not finished, then write the report.

    A step that was stopped goes on inside; one whose recipe, data or upstream has changed since is
    done again from its start. The report is written anew after each of its systems.

    Args:
        pipeline: What to run.
        restart: Throw everything away that the pipeline has made before.
        start: How a step is started.

    Raises:
        RecipeError: The folder is none of a pipeline.
        StepError: A step or the report ended with an error.
    """
    if restart:
        _clear(pipeline.folder)
    began = time.monotonic()
    done: dict[str, Mark] = {}
    count = len(pipeline.steps)
    behind = f"the run of {pipeline.folder} that goes on already, or for a stage it left"
    with alone(pipeline.folder / STAGES / "lock", behind=behind) as lock:
        call = partial(start, keep=lock)
        for number, step in enumerate(pipeline.steps, start=1):
            standing = pipeline.standing(step, done)
            if standing.mark is not None and standing.state == "done":
                done[step.name] = standing.mark
                _say(f"[{number}/{count}] {step.name}: finished before")
                continue
            if standing.state == "found" and standing.mark is not None:
                _write_recipe(pipeline, step)
                write_mark(pipeline.path(step, ".json"), standing.mark)
                done[step.name] = standing.mark
                _say(f"[{number}/{count}] {step.name}: there already with this recipe, taken over")
                continue
            _say(f"[{number}/{count}] {step.name}: {_how(standing)}")
            done[step.name] = _run_step(pipeline, step, standing, call)
            made = {one.name: (one, done[one.name]) for one in pipeline.steps[:number]}
            rest = time_left(pipeline.steps[number:], made)
            took, so_far = duration(done[step.name].seconds), duration(time.monotonic() - began)
            _say(f"[{number}/{count}] {step.name}: done in {took}; {so_far} so far, {rest}")
            if number < count and _is_reported(pipeline, step):
                _report(pipeline, call)
        if pipeline.recipe.report is not None and (status := _report(pipeline, call)):
            raise StepError(f"the report ended with status {status}")


def _run_step(pipeline: Pipeline, step: Step, standing: Standing, call: Call) -> Mark:
    command = pipeline.command(step)
    log = pipeline.path(step, ".log")
    if standing.state == "stopped" and standing.mark is not None:
        mark = replace(standing.mark, finished_at=None)
    else:
        mark = Mark(standing.inputs or {}, command, _now())
        log.unlink(missing_ok=True)
        if standing.state == "changed":  # before the new mark says that there is nothing old
            shutil.rmtree(pipeline.folder / step.name, ignore_errors=True)
    _write_recipe(pipeline, step)
    mark_file = pipeline.path(step, ".json")
    write_mark(mark_file, mark)
    _say("    " + shlex.join(command))
    began = time.monotonic()
    try:
        status = call(command, log)
    finally:
        mark = replace(mark, seconds=mark.seconds + time.monotonic() - began)
        write_mark(mark_file, mark)
    if status:
        ended = f"status {status}" if status > 0 else f"signal {-status}"
        raise StepError(f"{step.name} ended with {ended}; its log is {log}")
    mark = replace(mark, finished_at=_now())
    write_mark(mark_file, mark)
    return mark


def _write_recipe(pipeline: Pipeline, step: Step) -> None:
    """Write the step's whole recipe, by which its command runs it alone."""
    path = pipeline.path(step, ".toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(step.stage, RecipeStage):
        head = f"# {shlex.join(pipeline.command(step))}\n"
        path.write_text(head + tomli_w.dumps(step.fields), encoding="utf-8")


def _is_reported(pipeline: Pipeline, step: Step) -> bool:
    report = pipeline.recipe.report
    return report is not None and step.stage.name in report.systems


def _report(pipeline: Pipeline, call: Call) -> int:
    """Write the report in a process of its own, since models take memory; return its status."""
    where = ["--data", str(pipeline.data), "--out", str(pipeline.out), "--report-only"]
    command = [sys.executable, "-m", "training", "pipeline", str(pipeline.file), *where]
    _say("    " + shlex.join(command))
    return call(command, pipeline.folder / STAGES / "report.log")


def _how(standing: Standing) -> str:
    match standing.state:
        case "stopped":
            return "goes on where it was"
        case "changed":
            return f"{standing.reason} changed, so it is done again from the start"
        case _:
            return "begins"


def _clear(folder: Path) -> None:
    if folder.exists() and not (folder / STAGES).is_dir():
        raise RecipeError(f"{folder} is no pipeline's folder: nothing is thrown away")
    shutil.rmtree(folder, ignore_errors=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
