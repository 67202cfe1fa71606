"""How long real queries, titles and summaries are, in tokens, and how often queries come again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Kind = Literal["web", "passage"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of whole numbers, by its quantiles.

    Attributes:
        quantiles: The values at 0, 5, …, 100 %.
    """

    quantiles: tuple[int, ...]

    def at(self, levels: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the values at levels in [0, 1], linear between two quantiles, same shape."""
        known = np.linspace(0.0, 1.0, len(self.quantiles))
        return np.rint(np.interp(levels, known, self.quantiles)).astype(np.int64)

    def draw(self, rng: Generator) -> int:
        """Return a draw."""
        return int(self.at(rng.random(1))[0])


@dataclass(frozen=True, slots=True)
class PairLengths:
    """Tokens of a kind of ranking request, special tokens aside.

    Attributes:
        query: Tokens of a query.
        title: Tokens of a document's title; 0 where it has none.
        summary: Tokens of its summary; 0 where it has none.
    """

    query: Lengths
    title: Lengths
    summary: Lengths


# fmt: off
LENGTHS: dict[Kind, PairLengths] = {
    # Title and snippet of web results: mwmbl_web_llm, the validation split's 85 queries and the
    # 3,782 of their documents that have any text, in the shipped bundle's tokens.
    "web": PairLengths(
        query=Lengths((1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 5, 5, 7, 12)),
        title=Lengths((0, 0, 0, 0, 0, 2, 3, 4, 5, 5, 6, 7, 7, 8, 10, 11, 12, 14, 16, 18, 96)),
        summary=Lengths(
            (0, 0, 0, 0, 0, 11, 26, 29, 30, 31, 32, 32, 33, 34, 35, 36, 38, 39, 41, 45, 111)
        ),
    ),
    # Passages without a title: TREC DL 2019, all 43 queries and 4,337 passages.
    "passage": PairLengths(
        query=Lengths((4, 4, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 7, 8, 9, 9, 10, 12, 13)),
        title=Lengths((0,) * 21),
        summary=Lengths(
            # 0 to 50 %, then 55 to 100 %.
            (10, 42, 48, 51, 55, 57, 60, 63, 65, 68, 70,
             74, 78, 84, 92, 100, 109, 118, 130, 146, 258)
        ),
    ),
}

REPEAT_SHARE = 0.47
"""Share of a log's requests that were made before: Excite 1997, 3,968 non-blank of 4,501 rows."""

REPEAT_GAP = Lengths((1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6, 8, 11, 17, 29, 80, 3399))
"""Requests back to the last time the same query was made, in the same log."""

RECURRENCE = 0.019
"""Share of candidates seen before: mwmbl_web_llm, 15,289 documents in 15,587 pairs."""
# fmt: on
