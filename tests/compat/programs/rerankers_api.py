"""rerankers' `APIRanker`, which reads any answer as a ranking, whatever its status."""

from functools import partial

from rerankers.models.api_rankers import APIRanker

from tests.compat.programs.checks import Ask, Hit, Program, main

REFUSALS = (401, 422, 429)
CANNOT = {"top_n": "asks for all", "documents": "keeps its own"}


def rank(ask: Ask, *, provider: str, path: str) -> list[Hit]:
    ranker = APIRanker("any", ask.key, provider, verbose=0, url=ask.url + path)
    found = ranker.rank(ask.query, ask.documents)
    return [Hit(result.doc_id, result.score) for result in found.results]


def program(provider: str, path: str, error: type[Exception]) -> Program:
    return Program(
        partial(rank, provider=provider, path=path),
        dict.fromkeys(REFUSALS, error),
        cannot=CANNOT,
    )


PROGRAMS = {
    "cohere": program("cohere", "/v1/rerank", KeyError),
    "jina": program("jina", "/v1/rerank", KeyError),
    "voyage": program("voyage", "/v1/rerank", KeyError),
    "tei": program("text-embeddings-inference", "/rerank", TypeError),
}

if __name__ == "__main__":
    main(PROGRAMS)
