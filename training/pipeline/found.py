"""Runs that were made without the pipeline: taken over where they have its recipe."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from training.pipeline.plan import Step
from training.stages import RECIPES

FACTS = {
    "scratch": "scratch.json",
    "cpt": "cpt.json",
    "sft": "disranker.json",
    "retrieve": "retrieved.json",
    "select": "selected.json",
    "label": "labels.json",
    "reasons": "reasons.json",
    "rra_gpt": "disranker.json",
    "distill": "disranker.json",
    "layerwise": "disranker.json",
    "average": "disranker.json",
}
"""What a stage that has ended writes beside its outcome, its recipe among it."""


def made_at(step: Step) -> str | None:
    """Return when the outcome of the step's very recipe was made, ISO 8601; None if it is not.

    Fields that a recipe had not yet when it was run count as their defaults. What the data were
    then cannot be told.
    """
    stage = step.stage.stage
    if stage not in FACTS:
        return None
    path = step.output / FACTS[stage]
    try:
        facts: dict[str, Any] = json.loads(path.read_text("utf-8"))
        made = RECIPES[stage].model_validate(facts["recipe"])
    except (OSError, ValueError, KeyError, ValidationError):
        return None
    if stage in ("sft", "rra_gpt", "distill", "layerwise") and "history" not in facts["metrics"]:
        return None  # the best checkpoint so far, of a run that goes on
    if made.model_dump() != RECIPES[stage].model_validate(step.fields).model_dump():
        return None
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
