"""A reranker on another machine, asked over HTTP: TEI, vLLM, or another DisRanker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.template import document_text
from service.contract.types import Candidate, Float32s
from service.scorers.json_client import JsonClient, RemoteError

Protocol = Literal["disranker", "tei", "vllm", "vllm-classify"]


class RemoteScorer:
    """Has raw scores computed elsewhere; several threads may ask at once.

    A request that fails for a passing reason is tried again (`JsonClient`). The server reads texts,
    so it tokenises and cuts them as its own model does; vLLM's `/classify`, for decoders, reads
    token ids of ours (vLLM 0.15 or newer).
    """

    def __init__(
        self,
        url: str,
        protocol: Protocol,
        *,
        model: str | None = None,
        encoder: DecoderPairEncoder | None = None,
        key: str | None = None,
        requests_per_s: float | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        """Take a server.

        Args:
            url: Where it is, without the path that ranks.
            protocol: What it speaks.
            model: What it calls its model; vLLM needs it.
            encoder: Makes the token ids that vLLM's `/classify` is given, which needs one.
            key: Bearer key.
            requests_per_s: Most requests a second, attempts included; None for no limit.
            timeout_s: How long one attempt may take.

        Raises:
            ValueError: An encoder is missing, or there is one for a server that reads texts.
        """
        if (protocol == "vllm-classify") != (encoder is not None):
            raise ValueError("vllm-classify and an encoder need each other")
        self._client = JsonClient(url, key=key, requests_per_s=requests_per_s, timeout_s=timeout_s)
        self._protocol = protocol
        self._model = model
        self._encoder = encoder

    def score(self, query: str, candidates: Sequence[Candidate]) -> Float32s:
        """Return the raw score of each candidate, float32 [n].

        Raises:
            RemoteError: The server cannot be reached, refuses, or answers with something else.
        """
        path, body = self._request(query, candidates)
        answer = self._client.post(path, body)
        try:
            return _scores(self._protocol, answer, len(candidates))
        except (KeyError, TypeError, ValueError) as error:
            raise RemoteError(
                f"{self._client.url}{path}: not {len(candidates)} scores: {error}"
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _request(self, query: str, candidates: Sequence[Candidate]) -> tuple[str, dict[str, Any]]:
        if self._protocol == "disranker":
            documents = [{"title": c.title, "summary": c.summary} for c in candidates]
            return "/rank", {"query": query, "candidates": documents}
        fields = {"model": self._model} if self._model else {}
        if self._encoder is not None:
            pairs = self._encoder.encode(query, candidates)
            rows = [pair.input_ids.tolist() for pair in pairs]
            return "/classify", {"input": rows, "use_activation": False, **fields}
        texts = [document_text(candidate) for candidate in candidates]
        if self._protocol == "tei":
            body = {"query": query, "texts": texts, "raw_scores": True, "truncate": True}
            return "/rerank", body
        cut = {"truncate_prompt_tokens": -1, "use_activation": False}
        return "/score", {"queries": query, "documents": texts, **cut, **fields}


def _scores(protocol: Protocol, answer: Any, n: int) -> Float32s:
    """Return the scores in the request's order.

    Raises:
        KeyError: A part is missing.
        TypeError: A part is of another kind.
        ValueError: There are not n scores, or one is not finite.
    """
    places = {"disranker": "results", "vllm": "data", "vllm-classify": "data"}
    results = answer if protocol == "tei" else answer[places[protocol]]
    found = {int(result["index"]): _score(result) for result in results}
    if sorted(found) != [*range(n)] or len(results) != n:
        raise ValueError(f"there are {len(results)} for {len(found)} documents")
    values = np.array([found[index] for index in range(n)], dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError("one is not finite")
    return values


def _score(result: Mapping[str, Any]) -> float:
    """Return a result's score; `/classify` has one a class, of which a ranker has one."""
    if "probs" not in result:
        return float(result["score"])
    if len(result["probs"]) != 1:
        raise ValueError(f"the model has {len(result['probs'])} classes; a ranker has 1")
    return float(result["probs"][0])
