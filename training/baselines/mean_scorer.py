"""LLM2Vec's way to rank: a decoder whose tokens all see each other, the mean of them scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.encoding import TokenPair
from training.decoder import HEAD, Precision, build_scorer, in_batches
from training.recipe import RecipeError
from training.teacher_recipes import Decoder

MEAN_TEMPLATE = "decoder-mean-1"
"""The ids of a decoder's pair, read in both directions and pooled by their mean."""


def build_mean_scorer(
    spec: Decoder, *, precision: Precision, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, DecoderPairEncoder]:
    """Return a scorer, its tokenizer and the contract's encoder over it.

    Source:
        LLM2Vec (BehnamGhader et al. 2024, arXiv:2404.05961): bidirectional attention and mean
        pooling. Its two unsupervised trainings are left out, and pairs instead of single texts are
        encoded: our reading of DisRanker's table 2, which says no more than the name.

    Raises:
        RecipeError: It cannot be loaded, or its tokens cannot be made to see later ones.
    """
    model, tokenizer, encoder = build_scorer(spec, precision=precision, seed=seed)
    check_both_directions(model, spec.base)
    return model, tokenizer, encoder


def score_by_mean(
    model: nn.Module, pairs: Sequence[TokenPair], *, pad: int, eos: int, rows: int
) -> Tensor:
    """Return the head's score of the mean of each pair's hidden states, float32 [N].

    Args:
        model: A scorer of one label, bare or prepared for training.
        pairs: Token pairs, at least one.
        pad: The padding's id, which no pair may hold.
        eos: Not needed: no token is pooled alone.
        rows: Pairs a call; they are sorted by length.
    """
    del eos

    def score(ids: Tensor, _: Sequence[TokenPair]) -> Tensor:
        scores: Tensor = head_of(model)(_mean(model, ids, ids != pad))  # [B, 1]
        return scores[:, 0]

    return in_batches(score, pairs, pad=pad, rows=rows, device=next(model.parameters()).device)


def head_of(model: nn.Module) -> Any:
    """Return a scorer's head: with LoRA, the wrapper that chooses the trained one."""
    return next(part for name, part in model.named_modules() if name.split(".")[-1] == HEAD)


def check_both_directions(model: nn.Module, name: str) -> None:
    """Check that a first token sees the last, and does not where the last is masked.

    Raises:
        RecipeError: The model makes a mask of its own whatever it is given, or adds ours up.
    """
    model.train(False)
    rows = [torch.tensor([[3, 4, 5, last]]) for last in (6, 7)]
    masked = torch.tensor([[True, True, True, False]])
    with torch.no_grad():
        seen, hidden = (
            [_states(model, row, mask)[:, 0] for row in rows]
            for mask in (torch.ones_like(masked), masked)
        )
    if torch.equal(*seen) or not torch.equal(*hidden):
        raise RecipeError(f"{name!r} takes no mask of ours: it cannot be read in both directions")


def _mean(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the last hidden states of what the mask keeps, float32 [B, H]."""
    states = _states(model, ids, mask).float()  # [B, L, H]
    kept = mask[:, :, None]  # [B, L, 1]
    return (states * kept).sum(dim=1) / kept.sum(dim=1)


def _states(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    # A mask of four dimensions is taken as it is; True is seen, whatever comes after it.
    seen = mask[:, None, None, :].expand(-1, 1, ids.shape[1], -1)  # [B, 1, L, L]
    found = model(input_ids=ids, attention_mask=seen, use_cache=False, output_hidden_states=True)
    states: Tensor = found.hidden_states[-1]
    return states
