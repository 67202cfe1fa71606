"""RRA-GPT's model: a decoder with a ranking head, which also writes label and reason."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.template import DECODER_TEMPLATE
from training.baselines.mean_scorer import head_of
from training.baselines.scorers import Way
from training.decoder import Precision, build_scorer, load_scorer, score_decoder_pairs
from training.losses import target_cross_entropy
from training.teacher_recipes import Decoder


class JointModel(nn.Module):
    """A scorer with the output layer of the language model that it was made from.

    The ranking head reads the pair's `</s>`, the last token of what is given; label and reason come
    after it. A decoder's token sees none after it, so that what is written leaves the score alone,
    and the scorer by itself is an ordinary decoder teacher.
    """

    def __init__(self, scorer: PreTrainedModel, output: nn.Linear) -> None:
        super().__init__()
        self.scorer = scorer
        self.output = output

    def forward(self, **inputs: Any) -> Any:
        """Return what the scorer does; with `labels`, scores [B] and the summed loss of writing.

        With labels, `last` says where each row's `</s>` is, [B] int64.
        """
        if "labels" not in inputs:
            return self.scorer(**inputs)
        base: Any = self.scorer
        decoder = getattr(base, "get_base_model", lambda: base)().base_model
        states: Tensor = decoder(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
        ).last_hidden_state  # [B, L, H]
        rows = torch.arange(len(states), device=states.device)
        scores: Tensor = head_of(self.scorer)(states[rows, inputs["last"]])  # [B, 1]
        logits = self.output(states)  # [B, L, V]
        return scores[:, 0].float(), target_cross_entropy(logits, inputs["labels"])


def build_joint(
    spec: Decoder, *, precision: Precision, seed: int
) -> tuple[JointModel, PreTrainedTokenizerBase, DecoderPairEncoder]:
    """Return a model, its tokenizer and the contract's encoder over it.

    With LoRA the output layer stays as it is.

    Raises:
        RecipeError: It cannot be loaded, or is no decoder.
    """
    scorer, tokenizer, encoder = build_scorer(spec, precision=precision, seed=seed)
    whole: Any = AutoModelForCausalLM.from_pretrained(spec.base, dtype=scorer.dtype)
    output = whole.get_output_embeddings()
    if whole.config.tie_word_embeddings:
        embeddings: Any = scorer.get_input_embeddings()
        output.weight = embeddings.weight
    elif spec.lora is not None:
        output.requires_grad_(False)
    return JointModel(scorer, output), tokenizer, encoder


JOINT = Way(
    DECODER_TEMPLATE, build_joint, load_scorer, score_decoder_pairs, lambda model: model.scorer
)
"""Trained together; what is kept is a decoder teacher like any other."""
