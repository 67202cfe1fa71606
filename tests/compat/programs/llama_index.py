"""LlamaIndex's postprocessors of Cohere, Jina, TEI and NVIDIA."""

import cohere
import httpx
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.nvidia_rerank import NVIDIARerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

from tests.compat.programs.checks import Ask, Hit, Program, main

OWN_TEXTS = {"documents": "keeps its own"}
REFUSALS = (401, 422, 429)


def rank_cohere(ask: Ask) -> list[Hit]:
    return processed(
        CohereRerank(model="any", base_url=ask.url, api_key=ask.key, top_n=wanted(ask)), ask
    )


def rank_jina(ask: Ask) -> list[Hit]:
    return processed(
        JinaRerank(model="any", base_url=f"{ask.url}/v1", api_key=ask.key, top_n=wanted(ask)), ask
    )


def rank_tei(ask: Ask) -> list[Hit]:
    return processed(
        TextEmbeddingInference(base_url=ask.url, auth_token=f"Bearer {ask.key}", top_n=wanted(ask)),
        ask,
    )


def rank_nvidia(ask: Ask) -> list[Hit]:
    return processed(
        NVIDIARerank(base_url=f"{ask.url}/v1", api_key=ask.key, top_n=wanted(ask)), ask
    )


def wanted(ask: Ask) -> int:
    return len(ask.documents) if ask.top_n is None else ask.top_n


def processed(postprocessor: BaseNodePostprocessor, ask: Ask) -> list[Hit]:
    nodes = [
        NodeWithScore(node=TextNode(text=text, id_=str(place)))
        for place, text in enumerate(ask.documents)
    ]
    found = postprocessor.postprocess_nodes(nodes, query_str=ask.query)
    return [Hit(int(node.node_id), node.score) for node in found]


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
    "tei": Program(rank_tei, dict.fromkeys(REFUSALS, AssertionError), cannot=OWN_TEXTS),
    "nvidia": Program(
        rank_nvidia,
        dict.fromkeys(REFUSALS, httpx.HTTPStatusError),
        logits=True,
        cannot=OWN_TEXTS,
    ),
}

if __name__ == "__main__":
    main(PROGRAMS)
