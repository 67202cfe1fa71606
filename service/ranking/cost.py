"""What ranking a request costs, judged before the work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.contract.types import Candidate

BYTES_PER_TOKEN = 4
"""UTF-8 bytes a token stands for; English has about 4.7, so this overestimates a little."""

BYTES_TOKENISED_PER_TOKEN = 400
"""Bytes tokenised in the time of one token in the model: 5 MB/s against 12,000 tokens/s."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A request's work, tokenising included, in tokens of the model.

    Attributes:
        tokens: Of all pairs.
        longest: Of the longest pair, which one core scores alone.
    """

    tokens: int
    longest: int

    def plus(self, pair_tokens: int, tokenised_bytes: int = 0) -> Cost:
        """Return the cost with one more pair, and what tokenising it takes."""
        tokens = self.tokens + pair_tokens + tokenised_bytes // BYTES_TOKENISED_PER_TOKEN
        return Cost(tokens, max(self.longest, pair_tokens))


NOTHING = Cost(0, 0)


def cost_of_bytes(
    query: str,
    candidates: Sequence[Candidate],
    *,
    max_length: int,
    max_query_length: int,
    frame_tokens: int,
) -> Cost:
    """Return a request's cost, judged by its bytes.

    Args:
        query: Query text.
        candidates: The documents.
        max_length: Tokens of the longest pair.
        max_query_length: Tokens kept of a query.
        frame_tokens: Tokens of a pair beside its texts'.
    """
    query_bytes = len(query.encode())
    query_tokens = min(max_query_length, tokens_of(query_bytes))
    total_bytes, total_tokens, longest = query_bytes, 0, 0
    for candidate in candidates:
        size = document_bytes(candidate)
        total_bytes += size
        tokens = min(max_length, query_tokens + tokens_of(size) + frame_tokens)
        total_tokens += tokens
        longest = max(longest, tokens)
    return Cost(total_tokens + total_bytes // BYTES_TOKENISED_PER_TOKEN, longest)


def document_bytes(candidate: Candidate) -> int:
    """Return the bytes of a document's text."""
    return len(candidate.title.encode()) + len(candidate.summary.encode())


def tokens_of(size_bytes: int) -> int:
    """Return about how many tokens a text of so many bytes has."""
    return math.ceil(size_bytes / BYTES_PER_TOKEN)
