"""TSRankGPT's way to rank: how likely a language model finds the query after the document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from service.contract.checkpoint import Card
from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.encoding import TokenIds, TokenPair
from service.contract.types import Candidate
from training.decoder import (
    Precision,
    build_language_model,
    decoder_encoder,
    in_batches,
)
from training.recipe import RecipeError
from training.teacher_recipes import Decoder

LIKELIHOOD_TEMPLATE = "decoder-likelihood-1"
"""`<s> title : summary : query`, of which the query's tokens are weighed."""


class LikelihoodEncoder:
    """The document first, then the query; the ids of each are those of a decoder's pair."""

    def __init__(self, pairs: DecoderPairEncoder) -> None:
        self._pairs = pairs

    def encode_query(self, query: str) -> TokenIds:
        """Return the query's ids, [q]."""
        return self._pairs.encode_query(query)

    def encode_documents(self, candidates: Sequence[Candidate]) -> list[TokenIds]:
        """Return each candidate's ids."""
        return self._pairs.encode_documents(candidates)

    def splice(self, query_ids: TokenIds, document_ids: TokenIds) -> TokenPair:
        """Return `<s> d : q`, the document cut to fit; its first segment is `<s> d :`."""
        usual = self._pairs.splice(query_ids, document_ids)  # <s> q : d </s>
        kept = usual.input_ids[usual.first_segment : -1].astype(np.int32)
        turned = self._pairs.splice(kept, query_ids)  # <s> d : q </s>
        return TokenPair(turned.input_ids[:-1], turned.first_segment)

    def encode(self, query: str, candidates: Sequence[Candidate]) -> list[TokenPair]:
        """Return one pair per candidate, in order."""
        query_ids = self.encode_query(query)
        return [self.splice(query_ids, ids) for ids in self.encode_documents(candidates)]


def build_likelihood_scorer(
    spec: Decoder, *, precision: Precision, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, LikelihoodEncoder]:
    """Return a language model, its tokenizer and an encoder that puts the document first.

    Source:
        TSRankGPT (Zhang et al. 2023, arXiv:2311.16720): log p(query | document), trained by a
        ranking loss. Frame and wording are ours; its first stage is `training cpt` in spirit.

    Raises:
        RecipeError: It cannot be loaded.
    """
    model, tokenizer, encoder = build_language_model(spec, precision=precision, seed=seed)
    return model, tokenizer, LikelihoodEncoder(encoder)


def load_likelihood_scorer(
    folder: Path, card: Card
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, LikelihoodEncoder]:
    """Return the language model of a checkpoint, its tokenizer and its encoder."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)  # type: ignore[no-untyped-call]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    encoder = decoder_encoder(
        tokenizer, max_length=card.max_length, max_query_length=card.max_query_length
    )
    return model.train(False), tokenizer, LikelihoodEncoder(encoder)


def score_by_likelihood(
    model: nn.Module, pairs: Sequence[TokenPair], *, pad: int | None, eos: int, rows: int
) -> Tensor:
    """Return the mean log p of each pair's second segment, float32 [N].

    Args:
        model: A causal language model, bare or prepared for training.
        pairs: Document and query, at least one.
        pad: Not needed: what fills rows up comes after everything that is weighed.
        eos: Fills rows up.
        rows: Pairs a call; they are sorted by length.

    Raises:
        RecipeError: A pair has no query.
    """
    del pad
    if any(len(pair) == pair.first_segment for pair in pairs):
        raise RecipeError("a query without a token has no likelihood")

    def score(ids: Tensor, chunk: Sequence[TokenPair]) -> Tensor:
        places = torch.arange(1, ids.shape[1], device=ids.device)  # [L - 1]
        starts, ends = (
            torch.tensor(found, device=ids.device)[:, None]
            for found in ([pair.first_segment for pair in chunk], [len(pair) for pair in chunk])
        )  # [B, 1]
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()  # [B, L - 1, V]
        logs = logits.log_softmax(dim=2).gather(2, ids[:, 1:, None])[:, :, 0]  # [B, L - 1]
        kept = (places >= starts) & (places < ends)
        means: Tensor = (logs * kept).sum(dim=1) / kept.sum(dim=1)
        return means

    return in_batches(score, pairs, pad=eos, rows=rows, device=next(model.parameters()).device)
