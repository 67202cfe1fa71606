"""A checkpoint: a plain Hugging Face folder with `disranker.json` beside the weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import BertForSequenceClassification, PreTrainedTokenizerBase

from service.contract.checkpoint import CARD, VALIDATION, Card
from service.contract.examples import write_examples
from service.contract.types import RankingExample


def write_checkpoint(
    target: Path,
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    card: Card,
    validation: Sequence[RankingExample],
) -> None:
    """Write a checkpoint, replacing an older one at target in one step.

    Args:
        target: The checkpoint's folder.
        model: The student.
        tokenizer: Its tokenizer.
        card: Goes to `disranker.json`.
        validation: Examples that export holds its models against, with or without grades.
    """
    with replaced_folder(target) as folder:
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
        (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_examples(folder / VALIDATION, validation)


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes target when the block ends without an error.

    A reader finds the old folder or the new one, and after a kill at any moment one of them is
    at target or, between two renames, at `.{name}.old`, from where `restore_folder` brings it back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    restore_folder(target)
    scratch = _scratch(target)
    scratch.mkdir()
    try:
        yield scratch
        for path in scratch.rglob("*"):
            if path.is_file():
                _sync(path)
        if target.exists():
            target.rename(_aside(target))
        scratch.rename(target)
        shutil.rmtree(_aside(target), ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def restore_folder(target: Path) -> None:
    """Undo the first half of a killed replacement, and remove what else is left of it."""
    shutil.rmtree(_scratch(target), ignore_errors=True)
    aside = _aside(target)
    if aside.exists() and not target.exists():
        aside.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _scratch(target: Path) -> Path:
    return target.parent / f".{target.name}.new"


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
