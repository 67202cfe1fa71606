"""Time that a pipeline has taken and is likely to take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from training.pipeline.marks import Mark
from training.pipeline.plan import Step


def duration(seconds: float) -> str:
    """Return a time in its two largest units, as `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def time_left(pending: Sequence[Step], done: Mapping[str, tuple[Step, Mark]]) -> str:
    """Return how long the pending steps will take, by finished ones of the same stage or kind."""
    if not pending:
        return "nothing left"
    known = [seconds for step in pending if (seconds := _expected(step, done)) is not None]
    unknown = len(pending) - len(known)
    if not known:
        return f"{unknown} steps left" if unknown > 1 else "the last step"
    steps = "a step" if unknown == 1 else f"{unknown} steps"
    beside = f" and {steps} of an unknown time" if unknown else ""
    return f"about {duration(sum(known))}{beside} left"


def _expected(step: Step, done: Mapping[str, tuple[Step, Mark]]) -> float | None:
    """Return the mean time of the stage's other seeds, else of stages of its kind."""
    kind = [(other, mark) for other, mark in done.values() if other.stage.stage == step.stage.stage]
    same = [mark.seconds for other, mark in kind if other.stage.name == step.stage.name]
    found = same or [mark.seconds for _, mark in kind]
    return sum(found) / len(found) if found else None
