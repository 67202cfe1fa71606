"""LiteLLM's `rerank`, told by the model's prefix which provider's dialect to speak."""

from functools import partial

import litellm

from tests.compat.programs.checks import Ask, Hit, Program, main

RAISES = {
    401: litellm.AuthenticationError,
    422: litellm.BadRequestError,
    429: litellm.RateLimitError,
}
NO_TEXTS = {"documents": "none at /rerank"}


def rank(ask: Ask, *, provider: str, path: str = "") -> list[Hit]:
    answer = litellm.rerank(
        model=f"{provider}/any",
        query=ask.query,
        documents=ask.documents,
        top_n=ask.top_n,
        api_base=ask.url + path,
        api_key=ask.key,
    )
    return [
        Hit(r["index"], r["relevance_score"], r.get("document", {}).get("text"))
        for r in answer.results
    ]


PROGRAMS = {
    "cohere": Program(
        partial(rank, provider="cohere"), RAISES, cannot={"documents": "v2 returns none"}
    ),
    "cohere v1": Program(partial(rank, provider="cohere", path="/v1/rerank"), RAISES),
    "jina_ai": Program(partial(rank, provider="jina_ai"), RAISES),
    "hosted_vllm": Program(partial(rank, provider="hosted_vllm"), RAISES, cannot=NO_TEXTS),
    "hosted_vllm v1": Program(partial(rank, provider="hosted_vllm", path="/v1"), RAISES),
    "infinity": Program(partial(rank, provider="infinity"), RAISES, cannot=NO_TEXTS),
    "huggingface": Program(
        partial(rank, provider="huggingface"),
        {**RAISES, 422: litellm.APIError},
        cannot={"top_n": "TEI returns every text"},
    ),
    "voyage": Program(partial(rank, provider="voyage"), RAISES),
    "nvidia_nim": Program(partial(rank, provider="nvidia_nim"), RAISES, logits=True),
}

if __name__ == "__main__":
    main(PROGRAMS)
