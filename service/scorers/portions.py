"""A sequence of pairs, a few tokens at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.contract.encoding import TokenPair

PORTION_TOKENS = 128
"""What is worked on at a time stays in a core's cache, and takes a few milliseconds."""


def portions(
    pairs: Sequence[TokenPair], most: int = PORTION_TOKENS
) -> Iterator[Sequence[TokenPair]]:
    """Yield the pairs in order, up to so many tokens at a time, one pair at least."""
    start = tokens = 0
    for end, pair in enumerate(pairs):
        if end > start and tokens + len(pair) > most:
            yield pairs[start:end]
            start, tokens = end, 0
        tokens += len(pair)
    if start < len(pairs):
        yield pairs[start:]


def real_tokens(pairs: Sequence[TokenPair]) -> int:
    """Return the tokens of the pairs themselves."""
    return sum(map(len, pairs))
