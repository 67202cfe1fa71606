"""What users search for: a query log, told again and again."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from loadtest.payloads import Generator, rank_body, replayed
from service.contract.types import RankingExample

TOP_K = 10


def query_log(
    tokenizer: Path, *, candidates: int, count: int, seed: int = 0
) -> list[RankingExample]:
    """Return requests that repeat as a real query log does; equal ones for equal arguments."""
    distinct = Generator(tokenizer, seed=seed).requests("web", candidates=candidates)
    return list(itertools.islice(replayed(distinct, seed=seed), count))


def told(log: Sequence[RankingExample]) -> Iterator[str]:
    """Yield a log's bodies of `POST /rank` without end.

    From the second time on, queries have another word at their end, so that the service knows no
    lap from an earlier one.
    """
    for lap in itertools.count():
        for example in log:
            query = f"{example.query} {lap}" if lap else example.query
            body = json.loads(rank_body(replace(example, query=query)))
            yield json.dumps({**body, "top_k": TOP_K})
