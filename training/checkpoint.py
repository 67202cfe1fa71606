"""A checkpoint: a plain Hugging Face folder with `disranker.json` beside the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from service.contract.checkpoint import CARD, VALIDATION, Card
from service.contract.examples import write_examples
from service.contract.folder import replaced_folder
from service.contract.types import RankingExample

Weights = dict[str, Tensor]


def write_checkpoint(
    target: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: Card,
    validation: Sequence[RankingExample],
    *,
    weights: Weights | None = None,
) -> None:
    """Write a checkpoint, replacing an older one at target in one step.

    Args:
        target: The checkpoint's folder.
        model: The student or teacher.
        tokenizer: Its tokenizer.
        card: Goes to `disranker.json`.
        validation: Examples that export holds its models against, with or without grades.
        weights: Written instead of the model's own.
    """
    with replaced_folder(target) as folder:
        model.save_pretrained(folder, state_dict=weights, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_examples(folder / VALIDATION, validation)
