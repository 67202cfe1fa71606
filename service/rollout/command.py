"""`python -m service rollout`: the decider, and what people may tell it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import sleep, time
from typing import Any

from rich.console import Console

from service.logs import configure_logging
from service.rollout.canary import Plan
from service.rollout.controller import Controller
from service.rollout.guardrails import Bounds, Needs
from service.rollout.parity import PARITY_LESS, parity_bounds
from service.rollout.progress import Rollout, ask, hold, promote, roll_back
from service.rollout.source import InstanceSource, PrometheusSource, Source
from service.rollout.store import Store
from service.rollout.view import view

log = logging.getLogger(__name__)

Change = Callable[[Rollout], Rollout]

DEFAULT = Plan()


def add_rollout(commands: Any) -> None:
    """Add the command and its own commands to a parser's."""
    text = "Decide on a canary: run decides, the others look or tell it what to do."
    rollout = commands.add_parser("rollout", description=text, help=text.split(":")[0])
    parts = rollout.add_subparsers(
        required=True, metavar="run | status | start | hold | promote | rollback"
    )
    _add_run(parts)
    _add_start(parts)
    _part(parts, "status", _status, "Show where the rollout is.")
    for name, text, change in (
        ("hold", "Stay at this weight; guardrails go on watching. start goes on.", hold),
        ("promote", "Give the canary all requests now, whatever the guardrails say.", promote),
        ("rollback", "Give the canary none from now on.", roll_back),
    ):
        part = _part(parts, name, partial(_tell, change), text)
        part.add_argument("--reason", default="asked to", help="For the log and the view.")


def _add_run(parts: Any) -> None:
    part = _part(
        parts,
        "run",
        _run,
        "Read metrics, decide, write the canary's weight to weights.json in the folder, until "
        "stopped. One process a folder. Replicas follow the file: serve --rollout-weights FILE.",
    )
    sources = part.add_mutually_exclusive_group(required=True)
    sources.add_argument("--metrics", metavar="URL", help="/metrics of the one instance.")
    sources.add_argument("--prometheus", metavar="URL", help="Base URL of a Prometheus.")
    part.add_argument(
        "--selector",
        default="",
        metavar="MATCHERS",
        help='Which series in Prometheus, namespace="search" for one.',
    )
    part.add_argument("--key-file", type=Path, metavar="FILE", help="Holds the bearer key for it.")
    part.add_argument(
        "--every-s", type=_positive, default=15.0, metavar="S", help="Time between looks. 15."
    )


def _add_start(parts: Any) -> None:
    part = _part(
        parts,
        "start",
        _start,
        "Begin a rollout of the canary that is served, or go on with one that is held.",
    )
    part.add_argument(
        "--steps",
        type=_steps,
        default=DEFAULT.steps,
        metavar="W,W,…",
        help="Weights, rising to 1. 0.01,0.05,0.25,0.5,1.",
    )
    part.add_argument(
        "--parity",
        type=Path,
        metavar="FILE",
        help="A bundle's manifest.json: the two bounds below are what its parity report has, less "
        f"{PARITY_LESS}. For the same model in another precision.",
    )
    for flag, text in (
        ("--min-tau-b", f"Least mean τ-b of both models. Default: {DEFAULT.bounds.tau_b}."),
        ("--min-overlap-10", f"Least mean overlap at 10. Default: {DEFAULT.bounds.overlap_10}."),
    ):
        part.add_argument(flag, type=float, metavar="N", help=text)
    for flag, kind, default, text in (
        ("--step-s", float, DEFAULT.step_s, "Least time at each."),
        ("--min-requests", int, DEFAULT.needs.requests, "Least requests of each lane at each."),
        ("--min-sampled", int, DEFAULT.needs.sampled, "Least requests that are compared at each."),
        ("--max-psi", float, DEFAULT.bounds.stability, "Largest stability index of the scores."),
    ):
        part.add_argument(
            flag, type=kind, default=default, metavar="N", help=f"{text} Default: {default}."
        )


def _run(options: dict[str, Any]) -> int:
    configure_logging("info")
    store = Store(options["folder"])
    key = options["key_file"].read_text().strip() if options["key_file"] else None
    source: Source
    if options["metrics"]:
        source = InstanceSource(options["metrics"], key=key)
    else:
        source = PrometheusSource(options["prometheus"], selector=options["selector"], key=key)
    with store.deciding():
        state = store.restore()
        fields = {"status": state.status, "weight": state.weight, "generation": state.generation}
        log.info("deciding", extra={"fields": fields})
        controller = Controller(store, source, clock=time)
        try:
            while True:
                controller.step()
                sleep(options["every_s"])
        except KeyboardInterrupt:
            return 0


def _start(options: dict[str, Any]) -> int:
    plan = Plan(
        steps=options["steps"],
        step_s=options["step_s"],
        needs=Needs(options["min_requests"], options["min_sampled"]),
        bounds=_bounds(options),
    )
    return _show(Store(options["folder"]).change(partial(ask, plan=plan, now=time())))


def _bounds(options: dict[str, Any]) -> Bounds:
    parity = options["parity"]
    known = parity_bounds(parity) if parity else DEFAULT.bounds
    tau_b, overlap_10 = options["min_tau_b"], options["min_overlap_10"]
    return Bounds(
        known.tau_b if tau_b is None else tau_b,
        known.overlap_10 if overlap_10 is None else overlap_10,
        options["max_psi"],
    )


def _tell(change: Callable[..., Rollout], options: dict[str, Any]) -> int:
    told: Change = partial(change, reason=options["reason"], now=time())
    return _show(Store(options["folder"]).change(told))


def _status(options: dict[str, Any]) -> int:
    return _show(Store(options["folder"]).load())


def _show(rollout: Rollout) -> int:
    Console().print(view(rollout, now=time()))
    return 0


def _part(parts: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    part: argparse.ArgumentParser = parts.add_parser(
        name, description=text, help=text.split(".")[0]
    )
    part.set_defaults(command=run)
    part.add_argument(
        "--folder", type=Path, default=Path("rollout"), help="Where the state is. rollout."
    )
    return part


def _steps(text: str) -> tuple[float, ...]:
    try:
        steps = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None
    if sorted(set(steps)) != [*steps] or steps[0] <= 0 or steps[-1] != 1:
        raise argparse.ArgumentTypeError("weights rise from above 0 to 1")
    return steps


def _positive(text: str) -> float:
    if not 0 < float(text) < 86_400:
        raise argparse.ArgumentTypeError(f"{text} is no time")
    return float(text)
