"""Rerankers elsewhere: real servers, torch's scores, and every way to fail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import numpy as np
import pytest

from loadtest.server import our_service
from service.contract.bundle import Bundle
from service.contract.decoder_checkpoint import checkpoint_encoder
from service.contract.types import Candidate, RankingExample
from service.engines.engine import (
    EngineAnswerError,
    EngineError,
    EngineLateError,
    EngineOverloadedError,
    EngineRefusedError,
    EngineUnavailableError,
)
from service.engines.remote import ATTEMPTS, RemoteReranker
from service.scorers.onnx import OnnxScorer
from service.scorers.wire import Protocol, Wire
from tests.classifier import Classifier
from tests.service.rollout import teachers
from tests.service.rollout.teachers import Teacher, reply, scored
from tests.tiny import tiny_teacher
from tests.training.decoders import scores_by_hand

pytestmark = pytest.mark.anyio

TWO = [Candidate("a", "A title", "and a summary"), Candidate("b", "", "text")]
LENGTHS = [21.0, 4.0]


@asynccontextmanager
async def asked(
    teacher: Teacher, protocol: Protocol = "tei", **options: Any
) -> AsyncIterator[RemoteReranker]:
    async with teacher.run():
        reranker = RemoteReranker(teacher.url, Wire(protocol), **options)
        yield reranker
        await reranker.close()


def soon(seconds: float = 30.0) -> float:
    return monotonic() + seconds


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_teacher(tmp_path_factory.mktemp("teacher") / "checkpoint", kind="llama")


async def test_a_decoder_by_classify_gets_our_ids_and_gives_torchs_scores(
    checkpoint: Path,
) -> None:
    classifier = Classifier(checkpoint)  # its first answer is 503
    encoder = checkpoint_encoder(checkpoint)
    wire = Wire("vllm-classify", model="teacher", encoder=encoder)
    words = ["cat", "dog", "kettle", "water", "capital", "river", "lamp", "stone"]
    draw = random.Random(0)
    candidates = [Candidate(str(n), draw.choice(words), f"the {w}") for n, w in enumerate(words)]
    query = "the cat of water"
    with classifier.run() as url:
        reranker = RemoteReranker(url, wire, part=4)
        try:
            found = await reranker.score(query, candidates, soon())
        finally:
            await reranker.close()
    (expected,) = scores_by_hand(checkpoint, [RankingExample("q", query, tuple(candidates))])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.std(expected) > 0.01
    rows = [body["input"] for body in sorted(classifier.asked, key=lambda body: body["input"])]
    ids = [pair.input_ids.tolist() for pair in encoder.encode(query, candidates)]
    assert sorted(row for part in rows for row in part) == sorted(ids)
    assert {row[-1] for row in ids} == {2}  # </s>
    assert all(body["use_activation"] is False for body in classifier.asked)
    assert {len(part) for part in rows} == {4}


async def test_a_second_instance_gives_its_own_raw_scores(bundle: Bundle) -> None:
    candidates = [Candidate(str(n), "cat" * (n % 3), "the kettle boils " * n) for n in range(1, 9)]
    pairs = bundle.encoder().encode("cat", candidates)
    expected = OnnxScorer(bundle.model_path("int8"), threads=1).score(pairs)
    with our_service(bundle.root, "--threads", "1", "--engine", "onnx") as server:
        for protocol in ("disranker", "tei", "vllm"):
            reranker = RemoteReranker(server.url, Wire(protocol), part=3)
            found = await reranker.score("cat", candidates, soon())
            await reranker.close()
            np.testing.assert_allclose(found, expected, atol=1e-5)


async def test_parts_are_small_and_the_key_is_shown() -> None:
    teacher = Teacher()
    async with asked(teacher, key="drk_1", part=3) as reranker:
        texts = [Candidate(None, "", "x" * n) for n in range(1, 9)]
        found = await reranker.score("q", texts, soon())
    assert found.tolist() == [float(n) for n in range(1, 9)]
    assert sorted(len(body["texts"]) for body in teacher.bodies) == [2, 3, 3]
    assert all(b"authorization: bearer drk_1\r\n" in head.lower() for head in teacher.heads)


@pytest.mark.parametrize("first", [b"", reply(503, {}), reply(429, b"no", retry_after_ms="1")])
async def test_a_passing_failure_is_tried_again(first: bytes) -> None:
    async def behaviour(teacher: Teacher, body: dict[str, Any]) -> bytes | None:
        if len(teacher.bodies) < ATTEMPTS:
            return first or None
        return reply(200, scored(body))

    async with asked(Teacher(behaviour)) as reranker:
        assert (await reranker.score("q", TWO, soon())).tolist() == LENGTHS


@pytest.mark.parametrize(
    ("status", "error", "attempts"),
    [
        (401, EngineRefusedError, 1),
        (307, EngineRefusedError, 1),
        (422, EngineRefusedError, 1),
        (429, EngineOverloadedError, ATTEMPTS),
        (500, EngineError, 1),
        (503, EngineUnavailableError, ATTEMPTS),
    ],
)
async def test_a_status_is_an_error_of_its_kind_without_the_servers_words(
    status: int, error: type[EngineError], attempts: int
) -> None:
    async def behaviour(*_: object) -> bytes:
        return reply(status, {"detail": "secret text"})

    teacher = Teacher(behaviour)
    async with asked(teacher) as reranker:
        with pytest.raises(error) as caught:
            await reranker.score("q", TWO, soon())
    assert type(caught.value) is error
    assert str(status) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(teacher.bodies) == attempts


async def test_a_pause_beyond_the_deadline_is_not_waited_for() -> None:
    async def behaviour(*_: object) -> bytes:
        return reply(503, {}, retry_after="3600")

    teacher = Teacher(behaviour)
    async with asked(teacher) as reranker:
        with anyio.fail_after(20), pytest.raises(EngineUnavailableError):
            await reranker.score("q", TWO, soon(30))
    assert len(teacher.bodies) == 1


async def test_nonsense_is_refused_whatever_it_is() -> None:
    teacher = Teacher(teachers.talks_nonsense)
    async with asked(teacher) as reranker:
        for _ in range(10):
            with pytest.raises(EngineError) as caught:
                await reranker.score("q", TWO, soon())
            known = (EngineAnswerError, EngineRefusedError, EngineUnavailableError)
            assert isinstance(caught.value, known)
            assert "html" not in str(caught.value)


async def test_hanging_ends_at_the_deadline_and_the_connection_is_let_go() -> None:
    teacher = Teacher(teachers.hangs)
    async with asked(teacher) as reranker:
        with anyio.fail_after(20):
            with pytest.raises(EngineLateError):
                await reranker.score("q", TWO, soon(0.2))
            teacher.behaviour = teachers.answers
            assert (await reranker.score("q", TWO, soon())).tolist() == LENGTHS


async def test_one_part_that_fails_ends_the_others() -> None:
    async def behaviour(teacher: Teacher, body: dict[str, Any]) -> bytes | None:
        if body["texts"] == ["bad"]:
            return reply(400, {})
        return await teachers.hangs(teacher, body)  # type: ignore[func-returns-value]

    async with asked(Teacher(behaviour), part=1) as reranker:
        texts = [Candidate(None, "", text) for text in ("good", "bad", "good")]
        with anyio.fail_after(20), pytest.raises(EngineRefusedError):
            await reranker.score("q", texts, soon())


async def test_nobody_there_is_unavailable() -> None:
    async with Teacher().run() as teacher:
        url = teacher.url
    reranker = RemoteReranker(url, Wire("tei"))
    with pytest.raises(EngineUnavailableError, match="ClientConnectorError"):
        await reranker.score("q", TWO, soon())
    await reranker.close()


async def test_many_requests_go_side_by_side() -> None:
    arrived: list[None] = []
    everybody = asyncio.Event()

    async def behaviour(_: Teacher, body: dict[str, Any]) -> bytes:
        arrived.append(None)
        if len(arrived) == 8:
            everybody.set()
        await everybody.wait()
        return reply(200, scored(body))

    async with asked(Teacher(behaviour)) as reranker:
        score = partial(reranker.score, "q", TWO, soon())
        found = await asyncio.gather(*(score() for _ in range(8)))
    assert [scores.tolist() for scores in found] == [LENGTHS] * 8
