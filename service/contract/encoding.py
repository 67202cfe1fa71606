"""Text to token ids: the one encoder of training, export and service."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract.frame import Frame
from service.contract.template import document_text
from service.contract.types import Candidate

TokenIds = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of a pair is read.

    Attributes:
        max_pair_tokens: Longest pair, the special tokens included; None for the encoder's limit,
            which also holds above it.
        max_document_tokens: Tokens kept of a document; None for all that fit.
        keep_end: Whether a document that is too long loses its beginning instead of its end.
        refuse: Whether a text that is too long is an error instead, for who encodes to raise.
    """

    max_pair_tokens: int | None = None
    max_document_tokens: int | None = None
    keep_end: bool = False
    refuse: bool = False


AS_FITS = Truncation()
"""Documents are cut on the right to what fits."""


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A framed query and document, such as `[CLS] q [SEP] d [SEP]`, at its exact length.

    Attributes:
        input_ids: Token ids, int64 [n].
        first_segment: How many leading ids are of segment 0 (`[CLS] q [SEP]`); all of them where
            the model knows no segments.
    """

    input_ids: NDArray[np.int64]
    first_segment: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def token_type_ids(self) -> NDArray[np.int64]:
        """Segment of each token: 0 for the query's part, 1 for the document's, int64 [n]."""
        types = np.ones(len(self.input_ids), dtype=np.int64)
        types[: self.first_segment] = 0
        return types


class PairEncoder:
    """Encodes pairs for a cross-encoder: query once, each document once, then splice.

    Splicing ids equals encoding the pair of texts, since a tokenizer never joins the two: proven
    for BERT's by tests, for others probed by export. Texts are cut as ids, never decoded and
    encoded again. Special tokens written in a text are plain text to it, as with Hugging Face's
    `split_special_tokens=True`.

    Attributes:
        frame_tokens: Tokens of a pair that are neither the query's nor the document's.
        fingerprint: Equal for encoders that give every document the same ids, 32 bytes.
        largest_id: The vocabulary's largest id.
        document_key: A text that only candidates with the same ids have.
    """

    document_key = staticmethod(document_text)

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int = 256,
        max_query_length: int = 64,
        any_frame: bool = False,
    ) -> None:
        """Take a tokenizer and the pair's limits.

        Args:
            tokenizer: The model's tokenizer; a private copy of it is used.
            max_length: Longest pair, in tokens, the special ones included.
            max_query_length: Tokens kept of the query; the document gets what is left.
            any_frame: Take any `Frame` instead of BERT's alone.

        Raises:
            ValueError: The tokenizer does not frame a pair so, or a limit leaves no room.
        """
        definition = tokenizer.to_str()
        self.fingerprint = hashlib.sha256(f"{max_length} {definition}".encode()).digest()
        self._tokenizer = Tokenizer.from_str(definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._frame = (Frame.of if any_frame else Frame.of_bert)(self._tokenizer)
        self.frame_tokens = len(self._frame)
        if max_query_length < 1 or max_length < max_query_length + self.frame_tokens + 1:
            raise ValueError(
                f"max_length {max_length} leaves no room for a document beside "
                f"max_query_length {max_query_length} and {self.frame_tokens} special tokens"
            )
        self.max_length = max_length
        self.max_query_length = max_query_length
        self.largest_id = max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    @classmethod
    def from_file(
        cls, path: Path, *, max_length: int = 256, max_query_length: int = 64
    ) -> PairEncoder:
        """Return an encoder for the `tokenizer.json` at path.

        Raises:
            ValueError: The file is no BERT-type tokenizer, or a limit leaves no room.
        """
        return cls(read_tokenizer(path), max_length=max_length, max_query_length=max_query_length)

    def encode_query(self, query: str) -> TokenIds:
        """Return the query's ids, at most `max_query_length`, without special tokens, [q]."""
        return self.encode_texts([query])[0][: self.max_query_length]

    def encode_documents(
        self, candidates: Sequence[Candidate], *, keep_end: bool = False
    ) -> list[TokenIds]:
        """Return each candidate's ids, without special tokens, cut to what any pair can use."""
        room = self.max_length - self.frame_tokens
        kept = slice(-room, None) if keep_end else slice(room)
        texts = [document_text(candidate) for candidate in candidates]
        return [ids[kept] for ids in self.encode_texts(texts)]

    def encode_texts(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids of each text, whole and without special tokens."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def splice(
        self, query_ids: TokenIds, document_ids: TokenIds, truncation: Truncation = AS_FITS
    ) -> TokenPair:
        """Return the framed pair, the document cut to fit, then the query on the right."""
        q, d = self._kept(query_ids, document_ids, truncation)
        frame = self._frame
        first = q + self.frame_tokens - 1
        ids = np.empty(first + d + 1, dtype=np.int64)
        ids[0] = frame.opening
        ids[1 : q + 1] = query_ids[:q]
        ids[q + 1] = frame.middle[0]
        ids[first - 1] = frame.middle[-1]  # the same place where there is one
        start = len(document_ids) - d if truncation.keep_end else 0
        ids[first:-1] = document_ids[start : start + d]
        ids[-1] = frame.closing
        return TokenPair(ids, first if frame.splits else len(ids))

    def longest(self, truncation: Truncation) -> int:
        """Return the tokens of the longest pair; what a request asks for leaves room for a text."""
        asked = truncation.max_pair_tokens
        if asked is None:
            return self.max_length
        return min(self.max_length, max(asked, self.frame_tokens + 1))

    def _kept(
        self, query_ids: TokenIds, document_ids: TokenIds, truncation: Truncation
    ) -> tuple[int, int]:
        """Return how many tokens of each stay."""
        room = self.longest(truncation) - self.frame_tokens
        q = min(len(query_ids), room)
        d = min(len(document_ids), room - q)
        most = truncation.max_document_tokens
        return q, d if most is None else min(d, most)

    def encode(self, query: str, candidates: Sequence[Candidate]) -> list[TokenPair]:
        """Return one pair per candidate, in order."""
        query_ids = self.encode_query(query)
        return [self.splice(query_ids, ids) for ids in self.encode_documents(candidates)]


def read_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer of a `tokenizer.json`.

    Raises:
        ValueError: The file is none.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower class
        raise ValueError(f"{path} is no tokenizer: {error}") from error
