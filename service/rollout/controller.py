"""The one that decides: reads metrics, asks `canary.decide`, writes what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

from service.rollout.canary import Decision, decide
from service.rollout.observation import Observation
from service.rollout.progress import (
    Rollout,
    begin,
    close,
    follow,
    hold,
    overtake,
    recount,
    roll_back,
)
from service.rollout.source import Reading, Source, SourceError
from service.rollout.store import Store

log = logging.getLogger(__name__)


class Controller:
    """Takes one step at a time; all it knows is in the store."""

    def __init__(self, store: Store, source: Source, *, clock: Callable[[], float]) -> None:
        """Decide on a rollout.

        Args:
            store: Keeps its state.
            source: Tells what happened.
            clock: Seconds since 1970.
        """
        self._store = store
        self._source = source
        self._clock = clock
        self._trouble: str | None = None
        self._decision: tuple[Decision, Observation] | None = None
        self._logged = store.load().events

    def step(self) -> Rollout:
        """Read, decide, write; return the state.

        What cannot be read changes nothing, nor does what cannot be written: the next step tries
        again. Neither does what was read of a step that people ended meanwhile.
        """
        self._decision = None
        try:
            rollout = self._stepped(self._store.load())
        except OSError as error:
            self._tell("the state cannot be written", str(error))
            return self._store.load()
        if self._decision is not None:  # only once it is on disk
            _log_decision(*self._decision, rollout)
        for event in rollout.events:  # people's, too
            if event not in self._logged:
                fields = event.model_dump(exclude={"time"})
                log.info("rollout %s", event.what, extra={"fields": fields})
        self._logged = rollout.events
        return rollout

    def _stepped(self, known: Rollout) -> Rollout:
        if known.status == "idle":
            return self._store.restore()
        now = self._clock()
        try:
            reading = self._source.read(now - known.stage.began if known.is_watched else 0)
        except SourceError as error:
            restored = self._store.restore()
            self._tell("the metrics cannot be read", str(error))
            return restored
        rollout = self._store.change(partial(self._progress, known, reading, now))
        self._tell(None)
        return rollout

    def _progress(self, known: Rollout, reading: Reading, now: float, rollout: Rollout) -> Rollout:
        if (known.stage.began, known.generation) != (rollout.stage.began, rollout.generation):
            return rollout
        if rollout.status == "asked":
            return _begun(rollout, reading, now)
        if reading.generation > rollout.generation and rollout.canary in reading.canary:
            rollout = overtake(rollout, reading.generation, now=now)  # a rollback, too
        if reading.stable == (rollout.canary,) and rollout.weight > 0 and not rollout.is_settled:
            return close(rollout, "the canary is the stable model", now=now)
        if not rollout.is_watched:
            return rollout
        if not reading.canary or not reading.stable:
            return rollout  # none scraped yet, or restarting: too little to judge by
        if (reading.stable, reading.canary) != ((rollout.stable,), (rollout.canary,)):
            return _strange(rollout, reading, now)
        return self._judged(rollout, reading, now)

    def _judged(self, rollout: Rollout, reading: Reading, now: float) -> Rollout:
        seen = reading.seen
        if reading.cumulative:
            if rollout.baseline is None:
                return rollout.model_copy(update={"baseline": seen})
            if not seen.follows(rollout.baseline) or not (seen - rollout.baseline).follows(
                rollout.seen
            ):
                return recount(rollout, now=now)
            seen = seen - rollout.baseline
        decision = decide(rollout.plan, rollout.stage, _with_control(rollout, seen), now=now)
        found = follow(rollout, decision, seen, now=now)
        if decision.looked or decision.action != "wait":
            self._decision = decision, seen
        return found

    def _tell(self, trouble: str | None, why: str = "") -> None:
        if trouble == self._trouble:
            return
        if trouble is None:
            log.info("over: %s", self._trouble)
        else:
            log.warning(trouble, extra={"fields": {"error": why}})
        self._trouble = trouble


def _begun(rollout: Rollout, reading: Reading, now: float) -> Rollout:
    """Return a rollout that began, where one canary is served everywhere beside one stable model.

    A canary that has a weight already is somebody else's; its model must not be the stable one.
    """
    if len(reading.stable) != 1 or len(reading.canary) != 1 or reading.stable == reading.canary:
        return rollout
    return begin(
        rollout, reading.stable[0], reading.canary[0], generation=reading.generation, now=now
    )


def _strange(rollout: Rollout, reading: Reading, now: float) -> Rollout:
    """Return a rollout that stands still, for the lanes have other models than it began with."""
    if rollout.status == "held":
        return rollout
    lanes = f"stable {', '.join(reading.stable)}; canary {', '.join(reading.canary)}"
    if rollout.canary not in reading.canary:
        return roll_back(rollout, f"other models are served: {lanes}", now=now)
    return hold(rollout, f"other models are served: {lanes}", now=now)


def _with_control(rollout: Rollout, seen: Observation) -> Observation:
    """Return what was seen, beside the control of the steps before where there is none any more."""
    if not rollout.is_full:
        return seen
    before = rollout.before
    return replace(seen, control=replace(seen.control, arm=before.arm, taught=before.taught))


def _log_decision(decision: Decision, seen: Observation, rollout: Rollout) -> None:
    fields = {
        "action": decision.action,
        "reason": decision.reason,
        "status": rollout.status,
        "canary": rollout.canary,
        "weight": rollout.weight,
        "generation": rollout.generation,
        "look": rollout.stage.looks,
        "requests": seen.canary.arm.requests,
        "control_requests": seen.control.arm.requests,
        "sampled": seen.canary.paired.compared + seen.canary.taught.compared,
        "findings": [asdict(finding) for finding in decision.findings],
    }
    log.info("canary %s", decision.action, extra={"fields": fields})
