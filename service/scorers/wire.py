"""What rerankers elsewhere are asked and how their answers are read, without a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic_core import from_json

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.template import document_text
from service.contract.types import Candidate, Float32s

Protocol = Literal["disranker", "tei", "vllm", "vllm-classify"]

PATHS: dict[Protocol, str] = {
    "disranker": "/rank",
    "tei": "/rerank",
    "vllm": "/score",
    "vllm-classify": "/classify",
}
PLACES: dict[Protocol, str] = {"disranker": "results", "vllm": "data", "vllm-classify": "data"}
"""Where an answer has its list, where it is not the list itself."""

LONGEST_PAUSE_S = 30.0
MAX_MESSAGE_CHARS = 300


class Wire:
    """One server's way to be asked for raw scores.

    The server reads texts, so it tokenises and cuts them as its own model does; vLLM's
    `/classify`, for decoders, reads token ids of ours (vLLM 0.15 or newer).

    Attributes:
        path: Where the server is asked.
    """

    def __init__(
        self,
        protocol: Protocol,
        *,
        model: str | None = None,
        encoder: DecoderPairEncoder | None = None,
    ) -> None:
        """Take a protocol.

        Args:
            protocol: What the server speaks.
            model: What it calls its model; vLLM needs it.
            encoder: Makes the token ids that vLLM's `/classify` is given, which needs one.

        Raises:
            ValueError: An encoder is missing, or there is one for a server that reads texts.
        """
        if (protocol == "vllm-classify") != (encoder is not None):
            raise ValueError("vllm-classify and an encoder need each other")
        self.path = PATHS[protocol]
        self._protocol = protocol
        self._model = model
        self._encoder = encoder

    def body(self, query: str, candidates: Sequence[Candidate]) -> dict[str, Any]:
        """Return what to POST."""
        if self._protocol == "disranker":
            documents = [{"title": c.title, "summary": c.summary} for c in candidates]
            return {"query": query, "candidates": documents}
        fields = {"model": self._model} if self._model else {}
        if self._encoder is not None:
            pairs = self._encoder.encode(query, candidates)
            rows = [pair.input_ids.tolist() for pair in pairs]
            return {"input": rows, "use_activation": False, **fields}
        texts = [document_text(candidate) for candidate in candidates]
        if self._protocol == "tei":
            return {"query": query, "texts": texts, "raw_scores": True, "truncate": True}
        cut = {"truncate_prompt_tokens": -1, "use_activation": False}
        return {"queries": query, "documents": texts, **cut, **fields}

    def scores(self, content: bytes, n: int) -> Float32s:
        """Return the scores in an answer, in the request's order, float32 [n].

        Raises:
            ValueError: It is no JSON, there are not n scores, or one is not finite.
        """
        try:
            answer = from_json(content)
        except ValueError:
            raise ValueError(f"the answer is no JSON: {start_of(content)}") from None
        try:
            return self._found(answer, n)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not {n} scores: {error}") from None

    def _found(self, answer: Any, n: int) -> Float32s:
        results = answer if self._protocol == "tei" else answer[PLACES[self._protocol]]
        found = {int(result["index"]): _score(result) for result in results}
        if sorted(found) != [*range(n)] or len(results) != n:
            raise ValueError(f"there are {len(results)} for {len(found)} documents")
        with np.errstate(over="ignore"):  # a double beyond float32's range becomes infinite
            values = np.array([found[index] for index in range(n)], dtype=np.float32)
        if not np.isfinite(values).all():
            raise ValueError("one is not finite")
        return values


def asked_pause_s(headers: Mapping[str, str]) -> float:
    """Return how long a server asks to wait; 0 where it does not say in seconds."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(LONGEST_PAUSE_S, max(0.0, float(headers[name]) * unit_s))
        except (KeyError, ValueError):
            continue
    return 0.0


def message_of(content: bytes) -> str:
    """Return what a server says, whatever the key it says it under."""
    try:
        body = from_json(content)
        found = next(body[key] for key in ("detail", "message", "error") if body.get(key))
        return str(found)[:MAX_MESSAGE_CHARS]
    except (ValueError, AttributeError, StopIteration):
        return start_of(content)


def start_of(content: bytes) -> str:
    """Return the beginning of an answer as text."""
    return content[: 4 * MAX_MESSAGE_CHARS].decode(errors="replace")[:MAX_MESSAGE_CHARS]


def _score(result: Mapping[str, Any]) -> float:
    """Return a result's score; `/classify` has one a class, of which a ranker has one."""
    if "probs" not in result:
        return float(result["score"])
    if len(result["probs"]) != 1:
        raise ValueError(f"the model has {len(result['probs'])} classes; a ranker has 1")
    return float(result["probs"][0])
