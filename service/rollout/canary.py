"""Whether a canary goes on, waits or ends: a function of what was seen, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from service.rollout.guardrails import GUARDRAILS, Bounds, Finding, Needs, judge
from service.rollout.observation import Observation

FIRST_LOOK = 100
"""Requests, of the canary's or compared, before the first look that may end a rollout."""

GROWTH = 1.1
"""How many times as many there must be at each next look."""

EVENLY = 5
"""How many looks, about, have equal parts before parts become less and less."""

Action = Literal["wait", "advance", "rollback"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a rollout goes.

    Attributes:
        steps: Weights of the canary, one after the other.
        step_s: Least time at each.
        needs: Least requests at each.
        bounds: What agreement with the stable model is enough.
        alpha: Chance that a rollout of a canary that is as good ends by a false alarm, at most.
    """

    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 1.0)
    step_s: float = 600.0
    needs: Needs = field(default_factory=Needs)
    bounds: Bounds = field(default_factory=Bounds)
    alpha: float = 0.01


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a rollout is.

    Attributes:
        step: Place of its weight in the plan.
        began: When the step began, in seconds since 1970.
        looks: Looks of this step that might have ended the rollout.
        seen: Evidence at the last of them.
    """

    step: int
    began: float
    looks: int = 0
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why.

    Attributes:
        action: What to do.
        reason: In words.
        findings: What each guardrail found.
        looked: Whether it was a look that might have ended the rollout.
    """

    action: Action
    reason: str
    findings: tuple[Finding, ...]
    looked: bool


def decide(plan: Plan, stage: Stage, seen: Observation, *, now: float) -> Decision:
    """Return what to do.

    Bad ends the rollout at once. It goes on when the step lasted long enough and every guardrail
    is good; too little to judge by is never good.

    Args:
        plan: How the rollout goes.
        stage: Where it is.
        seen: What happened since the step began.
        now: Seconds since 1970.
    """
    looked = is_due(stage, seen.evidence)
    alpha = alpha_of(plan, stage.step + 1, stage.looks + 1) if looked else 0.0
    at_once = plan.steps[stage.step] < 1
    findings = judge(seen, plan.bounds, plan.needs, alpha=alpha, at_once=at_once)
    if bad := [finding.name for finding in findings if finding.state == "bad"]:
        return Decision("rollback", f"worse by {', '.join(bad)}", findings, looked)
    if unclear := [finding.name for finding in findings if finding.state == "open"]:
        return Decision("wait", f"not clear yet: {', '.join(unclear)}", findings, looked)
    if (left_s := stage.began + plan.step_s - now) > 0:
        return Decision("wait", f"good so far, {left_s:.0f} s of the step to go", findings, looked)
    return Decision("advance", "good by every guardrail", findings, looked)


def is_due(stage: Stage, evidence: int) -> bool:
    """Return whether there is so much more evidence that it is worth a look."""
    return evidence >= max(FIRST_LOOK, GROWTH * stage.seen)


def alpha_of(plan: Plan, step: int, look: int) -> float:
    """Return what a look at a step, both from 1, may spend on each guardrail.

    Guardrails have equal parts. Of one, step s spends 1 / (s (s + 1)), since a bad canary is best
    caught at the first; of that, look k spends e / ((k + e - 1) (k + e)), with e = `EVENLY`. Either
    adds up to 1 however many there are. By the union bound a false alarm has at most the plan's
    chance, whatever the looks and guardrails have to do with each other.
    """
    of_step = 1 / (step * (step + 1))
    of_look = EVENLY / ((look + EVENLY - 1) * (look + EVENLY))
    return plan.alpha * of_step * of_look / len(GUARDRAILS)
