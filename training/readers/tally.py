"""What reading a source came across: nothing is left out without being counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.contract.template import document_text
from service.contract.types import RankingExample
from training.hashing import stable_hash
from training.readers.split import query_hash

LONG_WORDS = 256
"""A pair of more words than the 256 tokens that a ranker reads is cut for certain."""


@dataclass(slots=True)
class Tally:
    """Counts of rows; a row is a query with one document.

    Attributes:
        source: What is read.
        rows: All rows.
        empty: Rows left out because the query or the document has no text.
        duplicates: Rows left out because the same query (see `query_hash`) came with the same
            document text before.
        contradictions: Those of the duplicates that have another grade than the first.
        unknown_queries: Rows left out because the query has no text in the source.
        unknown_documents: Rows left out because the document is not in the collection.
        overlong: Rows kept, of more words than a ranker has tokens for.
        window: Rows back to which duplicates are found at least; None: all.
    """

    source: str
    rows: int = 0
    empty: int = 0
    duplicates: int = 0
    contradictions: int = 0
    unknown_queries: int = 0
    unknown_documents: int = 0
    overlong: int = 0
    window: int | None = None
    _grades: dict[int, float | None] = field(default_factory=dict)
    _older: dict[int, float | None] = field(default_factory=dict)

    def tidy(self, example: RankingExample) -> RankingExample | None:
        """Return the example with the candidates that count; None where none is left."""
        places = [place for place in range(len(example.candidates)) if self._counts(example, place)]
        if not places:
            return None
        if len(places) == len(example.candidates):
            return example
        return RankingExample(
            example.query_id,
            example.query,
            tuple(example.candidates[place] for place in places),
            _chosen(example.grades, places),
            _chosen(example.teacher_scores, places),
        )

    def repeat(self, *, other_grade: bool) -> None:
        """Count a row of a query and a document that came before."""
        self.rows += 1
        self.duplicates += 1
        self.contradictions += other_grade

    def _counts(self, example: RankingExample, place: int) -> bool:
        text = document_text(example.candidates[place])
        if not text.strip() or not example.query.strip():
            self.rows += 1
            self.empty += 1
            return False
        grade = None if example.grades is None else example.grades[place]
        key = stable_hash(f"{query_hash(example.query)} {text}")
        for known in (self._grades, self._older):
            if key in known:
                self.repeat(other_grade=grade != known[key])
                return False
        if len(self._grades) == self.window:
            self._older, self._grades = self._grades, {}
        self._grades[key] = grade
        self.rows += 1
        self.overlong += len(example.query.split()) + len(text.split()) > LONG_WORDS
        return True

    def __str__(self) -> str:
        rows = self.rows + self.unknown_queries + self.unknown_documents
        return (
            f"{self.source}: {rows:,} rows; left out {self.empty:,} empty, {self.duplicates:,} "
            f"duplicates ({self.contradictions:,} with another grade), {self.unknown_queries:,} of "
            f"unknown queries, {self.unknown_documents:,} of unknown documents; kept "
            f"{self.overlong:,} of over {LONG_WORDS} words, which will be cut"
        )


def _chosen(values: tuple[float, ...] | None, places: list[int]) -> tuple[float, ...] | None:
    return None if values is None else tuple(values[place] for place in places)
