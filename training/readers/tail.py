"""The long tail of a judged set: its long queries, and those with rare words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from service.contract.template import document_text
from service.contract.types import Candidate
from training.recipe import JudgedSet

WORD = re.compile(r"\w+")


def tail_of(
    queries: Mapping[str, str], corpus: Mapping[str, Candidate], source: JudgedSet
) -> dict[str, str]:
    """Return the queries by id that are as long and as rare as a source asks.

    A query is as rare as its rarest word among the set's documents. Words are runs of letters and
    digits, in lower case.
    """
    kept = {
        query_id: text
        for query_id, text in queries.items()
        if len(text.split()) >= source.words_from
    }
    if source.rarest_to is None:
        return kept
    documents = Counter(
        word for candidate in corpus.values() for word in words(document_text(candidate))
    )
    return {
        query_id: text
        for query_id, text in kept.items()
        if min((documents[word] for word in words(text)), default=0) <= source.rarest_to
    }


def words(text: str) -> set[str]:
    """Return the distinct words of a text."""
    return set(WORD.findall(text.lower()))
