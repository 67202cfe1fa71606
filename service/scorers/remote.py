"""A reranker on another machine, asked over HTTP: TEI, vLLM, or another DisRanker."""

from __future__ import annotations

from collections.abc import Sequence

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.types import Candidate, Float32s
from service.scorers.json_client import JsonClient, RemoteError
from service.scorers.wire import Protocol, Wire


class RemoteScorer:
    """Has raw scores computed elsewhere; several threads may ask at once.

    A request that fails for a passing reason is tried again (`JsonClient`).
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
        self._wire = Wire(protocol, model=model, encoder=encoder)
        self._client = JsonClient(url, key=key, requests_per_s=requests_per_s, timeout_s=timeout_s)

    def score(self, query: str, candidates: Sequence[Candidate]) -> Float32s:
        """Return the raw score of each candidate, float32 [n].

        Raises:
            RemoteError: The server cannot be reached, refuses, or answers with something else.
        """
        content = self._client.send(self._wire.path, self._wire.body(query, candidates))
        try:
            return self._wire.scores(content, len(candidates))
        except ValueError as error:
            raise RemoteError(f"{self._client.url}{self._wire.path}: {error}") from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
