"""A rollout for a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.rollout.guardrails import Finding
from service.rollout.progress import Rollout

SHOWN_EVENTS = 8
COLOURS = {"good": "green", "bad": "bold red", "open": "yellow"}
WORDS = {
    "errors": "requests that failed",
    "degraded": "answers in part",
    "garbage": "scores that rank nothing",
    "p99": "p99, times the control's",
    "latency": "slower than the control's",
    "concordance": "pairs in the same order",
    "overlap_10": "overlap at 10",
    "stability": "stability index",
}


def view(rollout: Rollout, *, now: float) -> RenderableType:
    """Return a rollout as lines and tables."""
    parts: list[RenderableType] = [_head(rollout, now)]
    if rollout.findings:
        parts.append(_findings(rollout.findings))
    if rollout.events:
        parts.append(_events(rollout))
    return Group(*parts)


def _head(rollout: Rollout, now: float) -> Text:
    canary, control = rollout.seen.canary, rollout.seen.control.arm
    text = Text(f"rollout {rollout.status.replace('_', ' ')}", style="bold")
    if rollout.stable:
        text.append(f": {rollout.canary} beside {rollout.stable}", style="not bold")
    text.append("\n")
    for place, weight in enumerate(rollout.plan.steps):
        here = rollout.is_watched and place == rollout.stage.step
        done = rollout.status == "finished" or (rollout.canary and place < rollout.stage.step)
        style = "bold reverse" if here else "green" if done else "dim"
        text.append(f" {weight:.0%} ", style=style)
        text.append(" " if place == len(rollout.plan.steps) - 1 else "→", style="dim")
    text.append(f"  weight {rollout.weight:.0%}, generation {rollout.generation}")
    if rollout.is_watched:
        lasted = max(0.0, now - rollout.stage.began)
        text.append(
            f"\nthis step: {lasted:.0f} s of at least {rollout.plan.step_s:.0f}; requests: "
            f"{canary.arm.requests:,} canary, {control.requests:,} stable, "
            f"{canary.paired.compared + canary.taught.compared:,} compared; "
            f"{rollout.stage.looks} looks",
            style="not bold",
        )
    if rollout.untold:
        text.append(f"\nreplicas are not told: {rollout.untold}", style="red")
    return text


def _findings(findings: tuple[Finding, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("guardrail")
    for name in ("canary", "control", "limit", "p", "n"):
        table.add_column(name, justify="right")
    table.add_column("")
    for finding in findings:
        table.add_row(
            WORDS[finding.name],
            _figure(finding.value),
            _figure(finding.control),
            _figure(finding.limit),
            _chance(finding.p),
            f"{finding.n:,}",
            Text(finding.state, style=COLOURS[finding.state]),
        )
    return table


def _events(rollout: Rollout) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for event in rollout.events[-SHOWN_EVENTS:]:
        time = datetime.fromtimestamp(event.time, UTC).strftime("%H:%M:%S")
        table.add_row(
            Text(time, style="dim"), f"{event.weight:.0%}", event.what.replace("_", " "),
            Text(event.reason),
        )  # fmt: skip
    return table


def _chance(p: float | None) -> str:
    if p is None:
        return ""
    return "< 1e-9" if p < 1e-9 else f"{p:.2g}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
