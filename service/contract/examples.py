"""Ranking examples as JSON Lines: one query with its candidates a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.contract.types import Candidate, RankingExample


def write_examples(path: Path, examples: Iterable[RankingExample]) -> None:
    """Write examples, one JSON object a line, in the fields of `RankingExample`."""
    with path.open("w", encoding="utf-8") as stream:
        for example in examples:
            stream.write(json.dumps(asdict(example), ensure_ascii=False) + "\n")


def read_examples(path: Path) -> list[RankingExample]:
    """Return the examples of a JSON Lines file.

    Raises:
        ValueError: A line is no example; the message names file and line.
        OSError: The file cannot be read.
    """
    examples = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            examples.append(_example(json.loads(line.decode("utf-8")), str(number)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: not a ranking example: {error!r}") from None
    return examples


def _example(fields: dict[str, Any], number: str) -> RankingExample:
    return RankingExample(
        str(fields.get("query_id", number)),
        str(fields["query"]),
        tuple(_candidate(candidate) for candidate in fields["candidates"]),
        _floats(fields.get("grades")),
        _floats(fields.get("teacher_scores")),
    )


def _candidate(fields: dict[str, Any]) -> Candidate:
    candidate = Candidate(**fields)
    if not (isinstance(candidate.title, str) and isinstance(candidate.summary, str)):
        raise TypeError("title and summary must be strings")
    return candidate


def _floats(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)
