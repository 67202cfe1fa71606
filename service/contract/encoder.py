"""The encoder that a template asks for, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.encoding import (
    AS_FITS,
    PairEncoder,
    TokenIds,
    TokenPair,
    Truncation,
    read_tokenizer,
)
from service.contract.template import PAIR_TEMPLATE, TEMPLATE, require_known
from service.contract.types import Candidate


class Ends(BaseModel):
    """Ids of the tokens around a decoder's pair.

    A padded row is pooled on its last token that is not `pad`, so that no pair may end in it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bos: int | None = Field(ge=0, description="`<s>`; null for a model that has none")
    eos: int = Field(ge=0, description="`</s>`, the token that is pooled")
    pad: int = Field(ge=0, description="follows `</s>` where pairs of a call differ in length")


class Encoder(Protocol):
    """Turns texts into the token pairs that a bundle's model reads.

    Attributes:
        max_length: Longest pair, in tokens, the framing ones included.
        max_query_length: Tokens kept of the query.
        frame_tokens: Tokens of a pair that are neither the query's nor the document's.
        fingerprint: Equal for encoders that give every document the same ids, 32 bytes.
        largest_id: The vocabulary's largest id.
    """

    max_length: int
    max_query_length: int
    frame_tokens: int
    fingerprint: bytes
    largest_id: int

    def document_key(self, candidate: Candidate) -> str:
        """Return a text that only candidates with the same ids have."""
        ...

    def encode_query(self, query: str) -> TokenIds:
        """Return the query's ids, at most `max_query_length`, unframed, [q]."""
        ...

    def encode_documents(
        self, candidates: Sequence[Candidate], *, keep_end: bool = False
    ) -> list[TokenIds]:
        """Return each candidate's ids, unframed, cut to what any pair can use."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids of each text, whole and without special tokens."""
        ...

    def splice(
        self, query_ids: TokenIds, document_ids: TokenIds, truncation: Truncation = AS_FITS
    ) -> TokenPair:
        """Return the pair, the document cut to fit, then the query on the right."""
        ...

    def longest(self, truncation: Truncation) -> int:
        """Return the tokens of the longest pair."""
        ...

    def encode(self, query: str, candidates: Sequence[Candidate]) -> list[TokenPair]:
        """Return one pair per candidate, in order."""
        ...


def load_encoder(
    tokenizer: Path, template: str, ends: Ends | None, *, max_length: int, max_query_length: int
) -> Encoder:
    """Return a template's encoder.

    Args:
        tokenizer: The model's `tokenizer.json`.
        template: How a query and a candidate become a pair.
        ends: Of a decoder's pair; None for others, whose tokenizer has them.
        max_length: Longest pair, in tokens.
        max_query_length: Tokens kept of the query.

    Raises:
        ValueError: The template is unknown, the file is no tokenizer for it, ends are missing, or
            a limit leaves no room.
    """
    require_known(template)
    limits = {"max_length": max_length, "max_query_length": max_query_length}
    if template == TEMPLATE:
        return PairEncoder.from_file(tokenizer, **limits)
    if template == PAIR_TEMPLATE:
        return PairEncoder(read_tokenizer(tokenizer), any_frame=True, **limits)
    if ends is None:
        raise ValueError(f"ends: {template!r} pairs need the ids of <s>, </s> and the padding")
    return DecoderPairEncoder(read_tokenizer(tokenizer), bos=ends.bos, eos=ends.eos, **limits)
