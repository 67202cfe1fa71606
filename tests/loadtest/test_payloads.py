"""The generator's requests look like real ones to a tokenizer and to a cache."""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from loadtest.lengths import LENGTHS, RECURRENCE, REPEAT_SHARE, Kind, Lengths
from loadtest.payloads import Generator, rank_body, replayed
from service.api.native import NATIVE
from service.api.serving import read_request
from service.contract.encoding import PairEncoder
from service.contract.types import RankingExample

TOKENIZER = Path(__file__).parents[2] / "models" / "default" / "tokenizer.json"


@pytest.fixture(scope="module")
def encoder() -> PairEncoder:
    return PairEncoder.from_file(TOKENIZER)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(TOKENIZER, seed=3)


def taken(generator: Generator, kind: Kind, count: int) -> list[RankingExample]:
    return list(itertools.islice(generator.requests(kind), count))


def test_equal_seeds_make_equal_requests_and_others_do_not(generator: Generator) -> None:
    first = [rank_body(example) for example in taken(generator, "web", 3)]
    again = [rank_body(example) for example in taken(Generator(TOKENIZER, seed=3), "web", 3)]
    other = [rank_body(example) for example in taken(Generator(TOKENIZER, seed=4), "web", 3)]
    assert first == again
    assert not set(first) & set(other)


@pytest.mark.parametrize("kind", ["web", "passage"])
def test_token_lengths_follow_the_real_quantiles(
    kind: Kind, generator: Generator, encoder: PairEncoder
) -> None:
    examples = taken(generator, kind, 120)
    documents = [candidate for example in examples for candidate in example.candidates]
    lengths = LENGTHS[kind]
    for texts, table in (
        ([document.summary for document in documents], lengths.summary),
        ([document.title for document in documents], lengths.title),
    ):
        found = [len(ids) for ids in encoder.encode_texts(texts)]
        quantiles = np.quantile(found, np.linspace(0, 1, 21))[1:-1]
        assert np.abs(quantiles - table.quantiles[1:-1]).max() <= 5
    assert all(document.title or document.summary for document in documents)
    queries = [len(ids) for ids in encoder.encode_texts([example.query for example in examples])]
    assert min(queries) >= 1
    assert abs(np.median(queries) - np.median(lengths.query.quantiles)) <= 1


def test_documents_have_exactly_the_tokens_asked_for(
    generator: Generator, encoder: PairEncoder
) -> None:
    example = next(generator.requests("passage", candidates=200, document_tokens=64))
    assert {len(ids) for ids in encoder.encode_documents(example.candidates)} == {64}


def test_text_has_the_shape_of_web_text(generator: Generator, encoder: PairEncoder) -> None:
    texts = [c.summary for e in taken(generator, "passage", 40) for c in e.candidates]
    ids = np.concatenate(encoder.encode_texts(texts))
    words = sum(len(text.split()) for text in texts)
    assert 1.25 <= len(ids) / words <= 1.45  # real: 1.35 to 1.39 tokens between spaces
    common = sum(count for _, count in Counter(ids.tolist()).most_common(100))
    assert 0.3 <= common / len(ids) <= 0.6
    assert len(set(ids.tolist())) > 8_000  # real: 12,378 among 340,000 tokens


def test_documents_come_again_as_often_as_real_ones(generator: Generator) -> None:
    ids = [c.id for e in taken(generator, "web", 200) for c in e.candidates]
    assert abs(1 - len(set(ids)) / len(ids) - RECURRENCE) < 0.008
    fresh = itertools.islice(generator.requests("web", recurrence=0), 50)
    ids = [c.id for e in fresh for c in e.candidates]
    assert len(set(ids)) == len(ids)


def test_replayed_log_repeats_queries_as_the_real_log_does(generator: Generator) -> None:
    distinct = generator.requests("web", candidates=2)
    log = [e.query_id for e in itertools.islice(replayed(distinct, seed=1), 4_000)]
    repeats = 1 - len(set(log)) / len(log)
    assert abs(repeats - REPEAT_SHARE) < 0.03
    last: dict[str, int] = {}
    gaps = []
    for place, query in enumerate(log):
        if query in last:
            gaps.append(place - last[query])
        last[query] = place
    assert 1 <= np.median(gaps) <= 4  # real: 3
    assert 15 <= np.quantile(gaps, 0.9) <= 60  # real: 29


def test_replay_of_few_requests_ends() -> None:
    few = [RankingExample(str(i), "q", ()) for i in range(3)]
    log = list(replayed(few))
    assert {example.query_id for example in log} == {"0", "1", "2"}


def test_body_is_a_request_the_service_takes(generator: Generator) -> None:
    example = next(generator.requests("web", candidates=1000))
    read = read_request(rank_body(example), [NATIVE], max_query_chars=4096)
    (question,) = read.questions
    assert question.query == example.query
    assert question.candidates == list(example.candidates)
    assert json.loads(rank_body(example))["candidates"][0]["id"] == example.candidates[0].id


def test_lengths_reproduce_their_quantiles() -> None:
    table = Lengths((0, 10, 10, 40))
    assert table.at(np.array([0, 1 / 6, 1 / 3, 0.5, 2 / 3, 1])).tolist() == [0, 5, 10, 10, 10, 40]
    rng = np.random.default_rng(0)
    drawn = np.array([table.draw(rng) for _ in range(3_000)])
    assert abs(np.mean(drawn < 10) - 1 / 3) < 0.05
