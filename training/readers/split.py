"""Splits by query: a function of the query's text alone, so that no query is in two parts."""

from __future__ import annotations

import unicodedata

from training.hashing import stable_hash
from training.recipe import Part

TRAIN, VAL = 0.90, 0.95
"""Shares up to which a query's hash is in `train` and in `val`; the rest is `test`."""


def part_of(query: str) -> Part:
    """Return the part a query belongs to, whatever its id, data set, case or spacing."""
    share = query_hash(query) / 2**64
    if share < TRAIN:
        return "train"
    return "val" if share < VAL else "test"


def query_hash(query: str) -> int:
    """Return a 64-bit hash that texts of the same query share."""
    return stable_hash(normalised(query))


def normalised(query: str) -> str:
    """Return the text without what does not make another query: case, width, white space."""
    return " ".join(unicodedata.normalize("NFKC", query).casefold().split())
