"""Pairs that exported models are judged by."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from export.errors import ExportError
from service.contract.checkpoint import VALIDATION
from service.contract.examples import read_examples
from service.contract.types import RankingExample


def parity_examples(checkpoint: Path, path: Path | None) -> list[RankingExample]:
    """Return those of a file, else the checkpoint's `validation.jsonl`, else the golden pairs.

    Raises:
        ExportError: The file cannot be read, or has no candidates.
    """
    source = path or checkpoint / VALIDATION
    if path is None and not source.exists():
        return own_examples()
    try:
        found = read_examples(source)
    except (OSError, ValueError) as error:
        raise ExportError(f"parity examples: {error}") from None
    if not any(example.candidates for example in found):
        raise ExportError(f"parity examples: {source} has no query with candidates")
    return found


def own_examples() -> list[RankingExample]:
    """Return the queries that become a bundle's golden pairs."""
    with_path = files("export") / "golden.jsonl"
    return read_examples(Path(str(with_path)))
