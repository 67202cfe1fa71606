"""Rankers that are not trained here, to compare with: BM25 and a bi-encoder's cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from service.contract.template import document_text
from service.contract.types import RankingExample
from training.figures import Floats, document_ids
from training.teacher import BiEncoder

MAX_LENGTH = 256
BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Bm25:
    """BM25 as bm25s has it by default, over the documents of a judged set.

    Attributes:
        rows: Place of each document's text in the index; without any, a query's own candidates are
            all the documents there are.
    """

    name: str = "BM25"
    relevance: None = None
    index: Any = None
    rows: Mapping[str, int] = field(default_factory=dict)

    def over(self, examples: Sequence[RankingExample]) -> Bm25:
        """Return BM25 over the documents of the examples."""
        import bm25s

        texts = {
            document_text(candidate): None
            for example in examples
            for candidate in example.candidates
        }
        index = bm25s.BM25()
        index.index(bm25s.tokenize(list(texts), show_progress=False), show_progress=False)
        return replace(self, index=index, rows={text: row for row, text in enumerate(texts)})

    def score(self, example: RankingExample) -> tuple[list[str], Floats]:
        """Return the candidates' ids and scores, 0.0 without a common word."""
        import bm25s

        if not self.rows:
            return self.over([example]).score(example)
        (words,) = bm25s.tokenize([example.query], return_ids=False, show_progress=False)
        known = [word for word in words if word in self.index.vocab_dict]
        every = self.index.get_scores(known) if known else np.zeros(len(self.rows))
        places = [self.rows[document_text(candidate)] for candidate in example.candidates]
        return document_ids(example), np.asarray(every[places], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Cosine:
    """A bi-encoder's cosine of query and document."""

    name: str
    encoder: BiEncoder
    relevance: None = None

    @classmethod
    def load(cls, base: str) -> Cosine:
        """Load a checkpoint: a folder, a hub name or the packaged MiniLM.

        Raises:
            RecipeError: It cannot be loaded.
        """
        encoder = BiEncoder(base, max_length=MAX_LENGTH, batch_tokens=BATCH_TOKENS)
        return cls(f"bi-encoder {base}", encoder)

    def score(self, example: RankingExample) -> tuple[list[str], Floats]:
        """Return the candidates' ids and cosines."""
        (scores,) = self.encoder.score([example])
        return document_ids(example), np.asarray(scores, dtype=np.float64)
