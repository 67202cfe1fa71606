"""The tokens that a tokenizer puts around the two texts of a pair."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tokenizers import Tokenizer

BERT_TOKENS = ["[CLS]", "[SEP]", "[SEP]"]


@dataclass(frozen=True, slots=True)
class Frame:
    """`opening A middle B closing`, as ids.

    Attributes:
        opening: The token before A: `[CLS]` or `<s>`.
        middle: The one or two between: `[SEP]`, or `</s></s>`.
        closing: The token after B.
        splits: Whether B and its closing token are of segment 1; else all is of segment 0.
    """

    opening: int
    middle: tuple[int, ...]
    closing: int
    splits: bool

    def __len__(self) -> int:
        return len(self.middle) + 2

    @classmethod
    def of_bert(cls, tokenizer: Tokenizer) -> Frame:
        """Return `[CLS] A [SEP] B [SEP]` with B of segment 1.

        Raises:
            ValueError: The tokenizer frames a pair in another way.
        """
        pair = tokenizer.encode("", "")
        if pair.tokens != BERT_TOKENS or pair.type_ids != [0, 0, 1]:
            raise ValueError(
                f"not a BERT-type tokenizer: an empty pair is {pair.tokens} of segments "
                f"{pair.type_ids}, not [CLS] [SEP] [SEP] of segments [0, 0, 1]"
            )
        return cls(pair.ids[0], (pair.ids[1],), pair.ids[2], splits=True)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Frame:
        """Return the frame that a tokenizer has, whichever tokens it is made of.

        Raises:
            ValueError: It is none of one token, one or two, and one, or the segments change
                elsewhere than after the middle.
        """
        pair = tokenizer.encode("a", "b")
        shape = "".join("s" if text is None else "AB"[text] for text in pair.sequence_ids)
        found = re.fullmatch("sA+(s{1,2})B+s", shape)
        if found is not None:
            start, end = found.span(1)
            split = [0] * end + [1] * (len(shape) - end)
            if pair.type_ids in (split, [0] * len(shape)):
                middle = tuple(pair.ids[start:end])
                return cls(pair.ids[0], middle, pair.ids[-1], splits=pair.type_ids == split)
        raise ValueError(
            f"the tokenizer frames the pair 'a', 'b' as {pair.tokens} of segments {pair.type_ids}; "
            "known are one token before the first text, one or two between and one after the second"
        )
