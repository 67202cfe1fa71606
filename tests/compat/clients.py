"""The clients: where each is installed, and how it is pointed at a service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Client:
    """A client, or one of its ways to speak.

    Attributes:
        name: What it is called in the table.
        package: Whose version is reported.
        environment: The requirements file that it is installed from.
        program: A module of `programs`.
        variant: Which of the module's programs.
        knob: What its user sets, where U is the service's URL.
        path: Where it then posts to.
        core: Whether CI runs it.
    """

    name: str
    package: str
    environment: str
    program: str
    variant: str
    knob: str
    path: str
    core: bool = False

    @property
    def requirements(self) -> Path:
        """The file that locks its environment."""
        return Path(__file__).parent / "requirements" / f"{self.environment}.txt"

    @property
    def module(self) -> str:
        """What runs in its environment."""
        return f"tests.compat.programs.{self.program}"


CLIENTS = (
    Client(
        "cohere `ClientV2`",
        "cohere",
        "haystack",
        "cohere_sdk",
        "v2",
        "`base_url=U`",
        "/v2/rerank",
        core=True,
    ),
    Client(
        "cohere `Client`",
        "cohere",
        "haystack",
        "cohere_sdk",
        "v1",
        "`base_url=U`",
        "/v1/rerank",
        core=True,
    ),
    Client(
        "cohere 5 `ClientV2`",
        "cohere",
        "langchain",
        "cohere_sdk",
        "v2",
        "`base_url=U`",
        "/v2/rerank",
    ),
    Client(
        "cohere 5 `Client`",
        "cohere",
        "langchain",
        "cohere_sdk",
        "v1",
        "`base_url=U`",
        "/v1/rerank",
    ),
    Client(
        "LangChain `CohereRerank`",
        "langchain-cohere",
        "langchain",
        "langchain",
        "cohere",
        "`base_url=U`",
        "/v2/rerank",
    ),
    Client(
        "LangChain `NVIDIARerank`",
        "langchain-nvidia-ai-endpoints",
        "langchain",
        "langchain",
        "nvidia",
        "`base_url=U/v1`",
        "/v1/ranking",
        core=True,
    ),
    Client(
        "LlamaIndex `CohereRerank`",
        "llama-index-postprocessor-cohere-rerank",
        "llama_index",
        "llama_index",
        "cohere",
        "`base_url=U`",
        "/v2/rerank",
    ),
    Client(
        "LlamaIndex `JinaRerank`",
        "llama-index-postprocessor-jinaai-rerank",
        "llama_index",
        "llama_index",
        "jina",
        "`base_url=U/v1`",
        "/v1/rerank",
    ),
    Client(
        "LlamaIndex `TextEmbeddingInference`",
        "llama-index-postprocessor-tei-rerank",
        "llama_index",
        "llama_index",
        "tei",
        "`base_url=U`",
        "/rerank",
        core=True,
    ),
    Client(
        "LlamaIndex `NVIDIARerank`",
        "llama-index-postprocessor-nvidia-rerank",
        "llama_index",
        "llama_index",
        "nvidia",
        "`base_url=U/v1`",
        "/v1/ranking",
    ),
    Client(
        "Haystack `CohereRanker`",
        "cohere-haystack",
        "haystack",
        "haystack",
        "cohere",
        "`api_base_url=U`",
        "/v2/rerank",
    ),
    Client(
        "Haystack `JinaRanker`",
        "jina-haystack",
        "haystack",
        "haystack",
        "jina",
        "`base_url=U/v1/rerank`",
        "/v1/rerank",
        core=True,
    ),
    Client(
        "Haystack `HuggingFaceTEIRanker`",
        "huggingface-api-haystack",
        "haystack",
        "haystack",
        "tei",
        "`url=U`",
        "/rerank",
    ),
    Client(
        "Haystack `NvidiaRanker`",
        "nvidia-haystack",
        "haystack",
        "haystack",
        "nvidia",
        "`api_url=U/v1`",
        "/v1/ranking",
    ),
    Client(
        "Haystack `VLLMRanker`",
        "vllm-haystack",
        "haystack",
        "haystack",
        "vllm",
        "`api_base_url=U/v1`",
        "/v1/rerank",
    ),
    Client(
        "LiteLLM `cohere/…`",
        "litellm",
        "litellm",
        "lite_llm",
        "cohere",
        "`api_base=U`",
        "/v2/rerank",
    ),
    Client(
        "LiteLLM `cohere/…`",
        "litellm",
        "litellm",
        "lite_llm",
        "cohere v1",
        "`api_base=U/v1/rerank`",
        "/v1/rerank",
    ),
    Client(
        "LiteLLM `jina_ai/…`",
        "litellm",
        "litellm",
        "lite_llm",
        "jina_ai",
        "`api_base=U`",
        "/v1/rerank",
        core=True,
    ),
    Client(
        "LiteLLM `hosted_vllm/…`",
        "litellm",
        "litellm",
        "lite_llm",
        "hosted_vllm",
        "`api_base=U`",
        "/rerank",
        core=True,
    ),
    Client(
        "LiteLLM `hosted_vllm/…`",
        "litellm",
        "litellm",
        "lite_llm",
        "hosted_vllm v1",
        "`api_base=U/v1`",
        "/v1/rerank",
    ),
    Client(
        "LiteLLM `infinity/…`",
        "litellm",
        "litellm",
        "lite_llm",
        "infinity",
        "`api_base=U`",
        "/rerank",
    ),
    Client(
        "LiteLLM `huggingface/…`",
        "litellm",
        "litellm",
        "lite_llm",
        "huggingface",
        "`api_base=U`",
        "/rerank",
        core=True,
    ),
    Client(
        "LiteLLM `voyage/…`",
        "litellm",
        "litellm",
        "lite_llm",
        "voyage",
        "`api_base=U`",
        "/v1/rerank",
        core=True,
    ),
    Client(
        "LiteLLM `nvidia_nim/…`",
        "litellm",
        "litellm",
        "lite_llm",
        "nvidia_nim",
        "`api_base=U`",
        "/v1/retrieval/…/reranking",
    ),
    Client(
        "voyageai `Client`",
        "voyageai",
        "litellm",
        "voyage",
        "voyage",
        "`base_url=U/v1`",
        "/v1/rerank",
    ),
    Client(
        "rerankers `APIRanker`, cohere",
        "rerankers",
        "litellm",
        "rerankers_api",
        "cohere",
        "`url=U/v1/rerank`",
        "/v1/rerank",
    ),
    Client(
        "rerankers `APIRanker`, jina",
        "rerankers",
        "litellm",
        "rerankers_api",
        "jina",
        "`url=U/v1/rerank`",
        "/v1/rerank",
    ),
    Client(
        "rerankers `APIRanker`, voyage",
        "rerankers",
        "litellm",
        "rerankers_api",
        "voyage",
        "`url=U/v1/rerank`",
        "/v1/rerank",
    ),
    Client(
        "rerankers `APIRanker`, tei",
        "rerankers",
        "litellm",
        "rerankers_api",
        "tei",
        "`url=U/rerank`",
        "/rerank",
    ),
)
