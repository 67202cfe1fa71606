"""Text to token ids for decoders: `<s> query : title : summary </s>`, defined by its ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

from service.contract.encoding import AS_FITS, TokenIds, TokenPair, Truncation
from service.contract.types import Candidate

SEPARATOR = ":"


class DecoderPairEncoder:
    """Encodes pairs for a decoder that is pooled on its closing `</s>`.

    Query, separator, title and summary are tokenised each for itself and joined as ids: a BPE
    tokenizer merges across them, so the text of the whole would not define the ids. A blank title
    or summary is left out with its separator. Special tokens written in a text are plain text.

    Attributes:
        frame_tokens: `<s>`, the separator after the query, and `</s>`.
        fingerprint: Equal for encoders that give every document the same ids, 32 bytes.
        largest_id: The vocabulary's largest id.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        bos: int | None,
        eos: int,
        max_length: int = 256,
        max_query_length: int = 64,
    ) -> None:
        """Take a tokenizer and the pair's limits.

        Args:
            tokenizer: The decoder's tokenizer; a private copy of it is used.
            bos: Id of `<s>`; None for a model that has none.
            eos: Id of `</s>`, the token that is pooled.
            max_length: Longest pair, in tokens, the framing ones included.
            max_query_length: Tokens kept of the query; the document gets what is left.

        Raises:
            ValueError: A limit leaves no room, or the tokenizer has no tokens for the separator.
        """
        definition = tokenizer.to_str()
        self._tokenizer = Tokenizer.from_str(definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self._separator = self.encode_texts([SEPARATOR])[0]
        if len(self._separator) == 0:
            raise ValueError(f"the tokenizer has no token for {SEPARATOR!r}")
        self._bos = np.array([] if bos is None else [bos], dtype=np.int32)
        self._eos = np.array([eos], dtype=np.int32)
        self.frame_tokens = len(self._bos) + len(self._separator) + 1
        if max_query_length < 1 or max_length < max_query_length + self.frame_tokens + 1:
            raise ValueError(
                f"max_length {max_length} leaves no room for a document beside "
                f"max_query_length {max_query_length} and {self.frame_tokens} framing tokens"
            )
        self.max_length = max_length
        self.max_query_length = max_query_length
        frame = f"decoder {max_length} {bos} {eos} {definition}"
        self.fingerprint = hashlib.sha256(frame.encode()).digest()
        self.largest_id = max(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def document_key(self, candidate: Candidate) -> str:
        """Return a text that only candidates with the same ids have.

        Where the title ends, unlike with BERT, makes a difference: a separator stands there.
        """
        return f"{len(candidate.title)}:{candidate.title}{candidate.summary}"

    def encode_query(self, query: str) -> TokenIds:
        """Return the query's ids, at most `max_query_length`, unframed, [q]."""
        return self.encode_texts([query])[0][: self.max_query_length]

    def encode_documents(
        self, candidates: Sequence[Candidate], *, keep_end: bool = False
    ) -> list[TokenIds]:
        """Return each candidate's ids, `title : summary`, cut to what any pair can use."""
        room = self.max_length - self.frame_tokens
        kept = slice(-room, None) if keep_end else slice(room)
        return [ids[kept] for ids in self.encode_whole(candidates)]

    def encode_whole(self, candidates: Sequence[Candidate]) -> list[TokenIds]:
        """Return each candidate's ids, `title : summary`, however long."""
        fields = [
            [text for text in (candidate.title, candidate.summary) if text.strip()]
            for candidate in candidates
        ]
        ids = iter(self.encode_texts(list(chain.from_iterable(fields))))
        empty = np.array([], dtype=np.int32)
        documents = []
        for texts in fields:
            parts = [part for _ in texts for part in (self._separator, next(ids))]
            documents.append(np.concatenate(parts[1:]) if parts else empty)
        return documents

    def encode_texts(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the ids of each text, whole and without special tokens."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]

    def splice(
        self, query_ids: TokenIds, document_ids: TokenIds, truncation: Truncation = AS_FITS
    ) -> TokenPair:
        """Return `<s> q : d </s>`, the document cut to fit, then the query on the right.

        The pair's first segment is `<s> q :`, the prompt of continued pre-training.
        """
        room = self.longest(truncation) - self.frame_tokens
        query = query_ids[:room]
        kept = min(len(document_ids), room - len(query))
        if truncation.max_document_tokens is not None:
            kept = min(kept, truncation.max_document_tokens)
        start = len(document_ids) - kept if truncation.keep_end else 0
        document = document_ids[start : start + kept]
        prompt = (self._bos, query, self._separator)
        ids = np.concatenate([*prompt, document, self._eos]).astype(np.int64)
        return TokenPair(ids, sum(len(part) for part in prompt))

    def longest(self, truncation: Truncation) -> int:
        """Return the tokens of the longest pair; what a request asks for leaves room for a text."""
        asked = truncation.max_pair_tokens or self.max_length
        return min(self.max_length, max(asked, self.frame_tokens + 1))

    def is_cut(self, query_ids: TokenIds, document_ids: TokenIds) -> bool:
        """Return whether the pair of these whole ids would lose some of them."""
        return (
            len(query_ids) > self.max_query_length
            or len(query_ids) + len(document_ids) + self.frame_tokens > self.max_length
        )

    def encode(self, query: str, candidates: Sequence[Candidate]) -> list[TokenPair]:
        """Return one pair per candidate, in order."""
        query_ids = self.encode_query(query)
        return [self.splice(query_ids, ids) for ids in self.encode_documents(candidates)]
