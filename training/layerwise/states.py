"""What a BERT computes on the way to its score: embeddings, states and attention of each layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import BertForSequenceClassification

from training.recipe import RecipeError


class States(NamedTuple):
    """A forward call of a BERT from the inside.

    Attributes:
        embeddings: What the first layer reads, [B, L, H].
        hidden: What each layer writes, [B, L, H] each.
        attention: Each layer's attention scores before mask and softmax, [B, A, L, L] each.
        scores: Raw logits, [B].
    """

    embeddings: Tensor
    hidden: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]
    scores: Tensor


def states_of(model: BertForSequenceClassification, batch: dict[str, Tensor]) -> States:
    """Return the states of a forward call.

    Raises:
        RecipeError: Not every layer shows its attention scores, as eager ones do.
    """
    require_eager(model)
    with _heard(model) as attention:
        found = model(**batch, output_hidden_states=True)
    layers = len(model.bert.encoder.layer)
    if len(attention) != layers:
        raise RecipeError(f"{len(attention)} of {layers} layers show their attention scores")
    embeddings, *hidden = found.hidden_states
    return States(embeddings, tuple(hidden), tuple(attention), found.logits[:, 0])


def require_eager(model: BertForSequenceClassification) -> None:
    """Refuse a model whose attention is computed in one piece.

    Fused attention has no scores to learn from: transformers' `output_attentions` gives None, and a
    loss over nothing is silently 0.

    Raises:
        RecipeError: It is not eager.
    """
    kind = model.config._attn_implementation
    if kind != "eager":
        raise RecipeError(f"attention is computed by {kind!r}; layers are compared in 'eager'")


@contextmanager
def _heard(model: BertForSequenceClassification) -> Iterator[list[Tensor]]:
    """Yield a list that gets each layer's attention scores meanwhile, [B, A, L, L] each."""
    heads = model.config.num_attention_heads
    attention: list[Tensor] = []
    handles: list[RemovableHandle] = []
    for layer in model.bert.encoder.layer:
        handles += _listen(layer.get_submodule("attention.self"), heads, attention)
    try:
        yield attention
    finally:
        for handle in handles:
            handle.remove()


def _listen(layer: nn.Module, heads: int, attention: list[Tensor]) -> list[RemovableHandle]:
    """Add QKᵀ / √d of an attention layer to a list whenever it is called."""
    seen: dict[str, Tensor] = {}

    def query(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        seen["query"] = _by_head(output, heads)

    def key(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        seen["key"] = _by_head(output, heads)

    def scores(_module: nn.Module, _inputs: object, _output: object) -> None:
        queries, keys = seen.pop("query"), seen.pop("key")  # [B, A, L, d] each
        attention.append(queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[3]))

    return [
        layer.get_submodule("query").register_forward_hook(query),
        layer.get_submodule("key").register_forward_hook(key),
        layer.register_forward_hook(scores),
    ]


def _by_head(states: Tensor, heads: int) -> Tensor:
    batch, length, _ = states.shape
    return states.view(batch, length, heads, -1).transpose(1, 2)  # [B, A, L, d]
