"""Ranking examples as JSON Lines: one query with its candidates a line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
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
    return [*iter_examples(path)]


def iter_examples(path: Path) -> Iterator[RankingExample]:
    """Yield the examples of a JSON Lines file, plain or gzipped, one in memory at a time.

    Raises:
        ValueError: A line is no example; the message names file and line.
        OSError: The file cannot be read.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _of_line(line, path, number)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path}: {error}") from None


def example_of(fields: dict[str, Any], number: int) -> RankingExample:
    """Return the example of a row; its number is its id where it has none.

    Raises:
        ValueError: It has not one score a candidate, or one that is no number.
        TypeError: A part is of another kind.
        KeyError: A part is missing.
    """
    return RankingExample(
        str(fields.get("query_id", number)),
        str(fields["query"]),
        tuple(_candidate(candidate) for candidate in fields["candidates"]),
        _floats(fields.get("grades")),
        _floats(fields.get("teacher_scores")),
    )


def _of_line(line: bytes, path: Path, number: int) -> RankingExample:
    try:
        return example_of(json.loads(line.decode("utf-8")), number)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}:{number}: not a ranking example: {error!r}") from None


def _candidate(fields: dict[str, Any]) -> Candidate:
    candidate = Candidate(**fields)
    if not (isinstance(candidate.title, str) and isinstance(candidate.summary, str)):
        raise TypeError("title and summary must be strings")
    return candidate


def _floats(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)
