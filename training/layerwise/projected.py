"""A student with projections into its teacher's width, trained with and served without them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import BertForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from training.layerwise.recipe import LayerwiseRecipe
from training.layerwise.states import States, states_of


class Projected(nn.Module):
    """A student whose states can be compared with a wider teacher's.

    One projection for the embeddings and one for all layers, as TinyBERT's W_e and W_h; none where
    the widths agree, or for what is not compared.
    """

    def __init__(
        self, student: BertForSequenceClassification, *, width: int, recipe: LayerwiseRecipe
    ) -> None:
        """Take a student.

        Args:
            student: Its own weights and scores are left as they are.
            width: Of the teacher.
            recipe: Says what is compared.
        """
        super().__init__()
        self.student = student
        own = student.config.hidden_size
        compared = {"embeddings": recipe.embedding, "hidden": recipe.hidden}
        self.projections = nn.ModuleDict(
            {
                name: nn.Linear(own, width, bias=False)
                for name, weight in compared.items()
                if weight and own != width
            }
        )

    def forward(self, *, layers: bool = False, **batch: Any) -> SequenceClassifierOutput | States:
        """Return the student's output, or its states in the teacher's width."""
        if not layers:
            alone: SequenceClassifierOutput = self.student(**batch)
            return alone
        found = states_of(self.student, batch)
        return found._replace(
            embeddings=self._wide("embeddings", found.embeddings),
            hidden=tuple(self._wide("hidden", states) for states in found.hidden),
        )

    def _wide(self, name: str, states: Tensor) -> Tensor:
        wide: Tensor = self.projections[name](states) if name in self.projections else states
        return wide
