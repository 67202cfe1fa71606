"""The cache of documents' token ids alone: exact and bounded."""

import asyncio
import gc
import random
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract.bundle import Bundle
from service.contract.encoder import Encoder
from service.contract.encoding import PairEncoder
from service.contract.types import Candidate
from service.ranking import caches, lru
from service.ranking.caches import CacheStats, DocumentTokenCache
from tests.contract.texts import random_texts
from tests.tiny import WORDS

pytestmark = pytest.mark.anyio

MB = 1_000_000
EMPTY_BYTES = DocumentTokenCache(max_bytes=0).stats.size_bytes


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> Encoder:
    return bundle.encoder()


@pytest.fixture
def tokens() -> DocumentTokenCache:
    return DocumentTokenCache(max_bytes=MB)


def lookups(stats: CacheStats) -> tuple[int, int, int]:
    return stats.hits, stats.misses, stats.shared


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(
        st.lists(
            st.tuples(st.sampled_from(("", " ", "cat", "the")), st.sampled_from((*WORDS, "a b"))),
            max_size=8,
        ),
        max_size=6,
    ),
    max_bytes=st.sampled_from((0, 2_000, MB)),
)
def test_token_ids_are_the_encoders_own(
    encoder: Encoder, requests: list[list[tuple[str, str]]], max_bytes: int
) -> None:
    cache = DocumentTokenCache(max_bytes=max_bytes)
    for request in requests:
        candidates = [Candidate(None, title, summary) for title, summary in request]
        fresh = encoder.encode_documents(candidates)
        cached = cache.encode_documents(encoder, candidates)
        assert [ids.tobytes() for ids in cached] == [ids.tobytes() for ids in fresh]
        assert [ids.dtype for ids in cached] == [ids.dtype for ids in fresh]
        assert cache.stats.size_bytes <= max(max_bytes, EMPTY_BYTES)


def test_difficult_texts_come_back_as_they_were(
    encoder: Encoder, tokens: DocumentTokenCache
) -> None:
    texts = random_texts(3, longest=40)
    candidates = [Candidate(summary=next(texts)) for _ in range(200)]
    fresh = encoder.encode_documents(candidates)
    for _ in range(2):
        cached = tokens.encode_documents(encoder, candidates)
        assert [ids.tobytes() for ids in cached] == [ids.tobytes() for ids in fresh]
    distinct = len({candidate.summary.strip() and candidate.summary for candidate in candidates})
    assert lookups(tokens.stats) == (200, distinct, 200 - distinct)


def test_an_id_names_nothing(encoder: Encoder, tokens: DocumentTokenCache) -> None:
    """A client that sends another's id with its own text changes nothing for the other."""
    (mine,) = tokens.encode_documents(encoder, [Candidate("doc-1", "the cat")])
    tokens.encode_documents(encoder, [Candidate("doc-1", "a poisoned text")])
    (again,) = tokens.encode_documents(encoder, [Candidate("doc-1", "the cat")])
    assert again.tolist() == mine.tolist()
    (other,) = tokens.encode_documents(encoder, [Candidate("another", "the cat")])
    assert other.tolist() == mine.tolist()
    assert lookups(tokens.stats) == (2, 2, 0)


def test_encoders_share_a_cache_and_keep_their_ids(
    bundle: Bundle, encoder: Encoder, tokens: DocumentTokenCache
) -> None:
    short = PairEncoder.from_file(bundle.root / "tokenizer.json", max_length=16, max_query_length=4)
    candidates = [Candidate(summary="boil water " * 20)]
    for _ in range(2):
        for one in (encoder, short):
            (cached,) = tokens.encode_documents(one, candidates)
            assert cached.tolist() == one.encode_documents(candidates)[0].tolist()
    assert lookups(tokens.stats) == (2, 2, 0)
    assert bundle.encoder().fingerprint == encoder.fingerprint != short.fingerprint


def test_equal_texts_of_a_request_are_tokenised_once(
    encoder: Encoder, tokens: DocumentTokenCache
) -> None:
    candidates = [Candidate("a", "the cat"), Candidate("b", "", "the cat"), Candidate("c", "dog")]
    first, second, third = tokens.encode_documents(encoder, candidates)
    assert first.tolist() == second.tolist() != third.tolist()
    assert lookups(tokens.stats) == (0, 2, 1)


async def test_threads_get_their_own_documents(
    encoder: Encoder,
) -> None:
    tokens = DocumentTokenCache(max_bytes=6_000)
    texts = [f"{word} {n}" for word in WORDS for n in range(8)]

    def encode(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(30):
            candidates = [Candidate(summary=text) for text in draw.sample(texts, 9)]
            fresh = [ids.tolist() for ids in encoder.encode_documents(candidates)]
            assert [ids.tolist() for ids in tokens.encode_documents(encoder, candidates)] == fresh

    await asyncio.gather(*(asyncio.to_thread(encode, seed) for seed in range(8)))
    assert sum(lookups(tokens.stats)) == 8 * 30 * 9


def shapes(seed: int) -> Iterator[list[Candidate]]:
    """Yield requests of 1 to 64 documents never seen before, of 1 to 300 words."""
    draw = random.Random(seed)
    while True:
        longest = draw.choice((1, 4, 40, 300))
        yield [
            Candidate(summary=" ".join(draw.choices(WORDS, k=draw.randint(1, longest))))
            for _ in range(draw.choice((1, 8, 64)))
        ]


def allocated_bytes(encoder: Encoder, max_bytes: int) -> tuple[int, int]:
    """Return what a cache says it takes after a shape fuzz, and what Python allocated for it."""
    found = shapes(1)
    gc.collect()
    tracemalloc.start()
    try:
        cache = DocumentTokenCache(max_bytes=max_bytes)
        for _ in range(150):
            cache.encode_documents(encoder, next(found))
            assert cache.stats.size_bytes <= max_bytes
        gc.collect()
        only_ours = [tracemalloc.Filter(True, str(module.__file__)) for module in (caches, lru)]
        traced = tracemalloc.take_snapshot().filter_traces(only_ours).statistics("filename")
        return cache.stats.size_bytes, sum(statistic.size for statistic in traced)
    finally:
        tracemalloc.stop()


def test_memory_stays_within_the_bound_whatever_the_shapes(encoder: Encoder) -> None:
    bound = 200_000
    said, taken = allocated_bytes(encoder, bound)
    assert 0.7 * bound < said <= bound
    assert taken <= said
    said, taken = allocated_bytes(encoder, 1_000 * bound)  # the measure sees memory that grows
    assert 2 * bound < taken <= said < 1.25 * taken


def test_a_document_larger_than_the_cache_is_not_kept(encoder: Encoder) -> None:
    cache = DocumentTokenCache(max_bytes=400)
    for _ in range(2):
        (ids,) = cache.encode_documents(encoder, [Candidate(summary="cat " * 200)])
        assert len(ids) == 200
    assert cache.stats.entries == 0
    assert lookups(cache.stats) == (0, 2, 0)
