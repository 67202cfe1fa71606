"""What a checkpoint says of itself beside its weights: training writes it, export reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.contract.errors import first_error
from service.contract.manifest import ScoreMeaning
from service.contract.template import TEMPLATE

CARD = "disranker.json"
VALIDATION = "validation.jsonl"


class Card(BaseModel):
    """The ranking side of a checkpoint; export carries it into the bundle's manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: str = TEMPLATE
    max_length: int = Field(default=256, ge=8)
    max_query_length: int = Field(default=64, ge=1)
    score: ScoreMeaning = ScoreMeaning()
    recipe: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)


def read_card(checkpoint: Path) -> Card:
    """Return a checkpoint's card; the defaults for a plain Hugging Face folder without one.

    Raises:
        ValueError: The card is there but cannot be understood.
    """
    path = checkpoint / CARD
    if not path.exists():
        return Card()
    try:
        return Card.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: {first_error(error)}") from None
