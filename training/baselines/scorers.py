"""The ways in which a decoder's checkpoint scores a pair, by the template that its card names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from service.contract.checkpoint import Card
from service.contract.encoding import TokenIds, TokenPair
from service.contract.template import DECODER_TEMPLATE
from service.contract.types import Candidate
from training.baselines.likelihood_scorer import (
    LIKELIHOOD_TEMPLATE,
    build_likelihood_scorer,
    load_likelihood_scorer,
    score_by_likelihood,
)
from training.baselines.mean_scorer import MEAN_TEMPLATE, build_mean_scorer, score_by_mean
from training.decoder import build_scorer, load_scorer, score_decoder_pairs
from training.teacher_recipes import Scorer


class SplicingEncoder(Protocol):
    """Makes token pairs of a query's and a document's ids."""

    def encode_query(self, query: str) -> TokenIds:
        """Return the query's ids, [q]."""
        ...

    def encode_documents(self, candidates: Sequence[Candidate]) -> list[TokenIds]:
        """Return each candidate's ids."""
        ...

    def splice(self, query_ids: TokenIds, document_ids: TokenIds) -> TokenPair:
        """Return the pair of a query's and a document's ids."""
        ...

    def encode(self, query: str, candidates: Sequence[Candidate]) -> list[TokenPair]:
        """Return one pair per candidate, in order."""
        ...


Loaded = tuple[Any, PreTrainedTokenizerBase, SplicingEncoder]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to score.

    Attributes:
        template: What a checkpoint's card calls it.
        build: Makes the model to be trained, of a recipe's `Decoder`.
        load: Reads a checkpoint.
        score: Returns the raw scores of pairs, in their order.
        bare: What is kept of the trained model.
    """

    template: str
    build: Callable[..., Loaded]
    load: Callable[[Path, Card], Loaded]
    score: Callable[..., Tensor]
    bare: Callable[[Any], PreTrainedModel] = lambda model: model

    def scorer(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: int
    ) -> Callable[[Sequence[TokenPair]], Tensor]:
        """Return a function that scores so many pairs a call."""
        ends: dict[str, Any] = {"pad": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id}
        return lambda pairs: self.score(model, pairs, rows=rows, **ends)


WAYS: dict[Scorer, Way] = {
    "last-token": Way(DECODER_TEMPLATE, build_scorer, load_scorer, score_decoder_pairs),
    "mean": Way(MEAN_TEMPLATE, build_mean_scorer, load_scorer, score_by_mean),
    "likelihood": Way(
        LIKELIHOOD_TEMPLATE, build_likelihood_scorer, load_likelihood_scorer, score_by_likelihood
    ),
}


def way_of(template: str) -> Way | None:
    """Return the way that a template names; None for one of other models."""
    return next((way for way in WAYS.values() if way.template == template), None)
