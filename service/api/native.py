"""`POST /rank`: the service's own way to ask for a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.api.checks import id_faults
from service.api.dialect import Answer, Dialect, Question
from service.api.schema import RankRequest, RankResponse
from service.contract.types import RankedDocument
from service.ranking.errors import InvalidRequestError
from service.ranking.ranker import Ranking


def ask(asked: RankRequest) -> Sequence[Question]:
    """Return what a request asks.

    Raises:
        InvalidRequestError: Two candidates have the same id.
    """
    if faults := [*id_faults(asked.candidates)]:
        raise InvalidRequestError(*faults)
    question = Question(
        asked.query,
        [candidate.candidate() for candidate in asked.candidates],
        top_k=asked.top_k,
        deadline_ms=asked.deadline_ms,
        low=asked.priority == "low",
        partial=asked.on_deadline == "partial",
        routing_key=asked.routing_key,
    )
    return (question,)


def write(asked: RankRequest, answer: Answer) -> object:
    """Return a `RankResponse` as a dict."""
    ranking = answer.ranking
    return {
        "request_id": answer.request_id,
        "model": answer.model.model_dump(),
        "results": results_of(asked, ranking.documents, ranking.relevance.tolist()),
        "degraded": ranking.degraded,
        "scored": ranking.scored,
        "usage": {
            "prompt_tokens": ranking.real_tokens,
            "padded_tokens": ranking.padded_tokens,
            "total_tokens": ranking.real_tokens,
        },
        "timings": _timings(ranking, answer.total_s),
    }


def results_of(
    asked: RankRequest, documents: Sequence[RankedDocument], relevance: Sequence[float]
) -> list[dict[str, Any]]:
    """Return each `RankResult` as a dict, which costs a third of making and dumping models.

    Args:
        asked: The request.
        documents: Its candidates in order, those without a score last.
        relevance: Of the first of them; the others have none.
    """
    relevances = [*relevance, *[None] * (len(documents) - len(relevance))]
    results: list[dict[str, Any]] = [
        {
            "id": document.id,
            "index": document.index,
            "rank": document.rank,
            "score": document.score,
            "relevance": relevance,
        }
        for document, relevance in zip(documents, relevances, strict=True)
    ]
    if asked.return_documents:
        for result in results:
            candidate = asked.candidates[result["index"]]
            result["document"] = candidate.model_dump(exclude={"id"}, exclude_none=True)
    return results


def _timings(ranking: Ranking, total_s: float) -> dict[str, float]:
    stages_ms = {f"{stage}_ms": round(1000 * s, 3) for stage, s in ranking.stages_s.items()}
    return {**stages_ms, "total_ms": round(1000 * total_s, 3)}


NATIVE = Dialect(
    request=RankRequest, response=RankResponse, ask=ask, write=write, documents="candidates"
)
