"""Decoders that are trained: a causal language model, or a scorer pooled on its `</s>`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from service.contract.checkpoint import Card
from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.encoding import TokenPair
from training.recipe import RecipeError
from training.student import LOAD_ERRORS
from training.teacher_recipes import Decoder

PAD = "<pad>"
HEAD = "score"

Precision = Literal["no", "bf16"]


def build_language_model(
    spec: Decoder, *, precision: Precision, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, DecoderPairEncoder]:
    """Return a causal language model, its tokenizer and the contract's encoder over it.

    Raises:
        RecipeError: It cannot be loaded, or would let packed sequences see each other.
    """
    model, tokenizer, encoder = _load(AutoModelForCausalLM, spec, precision, seed)
    check_packing(model, spec.base)
    return _adapted(model, spec, "CAUSAL_LM"), tokenizer, encoder


def build_scorer(
    spec: Decoder, *, precision: Precision, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, DecoderPairEncoder]:
    """Return a scorer of one label, its tokenizer and the contract's encoder over it.

    Raises:
        RecipeError: It cannot be loaded, or is no decoder.
    """
    model, tokenizer, encoder = _load(AutoModelForSequenceClassification, spec, precision, seed)
    if not isinstance(getattr(model, HEAD, None), nn.Linear):
        raise RecipeError(f"{spec.base!r} is no decoder that is pooled on its last token")
    _own_pad(model, tokenizer)
    model.config.bos_token_id, model.config.eos_token_id = (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    )
    # sentence-transformers then returns raw logits, as the service does, without being told.
    model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    exact_head(model)
    return _adapted(model, spec, "SEQ_CLS"), tokenizer, encoder


def load_scorer(
    folder: Path, card: Card
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, DecoderPairEncoder]:
    """Return the scorer of a checkpoint of `training sft`, its tokenizer and its encoder.

    Raises:
        RecipeError: The checkpoint lacks its head, or a padding of its own.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)  # type: ignore[no-untyped-call]
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype="auto", output_loading_info=True
    )
    if missing := sorted(loading["missing_keys"]):
        raise RecipeError(f"{folder} lacks {', '.join(missing)}")
    if model.config.pad_token_id in (None, tokenizer.eos_token_id):
        raise RecipeError(f"{folder}: padding is no token of its own, so </s> is not pooled")
    encoder = decoder_encoder(
        tokenizer, max_length=card.max_length, max_query_length=card.max_query_length
    )
    exact_head(model)
    return model.train(False), tokenizer, encoder


def decoder_encoder(
    tokenizer: PreTrainedTokenizerBase, *, max_length: int, max_query_length: int
) -> DecoderPairEncoder:
    """Return the contract's encoder over a decoder's tokenizer.

    Raises:
        RecipeError: The tokenizer has no `</s>`, or a limit leaves no room.
    """
    if tokenizer.eos_token_id is None:
        raise RecipeError("the tokenizer has no end-of-sequence token to pool on")
    try:
        return DecoderPairEncoder(
            tokenizer.backend_tokenizer,
            bos=tokenizer.bos_token_id,
            eos=tokenizer.eos_token_id,
            max_length=max_length,
            max_query_length=max_query_length,
        )
    except ValueError as error:
        raise RecipeError(str(error)) from None


class ExactHead(nn.Linear):
    """A scoring head that stays in float32: bfloat16 scores near 1 lie 0.008 apart, τ is 0.1."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the scores, [..., 1] float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return linear(hidden.float(), self.weight.float(), bias)


def exact_head(model: PreTrainedModel) -> None:
    """Let the scorer's head compute in float32, whatever its weights are stored in."""
    getattr(model, HEAD).__class__ = ExactHead


def plain(model: PreTrainedModel, spec: Decoder) -> PreTrainedModel:
    """Return the model with LoRA merged where the recipe wants it, as it will be loaded again."""
    if spec.lora is None or not spec.lora.merge:
        return model
    merged: Any = model
    merged = merged.merge_and_unload()
    loaded: PreTrainedModel = merged.to(merged.dtype)
    return loaded


def score_decoder_pairs(
    model: nn.Module, pairs: Sequence[TokenPair], *, pad: int, eos: int, rows: int
) -> Tensor:
    """Return the raw logits of the pairs, in their order, float32 [N].

    Args:
        model: A scorer pooled on its last token that is no padding.
        pairs: Token pairs, at least one, each closed by `eos`.
        pad: The padding's id, which no pair may hold.
        eos: The id of `</s>`, the token to be pooled.
        rows: Pairs a call; they are sorted by length.

    Raises:
        ValueError: Another token than `</s>` would be pooled.
    """
    if pad == eos or any(pair.input_ids[-1] != eos for pair in pairs):
        raise ValueError(f"a pair's pooled token is not </s> ({eos}); padding is {pad}")

    def score(ids: Tensor, _: Sequence[TokenPair]) -> Tensor:
        mask = (ids != pad).long()  # [B, L]
        logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits[:, 0].float()

    return in_batches(score, pairs, pad=pad, rows=rows, device=next(model.parameters()).device)


def in_batches(
    score: Callable[[Tensor, Sequence[TokenPair]], Tensor],
    pairs: Sequence[TokenPair],
    *,
    pad: int,
    rows: int,
    device: torch.device,
) -> Tensor:
    """Return the scores of pairs, in their order, that are padded and scored some at a time, [N].

    Args:
        score: Of padded ids, [B, L], and of the pairs that these are; [B].
        pairs: At least one.
        pad: The padding's id.
        rows: Pairs a call; they are sorted by length.
        device: Where the ids go.
    """
    order = sorted(range(len(pairs)), key=lambda place: len(pairs[place]))
    parts = []
    for start in range(0, len(order), rows):
        chunk = [pairs[place] for place in order[start : start + rows]]
        ids = np.full((len(chunk), len(chunk[-1])), pad)  # [B, L]
        for row, pair in enumerate(chunk):
            ids[row, : len(pair)] = pair.input_ids
        parts.append(score(torch.from_numpy(ids).to(device), chunk))
    inverse = torch.empty(len(order), dtype=torch.long, device=device)
    inverse[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
    return torch.cat(parts)[inverse]  # [N]


def check_packing(model: PreTrainedModel, name: str) -> None:
    """Check that position ids that begin anew keep the sequences of a row apart.

    Changing the first of two sequences may not change a bit of the second's logits.

    Raises:
        RecipeError: It does, as in models that know no position ids.
    """
    model.train(False)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    found = []
    for first in (1, 2):
        ids = torch.tensor([[first] * 4 + [3, 4, 5, 6]])
        try:
            with torch.no_grad():
                found.append(model(input_ids=ids, position_ids=positions, use_cache=False).logits)
        except TypeError:
            raise RecipeError(f"{name!r} takes no position ids: rows cannot be packed") from None
    if not torch.equal(found[0][:, 4:], found[1][:, 4:]):
        raise RecipeError(f"{name!r} lets the sequences of a packed row see each other")


def _load(
    kind: Any, spec: Decoder, precision: Precision, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, DecoderPairEncoder]:
    torch.manual_seed(seed)
    # Weights that are trained stay in float32; those that LoRA leaves alone need not.
    frozen = spec.lora is not None and precision == "bf16"
    labels = {"num_labels": 1} if kind is AutoModelForSequenceClassification else {}
    level = transformers_logging.get_verbosity()
    # A newly initialised head is what we ask for, nothing to warn of.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.base)  # type: ignore[no-untyped-call]
        model = kind.from_pretrained(
            spec.base, dtype=torch.bfloat16 if frozen else torch.float32, **labels
        )
    except LOAD_ERRORS as error:
        raise RecipeError(f"model {spec.base!r} cannot be loaded: {error}") from error
    finally:
        transformers_logging.set_verbosity(level)
    encoder = decoder_encoder(
        tokenizer, max_length=spec.max_length, max_query_length=spec.max_query_length
    )
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model, tokenizer, encoder


def _adapted(model: PreTrainedModel, spec: Decoder, task: str) -> PreTrainedModel:
    """Return the model, with LoRA's layers where the recipe has any."""
    if spec.lora is None:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise RecipeError("peft is not installed; it comes with the [training] extra") from None
    config = LoraConfig(
        task_type=task,
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,
        lora_dropout=spec.lora.dropout,
        target_modules="all-linear",
    )
    adapted: Any = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trained: PreTrainedModel = adapted
    return trained


def _own_pad(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer a padding token of its own: with pad = eos the `</s>` would be skipped."""
    others = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in others:
        tokenizer.add_special_tokens({"pad_token": PAD})
    embeddings: Any = model.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id
