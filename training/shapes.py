"""Shapes of rankers by configuration: random weights, made where they will run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A ranker's size; `key_heads` fewer than `heads` share keys and values (decoders only)."""

    name: str
    kind: Literal["bert", "decoder"]
    layers: int
    hidden: int
    heads: int
    key_heads: int
    feed_forward: int
    vocabulary: int

    def flops(self, batch: int, length: int) -> float:
        """Return the floating-point operations of one forward call, an addition being one.

        Matrix products only: projections, feed-forward, attention (in full, also where a causal
        mask hides half of it) and the head.
        """
        tokens = batch * length
        keys = self.hidden * self.key_heads // self.heads
        projections = 2 * self.hidden * (2 * self.hidden + 2 * keys)
        matrices = 2 if self.kind == "bert" else 3  # a decoder's feed-forward is gated
        feed_forward = 2 * matrices * self.hidden * self.feed_forward
        attention = 4 * length * self.hidden
        body = self.layers * tokens * (projections + feed_forward + attention)
        if self.kind == "bert":
            return body + batch * (2 * self.hidden**2 + 2 * self.hidden)  # pooler and score
        return body + tokens * 2 * self.hidden  # the score of every token

    def build(self, *, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
        """Return the model with random weights, in evaluation mode.

        The weights are made on the device in their dtype: 7 billion on a GPU take nothing of the
        host's memory.
        """
        with device:
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
                self._config(), dtype=dtype
            )
        model.train(False)
        return model

    def _config(self) -> PretrainedConfig:
        if self.kind == "bert":
            return BertConfig(  # type: ignore[no-untyped-call]
                vocab_size=self.vocabulary,
                hidden_size=self.hidden,
                num_hidden_layers=self.layers,
                num_attention_heads=self.heads,
                intermediate_size=self.feed_forward,
                num_labels=1,
            )
        return MistralConfig(  # type: ignore[no-untyped-call]
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            intermediate_size=self.feed_forward,
            num_labels=1,
            pad_token_id=0,  # the head scores the last token that is none
            sliding_window=None,
            use_cache=False,
        )


PAPER = (
    Shape("decoder 7B", "decoder", 32, 4096, 32, 8, 14336, 32000),
    Shape("BERT-12", "bert", 12, 768, 12, 12, 3072, 30522),
    Shape("BERT-6", "bert", 6, 768, 12, 12, 3072, 30522),
)
"""Mistral-7B-v0.1, BERT-base and six layers of it; the last one is what the ratios refer to."""

SMALL = (
    Shape("decoder 8 × 768", "decoder", 8, 768, 12, 4, 2048, 8000),
    Shape("BERT 12 × 256", "bert", 12, 256, 4, 4, 1024, 8000),
    Shape("BERT 6 × 256", "bert", 6, 256, 4, 4, 1024, 8000),
)
"""The same order of sizes for a CPU."""

STUDENTS = (
    Shape("BERT-12", "bert", 12, 768, 12, 12, 3072, 30522),
    Shape("BERT-6", "bert", 6, 768, 12, 12, 3072, 30522),
    Shape("6 × 384", "bert", 6, 384, 12, 12, 1536, 30522),
    Shape("3 × 384", "bert", 3, 384, 12, 12, 1536, 30522),
    Shape("4 × 312", "bert", 4, 312, 12, 12, 1200, 30522),
)
"""BERT-base and what it is distilled into: half its layers, MiniLM-L6, half of that, TinyBERT-4."""
