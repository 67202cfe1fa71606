"""A client's trace, passed on to engines; which headers are one."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Sequence
from time import monotonic

import anyio
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.api.spans import Spans
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.types import Candidate, Scores
from service.engines.local import LocalEngine
from service.logs import JsonFormatter
from service.ranking.admission import Ticket
from service.ranking.caches import DocumentTokenCache, ScoreCache
from service.ranking.lane import LocalLane
from service.scorers.onnx import OnnxScorer
from service.tracing import outgoing_traceparent, passing_on, valid_traceparent
from tests.service.asking import request
from tests.service.collector import Collector, attributes_of, collecting
from tests.service.conftest import Client
from tests.service.fakes import Unqueued
from tests.service.test_operations import samples
from tests.service.traceparents import NOT_VALID, OTHER, PARENT, SAMPLED, TRACE, UNSAMPLED


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


class Listener:
    """The real engine, behind a gate, with an ear for the trace that each launch belongs to."""

    def __init__(self, bundle: Bundle) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.heard: list[str | None] = []
        self.broken = False
        self._engine = LocalEngine(OnnxScorer(bundle.model_path("int8"), threads=1))

    async def score(self, pairs: Sequence[TokenPair], deadline: float) -> Scores:
        self.heard.append(outgoing_traceparent())
        await self.open.wait()
        if self.broken:
            raise RuntimeError("the engine broke")
        return await self._engine.score(pairs, deadline)


@pytest.fixture
def engine(bundle: Bundle) -> Listener:
    return Listener(bundle)


@pytest.mark.anyio
async def test_engines_are_told_the_clients_trace_as_it_came(
    serving: Client, engine: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(engine) as client:
        assert set(engine.heard) == {None}
        for name, traceparent in (("is", UNSAMPLED), ("bad", "00-1"), ("none", None)):
            headers = {"traceparent": traceparent} if traceparent else {}
            await client.post("/rank", json=request(query=name), headers=headers)
        assert engine.heard[-3:] == [UNSAMPLED, None, None]
    assert outgoing_traceparent() is None
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    traces = [line["trace_id"] for line in lines if line["logger"] == "service.requests"]
    assert traces == [TRACE, None, None]


@pytest.mark.anyio
async def test_a_launch_of_several_requests_goes_by_the_first_of_them_with_a_trace(
    serving: Client, engine: Listener
) -> None:
    async with serving(engine, launch_tokens=5_000) as client:
        engine.open.clear()
        before = len(engine.heard)
        tasks = []
        asked = [("a", OTHER), ("b", None), ("c", SAMPLED), ("d", OTHER)]
        with anyio.fail_after(10):
            for n, (query, traceparent) in enumerate(asked):
                headers = {"traceparent": traceparent} if traceparent else {}
                body = request(query=query, deadline_ms=20_000 + n)
                tasks.append(asyncio.create_task(client.post("/rank", json=body, headers=headers)))
                while (await samples(client))["disranker_queue_requests", ""] != n or not n:
                    if not n and len(engine.heard) > before:
                        break
                    await asyncio.sleep(0.001)
        engine.open.set()
        assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
        assert engine.heard[before:] == [OTHER, SAMPLED]


@pytest.mark.anyio
async def test_many_questions_of_a_request_are_one_trace(serving: Client, engine: Listener) -> None:
    body = {"text_1": ["cat", "dog"], "text_2": ["kettle", "water"]}
    async with serving(engine) as client:
        before = len(engine.heard)
        answer = await client.post("/score", json=body, headers={"traceparent": SAMPLED})
        assert answer.status_code == 200, answer.text
        assert set(engine.heard[before:]) == {SAMPLED}


@pytest.mark.anyio
async def test_an_engine_without_a_queue_is_told_each_requests_trace(
    bundle: Bundle, engine: Listener
) -> None:
    lane = LocalLane(
        bundle.encoder(),
        Unqueued(engine),
        model="tiny",
        tokens=DocumentTokenCache(max_bytes=0),
        scores=ScoreCache(max_bytes=0),
    )

    async def score(traceparent: str) -> None:
        with passing_on(traceparent):
            await lane.score("cat", [Candidate(summary="dog")], Ticket(monotonic() + 30))

    await asyncio.gather(score(SAMPLED), score(OTHER))
    assert sorted(filter(None, engine.heard)) == sorted([SAMPLED, OTHER])
    lane.close()


@pytest.mark.anyio
async def test_engines_are_told_the_servers_own_span_and_their_failure_is_its_error(
    serving: Client, engine: Listener, collector: Collector
) -> None:
    spans = Spans(collector.url)
    async with serving(engine, begin_span=spans.begin) as client:
        engine.broken = True
        for name, traceparent in (("sampled", SAMPLED), ("left out", UNSAMPLED)):
            headers = {"X-Request-Id": f"own-{name}", "traceparent": traceparent}
            answer = await client.post("/rank", json=request(query=name), headers=headers)
            assert answer.status_code == 500
    spans.close()
    span, stages = collector.trace("own-sampled")
    told, left_out = engine.heard[-2:]
    assert told == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert left_out is not None
    assert re.fullmatch(rf"00-{TRACE}-(?!{PARENT})[0-9a-f]{{16}}-00", left_out)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(span.attributes)["error.type"] == "500"
    assert attributes_of(span.attributes)["disranker.outcome"] == "error"
    assert stages == []


@pytest.mark.parametrize("header", [SAMPLED, UNSAMPLED, OTHER, f"01{SAMPLED[2:]}", *NOT_VALID])
def test_a_traceparent_is_valid_where_opentelemetry_finds_a_parent_in_it(header: str) -> None:
    carrier = {"traceparent": header}
    found = get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    spaced = header != header.rstrip()  # a server strips a header's ends
    assert valid_traceparent([header]) == (header if found.is_valid and not spaced else None)
    assert header not in NOT_VALID or valid_traceparent([header]) is None


def test_several_traceparents_are_none() -> None:
    assert valid_traceparent([]) is None
    assert valid_traceparent([SAMPLED, OTHER]) is None
