"""LangChain's document compressors of Cohere and NVIDIA."""

import cohere
from langchain_cohere import CohereRerank
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_nvidia_ai_endpoints import NVIDIARerank
from pydantic import SecretStr

from tests.compat.programs.checks import Ask, Hit, Program, main

OWN_TEXTS = {"documents": "keeps its own"}


def rank_cohere(ask: Ask) -> list[Hit]:
    compressor = CohereRerank(
        model="any", base_url=ask.url, cohere_api_key=SecretStr(ask.key), top_n=ask.top_n
    )
    return compressed(compressor, ask)


def rank_nvidia(ask: Ask) -> list[Hit]:
    top_n = len(ask.documents) if ask.top_n is None else ask.top_n
    return compressed(NVIDIARerank(base_url=f"{ask.url}/v1", api_key=ask.key, top_n=top_n), ask)


def compressed(compressor: BaseDocumentCompressor, ask: Ask) -> list[Hit]:
    documents = [
        Document(page_content=text, metadata={"place": place})
        for place, text in enumerate(ask.documents)
    ]
    found = compressor.compress_documents(documents, ask.query)
    return [Hit(d.metadata["place"], d.metadata["relevance_score"]) for d in found]


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
    "nvidia": Program(
        rank_nvidia,
        dict.fromkeys((401, 422, 429), Exception),
        logits=True,
        cannot=OWN_TEXTS,
    ),
}

if __name__ == "__main__":
    main(PROGRAMS)
