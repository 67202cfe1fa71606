"""The order that a language model writes down, whatever it writes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

THOUGHT, THOUGHT_END = "<think>", "</think>"
"""Between these, some models say to themselves what is no answer yet."""

BRACKETS = re.compile(r"\[([^\[\]]*)\]")
NUMBER = re.compile(r"(?<![0-9.])0*([0-9]{1,6})(?![0-9]|\.[0-9])")


@dataclass(frozen=True, slots=True)
class Permutation:
    """What was shown, as it was ranked; together each place once.

    Attributes:
        ranked: Places, from 0, best first.
        omitted: Places that are not ranked, in their order.
    """

    ranked: tuple[int, ...]
    omitted: tuple[int, ...]


def read_permutation(text: str, shown: int) -> Permutation:
    """Return the order of `shown` documents, numbered from 1, that a text gives.

    Numbers in brackets count, or all where none is in brackets; those of no document, and all but
    a document's first, are passed over. No text makes it fail.
    """
    said = text.rpartition(THOUGHT_END)[2].partition(THOUGHT)[0]
    ranked = _places(" ".join(BRACKETS.findall(said)), shown) or _places(said, shown)
    omitted = tuple(place for place in range(shown) if place not in ranked)
    return Permutation(tuple(ranked), omitted)


def _places(text: str, shown: int) -> dict[int, None]:
    return dict.fromkeys(place for place in _numbers(text) if 0 <= place < shown)


def _numbers(text: str) -> Iterator[int]:
    for found in NUMBER.findall(text):
        yield int(found) - 1
