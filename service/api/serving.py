"""A request to rank, in whatever dialect, from its body to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import time
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from starlette.background import BackgroundTask

from service.api.body import read_body, while_connected
from service.api.checks import query_faults
from service.api.dialect import Answer, Dialect, Question
from service.api.faults import faults_of, no_json
from service.api.intake import Intake
from service.api.record import RequestRecord, record_of
from service.api.routing import route
from service.api.schema import ServedModel
from service.ranking.errors import Fault, InvalidRequestError, TextTooLongError
from service.ranking.model import Model
from service.ranking.ranker import Ranker, Ranking
from service.rollout.answered import Answered
from service.rollout.lanes import Lanes
from service.rollout.shadow import Shadow
from service.settings import Settings
from service.telemetry import Telemetry

MB = 1_000_000

SIDE_BY_SIDE = 32
"""Questions of one request that are ranked at a time: admission looks at all that are."""


@dataclass(frozen=True, slots=True)
class Read:
    """A request that is well formed.

    Attributes:
        dialect: What it is written in.
        asked: What it says.
        questions: What it asks, one a query.
    """

    dialect: Dialect[Any]
    asked: BaseModel
    questions: Sequence[Question]


class Serving:
    """Answers requests to rank, in every dialect alike."""

    def __init__(
        self, lanes: Lanes, *, shadow: Shadow, settings: Settings, telemetry: Telemetry
    ) -> None:
        self._lanes = lanes
        self._shadow = shadow
        self._settings = settings
        self._telemetry = telemetry
        self._intake = Intake(
            max_requests=settings.max_requests, max_bytes=settings.max_bodies_mb * MB
        )

    async def answer(self, request: Request, dialects: Sequence[Dialect[Any]]) -> Response:
        """Return the answer to a request in one of the dialects of its path.

        Raises:
            RankError: There is none.
            ClientDisconnect: The client left.
        """
        record = record_of(request)
        with self._intake.request() as held:
            body = await read_body(
                request,
                held,
                max_bytes=self._settings.max_body_bytes,
                timeout_s=self._settings.default_deadline_ms / 1000,
            )
            read = read_request(body, dialects, max_query_chars=self._settings.max_query_chars)
            del body  # the longer part of a request's life is the queue
            record.candidates = sum(len(question.candidates) for question in read.questions)
            model = self._route(request, read, record)
            with model.held():
                rankings = await while_connected(request, self._rank(model.ranker, read, record))
        self._note(record, rankings)
        served = ServedModel.of(record.lane)
        answer = Answer(record.request_id, served, rankings, record.elapsed_s)
        content = to_json(
            read.dialect.write(read.asked, answer),
            inf_nan_mode="null",  # a document that comes back may have a number out of range
        )
        after = BackgroundTask(self._offer, read, rankings, record)
        return Response(content, media_type="application/json", background=after)

    def _route(self, request: Request, read: Read, record: RequestRecord) -> Model:
        key = read.questions[0].routing_key
        choice = route(self._lanes, record, request.headers, routing_key=key)
        record.go(choice)
        self._telemetry.of(record.lane).observe_route(choice.reason)
        return choice.served.model

    async def _rank(self, ranker: Ranker, read: Read, record: RequestRecord) -> Sequence[Ranking]:
        """Rank every question.

        Raises:
            RankError: One could not be ranked; then the others are given up.
        """
        try:
            if len(read.questions) == 1:
                return [await self._ranking(ranker, read.questions[0], record)]
            turns = asyncio.Semaphore(SIDE_BY_SIDE)

            async def ranking(question: Question) -> Ranking:
                async with turns:
                    return await self._ranking(ranker, question, record)

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ranking(question)) for question in read.questions]
        except TextTooLongError as error:
            raise _located(error, read.dialect) from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ranking(self, ranker: Ranker, question: Question, record: RequestRecord) -> Ranking:
        deadline_ms = question.deadline_ms or self._settings.default_deadline_ms
        return await ranker.rank(
            question.query,
            question.candidates,
            arrived=record.began,
            allowed_s=deadline_ms / 1000,
            top_k=question.top_k,
            low=question.low,
            partial=question.partial,
            truncation=question.truncation,
        )

    async def _offer(self, read: Read, rankings: Sequence[Ranking], record: RequestRecord) -> None:
        """Offer what was answered to the shadow; runs once the answer was sent."""
        for question, ranking in zip(read.questions, rankings, strict=True):
            self._shadow.offer(
                Answered(
                    record.request_id,
                    time(),
                    record.lane,
                    question.query,
                    question.candidates,
                    ranking.scores,
                    question.truncation,
                )
            )

    def _note(self, record: RequestRecord, rankings: Sequence[Ranking]) -> None:
        metrics = self._telemetry.of(record.lane)
        for ranking in rankings:
            metrics.observe_ranking(
                pairs=ranking.scored,
                real_tokens=ranking.real_tokens,
                padded_tokens=ranking.padded_tokens,
                stages_s=ranking.stages_s,
            )
        record.tokens = sum(ranking.real_tokens for ranking in rankings)
        record.degraded = any(ranking.degraded for ranking in rankings)
        record.stages_s = max(
            (r.stages_s for r in rankings), key=lambda stages: sum(stages.values())
        )


def read_request(
    body: bytes | bytearray, dialects: Sequence[Dialect[Any]], *, max_query_chars: int
) -> Read:
    """Return the request in a body.

    Args:
        body: What was sent.
        dialects: What it may be written in; the first of whose keys it has one, else the last.
        max_query_chars: Longest query.

    Raises:
        InvalidRequestError: It is no JSON (400), or breaks a rule (422).
    """
    try:
        dialect, asked = _parsed(body, dialects)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise no_json(body, first["msg"]) from None
        raise InvalidRequestError(*faults_of(error), total=error.error_count()) from None
    questions = dialect.ask(asked)
    for question in questions:
        if faults := [
            *query_faults(question.query, max_chars=max_query_chars, field=dialect.query)
        ]:
            raise InvalidRequestError(*faults)
    return Read(dialect, asked, questions)


def _parsed(
    body: bytes | bytearray, dialects: Sequence[Dialect[Any]]
) -> tuple[Dialect[Any], BaseModel]:
    *others, usual = dialects
    if not others:
        return usual, usual.request.model_validate_json(body)
    try:
        found = from_json(body)
    except ValueError as error:
        raise no_json(body, f"Invalid JSON: {error}") from None
    given = found.items() if isinstance(found, dict) else ()
    keys = {key for key, value in given if value is not None}
    dialect = next((other for other in others if not other.keys.isdisjoint(keys)), usual)
    return dialect, dialect.request.model_validate(found)


def _located(error: TextTooLongError, dialect: Dialect[Any]) -> InvalidRequestError:
    """Return the error in the words of the dialect."""
    if error.index is None:
        field, text = dialect.query, "the query"
    else:
        field, text = f"{dialect.documents}[{error.index}]", "the document"
    message = f"{text} has more than the {error.limit} tokens that the model reads of it"
    return InvalidRequestError(Fault(field, message, limit=error.limit))
