"""What `make serve` serves: small, intact, and a score depends on its pair alone."""

import asyncio
import json
from pathlib import Path

import anyio
import numpy as np
import pytest

from service.app import create_app
from service.contract.bundle import Bundle
from service.contract.examples import read_examples
from service.engines.local import LocalEngine
from service.ranking.golden import deviation
from service.scorers import native
from service.scorers.scorer import Scorer, load_scorer
from service.settings import Settings
from tests.service.conftest import started

ROOT = Path(__file__).parents[2]
ABOUT_BEE_LIFESPANS = {"doc-14", "doc-25", "doc-21", "doc-33", "doc-34"}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(ROOT / "models" / "default")


@pytest.fixture(scope="module", params=["native", "onnx"])
def scorer(bundle: Bundle, request: pytest.FixtureRequest) -> Scorer:
    if request.param == "native" and (reason := native.why_not()):
        pytest.skip(reason)
    return load_scorer(bundle, "int8", engine=request.param, threads=1)


def test_it_weighs_at_most_25_mb(bundle: Bundle) -> None:
    assert sum(entry.size_bytes for entry in bundle.manifest.files.values()) <= 25_000_000


def test_its_golden_scores_match_on_this_host(bundle: Bundle, scorer: Scorer) -> None:
    encoder = bundle.encoder()
    for golden in bundle.golden:
        scores = scorer.score(encoder.encode(golden.query, golden.candidates))
        assert deviation(golden, scores) <= bundle.manifest.precisions["int8"].tolerance


def test_a_score_is_the_same_bit_for_bit_in_any_company(bundle: Bundle, scorer: Scorer) -> None:
    encoder = bundle.encoder()
    pairs = [
        pair for golden in bundle.golden for pair in encoder.encode(golden.query, golden.candidates)
    ]
    alone = np.concatenate([scorer.score([pair]) for pair in pairs])
    assert scorer.score(pairs).tobytes() == alone.tobytes()
    assert scorer.score(pairs[::-1])[::-1].tobytes() == alone.tobytes()


def test_it_gets_obvious_rankings_right(bundle: Bundle, scorer: Scorer) -> None:
    """Twenty queries of many fields: English, shouted, misspelt, and German, French and Spanish.

    A document that answers stands before all others; of the pairs with a half-relevant one, two may
    be the wrong way round.
    """
    encoder = bundle.encoder()
    rankings = read_examples(Path(__file__).parent / "obvious.jsonl")
    assert len(rankings) == 20
    wrong = []
    for example in rankings:
        scores = scorer.score(encoder.encode(example.query, example.candidates))
        grades = np.array(example.grades)
        assert grades[scores.argmax()] == grades.max(), example.query
        better = grades[:, None] > grades[None, :]
        wrong += [example.query] * int((better & (scores[:, None] <= scores[None, :])).sum())
    assert len(wrong) <= 2, wrong


@pytest.mark.anyio
async def test_it_ranks_the_example_sensibly_and_alike_in_any_order_and_company(
    bundle: Bundle, scorer: Scorer
) -> None:
    asked = json.loads((ROOT / "docs" / "examples" / "rank-48.json").read_text(encoding="utf-8"))
    asked |= {"top_k": None, "return_documents": False}
    backwards = asked | {"candidates": asked["candidates"][::-1]}
    few = asked | {"candidates": asked["candidates"][10:20]}
    app = create_app(Settings(), bundle=bundle, engine=LocalEngine(scorer), precision="int8")
    async with started(app) as client:
        with anyio.fail_after(60):
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        answers = await asyncio.gather(
            *(client.post("/rank", json=body) for body in (asked, backwards, few))
        )
    results = [answer.json()["results"] for answer in answers]
    best = {result["id"] for result in results[0][:8]}
    assert best >= ABOUT_BEE_LIFESPANS
    scores = [{result["id"]: result["score"] for result in part} for part in results]
    assert scores[0] == scores[1]
    assert scores[2].items() <= scores[0].items()
