"""cohere's own SDK: `Client` and `ClientV2`."""

import cohere

from tests.compat.programs.checks import Ask, Hit, Program, main

RAISES = {
    401: cohere.UnauthorizedError,
    422: cohere.UnprocessableEntityError,
    429: cohere.TooManyRequestsError,
}


def rank_v1(ask: Ask) -> list[Hit]:
    answer = cohere.Client(ask.key, base_url=ask.url).rerank(
        model="any",
        query=ask.query,
        documents=ask.documents,
        top_n=ask.top_n,
        return_documents=True,
    )
    return [Hit(r.index, r.relevance_score, r.document.text) for r in answer.results]


def rank_v2(ask: Ask) -> list[Hit]:
    answer = cohere.ClientV2(ask.key, base_url=ask.url).rerank(
        model="any", query=ask.query, documents=ask.documents, top_n=ask.top_n
    )
    return [Hit(r.index, r.relevance_score) for r in answer.results]


PROGRAMS = {
    "v1": Program(rank_v1, RAISES, tries=3),
    "v2": Program(rank_v2, RAISES, tries=3, cannot={"documents": "v2 returns none"}),
}

if __name__ == "__main__":
    main(PROGRAMS)
