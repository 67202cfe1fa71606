"""Haystack's rankers of Cohere, Jina, TEI, NVIDIA and vLLM."""

from typing import Any

import cohere
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.jina import JinaRanker
from haystack_integrations.components.rankers.nvidia import NvidiaRanker
from haystack_integrations.components.rankers.vllm import VLLMRanker

from tests.compat.programs.checks import Ask, Hit, Program, main

OWN_TEXTS = {"documents": "keeps its own"}
REFUSALS = (401, 422, 429)


def rank_cohere(ask: Ask) -> list[Hit]:
    return ran(CohereRanker(model="any", api_base_url=ask.url, api_key=secret(ask)), ask)


def rank_jina(ask: Ask) -> list[Hit]:
    return ran(JinaRanker(model="any", base_url=f"{ask.url}/v1/rerank", api_key=secret(ask)), ask)


def rank_tei(ask: Ask) -> list[Hit]:
    return ran(HuggingFaceTEIRanker(url=ask.url, token=secret(ask)), ask)


def rank_nvidia(ask: Ask) -> list[Hit]:
    return ran(NvidiaRanker(model="any", api_url=f"{ask.url}/v1", api_key=secret(ask)), ask)


def rank_vllm(ask: Ask) -> list[Hit]:
    return ran(VLLMRanker(model="any", api_base_url=f"{ask.url}/v1", api_key=secret(ask)), ask)


def secret(ask: Ask) -> Secret:
    return Secret.from_token(ask.key)


def ran(ranker: Any, ask: Ask) -> list[Hit]:
    documents = [Document(id=str(n), content=text) for n, text in enumerate(ask.documents)]
    top_k = len(documents) if ask.top_n is None else ask.top_n
    found = ranker.run(query=ask.query, documents=documents, top_k=top_k)["documents"]
    return [Hit(int(document.id), document.score) for document in found]


PROGRAMS = {
    "cohere": Program(
        rank_cohere,
        {
            401: cohere.UnauthorizedError,
            422: cohere.UnprocessableEntityError,
            429: cohere.TooManyRequestsError,
        },
        tries=3,
        cannot=OWN_TEXTS,
    ),
    "jina": Program(rank_jina, dict.fromkeys(REFUSALS, RuntimeError), cannot=OWN_TEXTS),
    "tei": Program(rank_tei, dict.fromkeys(REFUSALS, RuntimeError), tries=3, cannot=OWN_TEXTS),
    "nvidia": Program(
        rank_nvidia, dict.fromkeys(REFUSALS, ValueError), logits=True, cannot=OWN_TEXTS
    ),
    "vllm": Program(rank_vllm, dict.fromkeys(REFUSALS, RuntimeError), cannot=OWN_TEXTS),
}

if __name__ == "__main__":
    main(PROGRAMS)
