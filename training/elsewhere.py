"""Teachers that are not in this process: rerankers by URL, and scores or rankings in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from service.contract.decoder_checkpoint import checkpoint_encoder
from service.contract.types import Float32s, RankingExample
from service.scorers.json_client import RemoteError
from service.scorers.remote import RemoteScorer
from training.lines import finite, read_lines
from training.recipe import RecipeError, RemoteOptions


class RemoteTeacher:
    """A reranker by URL, asked for many queries at a time."""

    def __init__(self, url: str, options: RemoteOptions) -> None:
        """Take a server.

        Raises:
            RecipeError: The variable that should hold its key is not set, or the tokenizer cannot
                be used.
        """
        key = os.environ.get(options.key_variable) if options.key_variable else None
        if options.key_variable and not key:
            raise RecipeError(f"the environment variable {options.key_variable} holds no key")
        try:
            encoder = checkpoint_encoder(options.tokenizer) if options.tokenizer else None
        except ValueError as error:
            raise RecipeError(str(error)) from None
        self._options = options
        self._scorer = RemoteScorer(
            url,
            options.protocol,
            model=options.model,
            encoder=encoder,
            key=key,
            requests_per_s=options.requests_per_s,
            timeout_s=options.timeout_s,
        )

    def score(self, examples: Sequence[RankingExample]) -> list[Float32s]:
        """Return the raw scores of each example's candidates.

        Raises:
            RecipeError: The server does not answer as it should.
        """
        size = self._options.documents_per_request
        parts = [
            (example, start)
            for example in examples
            for start in range(0, len(example.candidates), size)
        ]
        with ThreadPoolExecutor(self._options.connections) as threads:
            try:
                found = [*threads.map(lambda part: self._part(*part), parts)]
            except RemoteError as error:
                threads.shutdown(cancel_futures=True)
                raise RecipeError(f"teacher {error}") from None
        scores: dict[int, list[Float32s]] = {}
        for (example, _), values in zip(parts, found, strict=True):
            scores.setdefault(id(example), []).append(values)
        return [np.concatenate(scores[id(example)]) for example in examples]

    def _part(self, example: RankingExample, start: int) -> Float32s:
        end = start + self._options.documents_per_request
        return self._scorer.score(example.query, example.candidates[start:end])


class ScoresFile:
    """Scores from elsewhere: a line a pair, `query id, document id, score`, tab-separated.

    A TREC run (`query Q0 document rank score tag`, separated by blanks) is read, too.
    """

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            RecipeError: It cannot be read, or a line is malformed or repeats a pair.
        """
        self._path = path
        self._scores: dict[tuple[str, str], float] = {}
        for where, line in read_lines(path):
            self._add(where, line)

    def score(self, examples: Sequence[RankingExample]) -> list[Float32s]:
        """Return the scores of each example's candidates.

        Raises:
            RecipeError: A candidate has none.
        """
        return [
            np.array([self._of(example, c.id) for c in example.candidates], dtype=np.float32)
            for example in examples
        ]

    def _add(self, where: str, line: str) -> None:
        match line.split("\t") if "\t" in line else line.split():
            case [query_id, document_id, score] | [query_id, _, document_id, _, score, _]:
                value = finite(where, "score", score)
            case _:
                raise RecipeError(
                    f"{where}: neither `query id, document id, score` nor a line of a TREC run"
                )
        if self._scores.setdefault((query_id, document_id), value) != value:
            raise RecipeError(f"{where}: another score for a pair that has one")

    def _of(self, example: RankingExample, document_id: str | None) -> float:
        try:
            return self._scores[example.query_id, document_id or ""]
        except KeyError:
            raise RecipeError(
                f"{self._path}: no score for query {example.query_id!r}, document {document_id!r}"
            ) from None


class RankingsFile:
    """Rankings from elsewhere, such as an LLM's listwise output.

    A JSON object a line: `{"query_id": …, "ranking": [document ids, best first]}`. The best of n
    ranked documents scores n, the last 1. Documents that the ranking omits score 0: an LLM leaves
    out what it finds beside the point, so they are the hard negatives.
    """

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            RecipeError: It cannot be read, or a line is malformed or repeats a query.
        """
        self._path = path
        self._rankings: dict[str, list[str]] = {}
        for where, line in read_lines(path):
            self._add(where, line)

    def score(self, examples: Sequence[RankingExample]) -> list[Float32s]:
        """Return the scores of each example's candidates.

        Raises:
            RecipeError: A query has no ranking, or one of documents it does not offer.
        """
        return [self._of(example) for example in examples]

    def _add(self, where: str, line: str) -> None:
        try:
            row = json.loads(line)
            query_id, ranking = row["query_id"], row["ranking"]
            sound = isinstance(query_id, str) and all(isinstance(name, str) for name in ranking)
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound or len(set(ranking)) < len(ranking):
            raise RecipeError(f'{where}: not {{"query_id": "…", "ranking": [distinct ids]}}')
        if query_id in self._rankings:
            raise RecipeError(f"{where}: a second ranking for query {query_id!r}")
        self._rankings[query_id] = ranking

    def _of(self, example: RankingExample) -> Float32s:
        ranking = self._rankings.get(example.query_id)
        if ranking is None:
            raise RecipeError(f"{self._path}: no ranking for query {example.query_id!r}")
        offered = {candidate.id for candidate in example.candidates}
        if unknown := [name for name in ranking if name not in offered]:
            raise RecipeError(
                f"{self._path}: query {example.query_id!r} ranks {unknown[0]!r}, which is none of "
                "its candidates"
            )
        scores = {name: len(ranking) - place for place, name in enumerate(ranking)}
        values = [scores.get(candidate.id or "", 0) for candidate in example.candidates]
        return np.array(values, dtype=np.float32)
