"""The recipe of layer-wise distillation."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from training.recipe import Source, StudentRecipe

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LayerwiseRecipe(StudentRecipe):
    """A BERT into a shallower one, layer by layer, on pairs whose grades are not read.

    With a weight on `score` the teacher is a ranker and the student becomes one (ranker
    distillation); without, the teacher is any BERT (LM distillation), and what is written has yet
    to be taught to rank.
    """

    teacher: str = Field(description="a checkpoint, or any BERT that a student can start from")
    train: tuple[Source, ...] = Field(min_length=1)
    attention: Weight = Field(1.0, description="weight of the attention scores; 0: off")
    hidden: Weight = Field(1.0, description="of the layers' states")
    embedding: Weight = Field(1.0, description="of the embeddings")
    score: Weight = Field(1.0, description="of the ranker's score")

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if not any((self.attention, self.hidden, self.embedding, self.score)):
            raise ValueError("attention, hidden, embedding and score are all 0: nothing is learnt")
        return self
