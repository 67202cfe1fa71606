"""voyageai's own SDK."""

import voyageai
from voyageai.error import AuthenticationError, MalformedRequestError, RateLimitError

from tests.compat.programs.checks import Ask, Hit, Program, main


def rank(ask: Ask) -> list[Hit]:
    client = voyageai.Client(api_key=ask.key, base_url=f"{ask.url}/v1", max_retries=3)
    answer = client.rerank(ask.query, ask.documents, model="any", top_k=ask.top_n)
    return [Hit(r.index, r.relevance_score) for r in answer.results]


PROGRAMS = {
    "voyage": Program(
        rank,
        {401: AuthenticationError, 422: MalformedRequestError, 429: RateLimitError},
        tries=3,
        cannot={"documents": "keeps its own"},
    )
}

if __name__ == "__main__":
    main(PROGRAMS)
