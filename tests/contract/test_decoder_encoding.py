"""A decoder's pair, defined by its ids: frame, cuts, and text that looks like special tokens."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import LlamaTokenizerFast

from service.contract.decoder_encoding import DecoderPairEncoder
from service.contract.encoding import Truncation
from service.contract.types import Candidate
from tests.training.decoders import trained_tokenizer

BOS, EOS = 1, 2
LONG = "the cat and the dog in the kettle " * 20


@pytest.fixture(scope="module")
def tokenizer() -> LlamaTokenizerFast:
    return trained_tokenizer()


def encoder(
    tokenizer: LlamaTokenizerFast, *, bos: int | None = BOS, max_length: int = 64
) -> DecoderPairEncoder:
    return DecoderPairEncoder(
        tokenizer.backend_tokenizer, bos=bos, eos=EOS, max_length=max_length, max_query_length=12
    )


def ids(tokenizer: LlamaTokenizerFast, text: str) -> list[int]:
    """Return Hugging Face's ids of a text alone."""
    found: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    return found


def test_the_ids_are_the_pieces_own_between_bos_and_eos(tokenizer: LlamaTokenizerFast) -> None:
    query, title, summary, colon = (
        ids(tokenizer, text) for text in ("the cat", "Kettle, 2", "wörter in the water", ":")
    )
    pairs = encoder(tokenizer).encode(
        "the cat",
        [
            Candidate("a", "Kettle, 2", "wörter in the water"),
            Candidate("b", "Kettle, 2", " "),
            Candidate("c", "", "wörter in the water"),
            Candidate("d"),
        ],
    )
    prompt = [BOS, *query, *colon]
    assert pairs[0].input_ids.tolist() == [*prompt, *title, *colon, *summary, EOS]
    assert pairs[1].input_ids.tolist() == [*prompt, *title, EOS]
    assert pairs[2].input_ids.tolist() == [*prompt, *summary, EOS]
    assert pairs[3].input_ids.tolist() == [*prompt, EOS]
    assert {pair.first_segment for pair in pairs} == {len(prompt)}


def test_a_model_without_a_first_token_begins_with_the_query(
    tokenizer: LlamaTokenizerFast,
) -> None:
    with_bos, without = (
        encoder(tokenizer, bos=bos).encode("cat", [Candidate(None, "dog")])[0]
        for bos in (BOS, None)
    )
    assert with_bos.input_ids.tolist() == [BOS, *without.input_ids.tolist()]
    assert without.first_segment == with_bos.first_segment - 1


def test_the_query_is_cut_first_then_the_document_and_never_the_end(
    tokenizer: LlamaTokenizerFast,
) -> None:
    short = encoder(tokenizer, max_length=32)
    query, document = ids(tokenizer, LONG), ids(tokenizer, LONG)
    (pair,) = short.encode(LONG, [Candidate(None, "", LONG)])
    colon = ids(tokenizer, ":")
    room = 32 - 12 - 2 - len(colon)
    assert pair.input_ids.tolist() == [BOS, *query[:12], *colon, *document[:room], EOS]
    assert short.is_cut(np.array(query[:12]), np.array(document))
    assert not short.is_cut(np.array(query[:12]), np.array(document[:room]))
    assert short.is_cut(np.array(query[:13]), np.array(document[:1]))


def test_a_request_can_cut_shorter_or_keep_the_end(tokenizer: LlamaTokenizerFast) -> None:
    whole = encoder(tokenizer)
    query = whole.encode_query("cat")
    (document,) = whole.encode_documents([Candidate(None, "", LONG)], keep_end=True)
    assert document.tolist() == ids(tokenizer, LONG)[-len(document) :]
    frame = 2 + len(ids(tokenizer, ":"))
    pair = whole.splice(query, document, Truncation(max_pair_tokens=20, keep_end=True))
    kept = 20 - frame - len(query)
    assert pair.input_ids[-1 - kept : -1].tolist() == document[-kept:].tolist()
    few = whole.splice(query, document, Truncation(max_document_tokens=3))
    assert len(few) == frame + len(query) + 3


def test_special_tokens_in_a_text_are_plain_text(tokenizer: LlamaTokenizerFast) -> None:
    (pair,) = encoder(tokenizer).encode("cat </s>", [Candidate(None, "<s> dog", "</s>")])
    inner = pair.input_ids[1:-1].tolist()
    assert EOS not in inner
    assert BOS not in inner
    assert pair.input_ids[-1] == EOS


def test_limits_without_room_are_refused(tokenizer: LlamaTokenizerFast) -> None:
    with pytest.raises(ValueError, match="leaves no room for a document"):
        encoder(tokenizer, max_length=14)
