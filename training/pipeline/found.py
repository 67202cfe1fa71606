"""Runs that were made without the pipeline: taken over where they have its recipe."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from training.pipeline.plan import Step
from training.stages import RECIPES

FACTS = {
    "scratch": "scratch.json",
    "cpt": "cpt.json",
    "sft": "disranker.json",
    "retrieve": "retrieved.json",
    "label": "labels.json",
    "distill": "disranker.json",
    "average": "disranker.json",
}
"""What a stage that has ended writes beside its outcome, its recipe among it."""


def is_made(step: Step) -> bool:
    """Tell whether the outcome of the step's very recipe is there, whoever started it.

    Fields that a recipe had not yet when it was run count as their defaults. What the data were
    then cannot be told.
    """
    stage = step.stage.stage
    if stage not in FACTS:
        return False
    try:
        facts: dict[str, Any] = json.loads((step.output / FACTS[stage]).read_text("utf-8"))
        made = RECIPES[stage].model_validate(facts["recipe"])
    except (OSError, ValueError, KeyError, ValidationError):
        return False
    if stage in ("sft", "distill") and "history" not in facts["metrics"]:
        return False  # the best checkpoint so far, of a run that goes on
    return made.model_dump() == RECIPES[stage].model_validate(step.fields).model_dump()
