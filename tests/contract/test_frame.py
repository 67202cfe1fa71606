"""Frames of other tokenizers than BERT's, and the pairs that they make."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import Whitespace

from service.contract.encoding import PairEncoder, Truncation
from service.contract.frame import Frame
from service.contract.types import Candidate
from tests.contract.test_encoding import framed

ROBERTA = "<s> $A </s> </s> $B </s>"
FRAMES = {
    "[CLS] $A [SEP] $B:1 [SEP]:1": Frame(1, (2,), 2, splits=True),
    "[CLS] $A [SEP] $B [SEP]": Frame(1, (2,), 2, splits=False),
    ROBERTA: Frame(1, (2, 2), 2, splits=False),
}


def tokenizer_of(pair: str) -> Tokenizer:
    tokenizer = framed(pair, *(("<s>", "</s>") if "</s>" in pair else ("[CLS]", "[SEP]")))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


@pytest.mark.parametrize("pair", FRAMES)
@pytest.mark.parametrize("document", ["", "a", "a a a"])
def test_pairs_are_the_tokenizers_own(pair: str, document: str) -> None:
    tokenizer = tokenizer_of(pair)
    encoder = PairEncoder(tokenizer, any_frame=True)
    assert Frame.of(tokenizer) == FRAMES[pair]
    expected = tokenizer.encode("a a", document)
    (found,) = encoder.encode("a a", [Candidate(summary=document)])
    assert found.input_ids.tolist() == expected.ids
    assert found.token_type_ids.tolist() == expected.type_ids
    assert encoder.frame_tokens == len(expected.ids) - 2 - len(document.split())


def test_a_frame_of_four_leaves_room_for_a_token() -> None:
    encoder = PairEncoder(tokenizer_of(ROBERTA), max_length=9, max_query_length=4, any_frame=True)
    query, document = encoder.encode_texts(["a a a a", "a a a a"])
    assert len(encoder.splice(query, document)) == 9
    for asked in (1, 5):
        pair = encoder.splice(query, document, Truncation(max_pair_tokens=asked))
        assert pair.input_ids.tolist() == [1, 3, 2, 2, 2]
    with pytest.raises(ValueError, match="4 special tokens"):
        PairEncoder(tokenizer_of(ROBERTA), max_length=8, max_query_length=4, any_frame=True)


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param("", id="none"),
        pytest.param("<s> $A $B </s>", id="nothing between"),
        pytest.param("<s> $A </s> $B", id="nothing after"),
        pytest.param("$A </s> $B </s>", id="nothing before"),
        pytest.param("<s> $A </s> </s> </s> $B </s>", id="three between"),
        pytest.param("<s> $B </s> $A </s>", id="the second first"),
        pytest.param("<s> $A </s>:1 $B:1 </s>:1", id="segments that change before the middle"),
        pytest.param("<s>:1 $A:1 </s>:1 $B </s>", id="segments the other way round"),
    ],
)
def test_other_frames_are_refused(pair: str) -> None:
    with pytest.raises(ValueError, match="the tokenizer frames the pair 'a', 'b' as"):
        PairEncoder(tokenizer_of(pair), any_frame=True)
