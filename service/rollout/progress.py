"""A rollout's state, and what may become of it: no files, no clock, no metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from service.rollout.canary import Decision, Plan, Stage
from service.rollout.desired import Desired
from service.rollout.guardrails import Finding
from service.rollout.observation import Observation, Side

KEPT_EVENTS = 50

Status = Literal["idle", "asked", "running", "held", "rolled_back", "finished"]


class WrongStateError(Exception):
    """What was asked for does not go with the rollout's state; the message says why."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(_Record):
    """Something that changed a rollout."""

    time: float
    what: str
    reason: str
    weight: float
    generation: int


class Rollout(_Record):
    """Where a rollout is.

    Attributes:
        status: `asked` until the metrics show a canary; `held` by people or since the lanes are not
            what they were; `finished` at full weight, when nothing is left to decide.
        plan: How it goes.
        stable: Version of the stable model when it began; the canary's once that is promoted.
        canary: Version of the candidate.
        stage: The step it is at.
        weight: What part of the keys the canary is to have.
        generation: Number of the decision for that weight.
        baseline: What a process had counted when the step began, where that is how it counts.
        before: What the stable lane did in all steps before: full weight leaves no control. Of the
            last step alone, a control that was lucky would be held against the canary for ever.
        seen: What the step has shown so far.
        findings: What the guardrails said last.
        untold: Why replicas could not be told the weight at the last look; empty where they were.
        events: What happened, the newest last.
    """

    schema_version: Literal[1] = 1
    status: Status = "idle"
    plan: Plan = Plan()
    stable: str = ""
    canary: str = ""
    stage: Stage = Stage(0, 0.0)
    weight: float = 0.0
    generation: int = 0
    baseline: Observation | None = None
    before: Side = Side()
    seen: Observation = Observation()
    findings: tuple[Finding, ...] = ()
    untold: str = ""
    events: tuple[Event, ...] = ()

    @property
    def desired(self) -> Desired:
        """What replicas are to do."""
        return Desired(generation=self.generation, version=self.canary, weight=self.weight)

    @property
    def is_watched(self) -> bool:
        """Whether its canary has a part of the requests that is to be watched."""
        return self.status in ("running", "held") and self.weight > 0

    @property
    def is_settled(self) -> bool:
        """Whether its canary became the stable model, so that there is no way back."""
        return bool(self.canary) and self.stable == self.canary

    @property
    def is_full(self) -> bool:
        """Whether the canary is to have all requests."""
        return self.weight >= 1


def ask(rollout: Rollout, plan: Plan | None, *, now: float) -> Rollout:
    """Return a rollout that begins with the next canary that is seen, or a held one that goes on.

    Args:
        rollout: What there is.
        plan: How it is to go; None for the default, and for one that is held.
        now: Seconds since 1970.

    Raises:
        WrongStateError: One is going on, or is held and has a plan already.
    """
    if rollout.status in ("asked", "running"):
        raise WrongStateError(f"a rollout is {rollout.status}; roll it back first")
    if rollout.status == "held":
        if plan is not None:
            raise WrongStateError(
                "the rollout is held and goes on by its own plan: start it without one, or roll it "
                "back first"
            )
        return _noted(rollout.model_copy(update={"status": "running"}), "resumed", "asked to", now)
    fresh = Rollout(
        status="asked",
        plan=plan or Plan(),
        canary=rollout.canary,
        generation=rollout.generation,
        untold=rollout.untold,
        events=rollout.events,
    )
    return _weighed(fresh, 0.0, "asked", "a rollout was asked for", now)


def begin(rollout: Rollout, stable: str, canary: str, *, generation: int, now: float) -> Rollout:
    """Return a rollout at its first step, of the models that are served."""
    known = {"status": "running", "stable": stable, "canary": canary}
    generation = max(generation, rollout.generation)
    found = rollout.model_copy(update={**known, "generation": generation})
    return _stepped(found, 0, "began", f"{canary} beside {stable}", now)


def follow(rollout: Rollout, decision: Decision, seen: Observation, *, now: float) -> Rollout:
    """Return what a decision makes of a rollout that is watched; a held one never goes on."""
    stage = rollout.stage
    if decision.looked:
        stage = replace(stage, looks=stage.looks + 1, seen=seen.evidence)
    news = {"stage": stage, "seen": seen, "findings": decision.findings}
    found = rollout.model_copy(update=news)
    if decision.action == "rollback":
        return roll_back(found, decision.reason, now=now)
    if decision.action == "advance" and rollout.status == "running":
        if found.is_full:
            done = found.model_copy(update={"status": "finished"})
            return _noted(done, "finished", decision.reason, now)
        return _stepped(found, stage.step + 1, "advanced", decision.reason, now)
    return found


def hold(rollout: Rollout, reason: str, *, now: float) -> Rollout:
    """Return a rollout that keeps its weight until it is told to go on.

    Raises:
        WrongStateError: None is running.
    """
    if rollout.status != "running":
        raise WrongStateError(f"the rollout is {rollout.status}, not running")
    return _noted(rollout.model_copy(update={"status": "held"}), "held", reason, now)


def promote(rollout: Rollout, reason: str, *, now: float) -> Rollout:
    """Return a rollout at full weight, on a person's word alone.

    Raises:
        WrongStateError: None is running or held.
    """
    if rollout.status not in ("running", "held"):
        raise WrongStateError(f"the rollout is {rollout.status}, neither running nor held")
    done = rollout.model_copy(update={"status": "finished"})
    return _weighed(done, 1.0, "promoted", reason, now)


def roll_back(rollout: Rollout, reason: str, *, now: float) -> Rollout:
    """Return a rollout whose canary gets nothing.

    Raises:
        WrongStateError: There is nothing to roll back.
    """
    if rollout.status in ("idle", "rolled_back"):
        raise WrongStateError(f"the rollout is {rollout.status}: the canary gets nothing already")
    if rollout.is_settled:
        raise WrongStateError("the canary is the stable model now: load another one as stable")
    gone = rollout.model_copy(update={"status": "rolled_back"})
    return _weighed(gone, 0.0, "rolled_back", reason, now)


def close(rollout: Rollout, reason: str, *, now: float) -> Rollout:
    """Return a rollout that is over since its canary became the stable model."""
    done = rollout.model_copy(update={"status": "finished", "stable": rollout.canary})
    return _noted(done, "finished", reason, now)


def overtake(rollout: Rollout, generation: int, *, now: float) -> Rollout:
    """Return the same decision with a number after one that a replica has from elsewhere."""
    found = rollout.model_copy(update={"generation": generation})
    return _weighed(found, rollout.weight, "repeated", f"a replica has {generation}", now)


def recount(rollout: Rollout, *, now: float) -> Rollout:
    """Return a rollout whose step begins anew, for the counts did; its looks stay spent."""
    stage = replace(rollout.stage, began=now, seen=0)
    news = {"stage": stage, "baseline": None, "seen": Observation(), "findings": ()}
    return _noted(rollout.model_copy(update=news), "recounted", "the counters began anew", now)


def _stepped(rollout: Rollout, step: int, what: str, reason: str, now: float) -> Rollout:
    news = {
        "stage": Stage(step, now),
        "baseline": None,
        "before": rollout.before + rollout.seen.control,
        "seen": Observation(),
        "findings": (),
    }
    found = rollout.model_copy(update=news)
    return _weighed(found, rollout.plan.steps[step], what, reason, now)


def _weighed(rollout: Rollout, weight: float, what: str, reason: str, now: float) -> Rollout:
    news = {"weight": weight, "generation": rollout.generation + 1}
    return _noted(rollout.model_copy(update=news), what, reason, now)


def _noted(rollout: Rollout, what: str, reason: str, now: float) -> Rollout:
    event = Event(
        time=now, what=what, reason=reason, weight=rollout.weight, generation=rollout.generation
    )
    return rollout.model_copy(update={"events": (*rollout.events, event)[-KEPT_EVENTS:]})
