"""A question's text to token ids, in the model's chat template where it has one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

MARK = "\ue000"
"""Stands for the question while the template is laid around it: a letter that nobody uses."""


class PromptIds:
    """Makes a model's token ids of texts; special tokens written in these are plain text.

    Attributes:
        pad: Id that fills rows up.
        ends: Ids after which nothing is said.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: int | list[int] | None) -> None:
        """Take a tokenizer, and the ids that the model itself ends its answers with."""
        self._tokenizer: Any = tokenizer
        more = ends if isinstance(ends, list) else [ends]
        self.ends = sorted({one for one in (tokenizer.eos_token_id, *more) if one is not None})
        self.pad: int = tokenizer.pad_token_id or 0  # masked, so that any id will do
        bos = tokenizer.bos_token_id
        self._start = [] if bos is None else [bos]
        self._before, self._after = self._frame()

    def asked(self, prompt: str) -> list[int]:
        """Return a prompt's ids, framed as the model expects to be asked."""
        return [*self._before, *self.inner(prompt), *self._after]

    def continued(self, prompt: str, text: str) -> tuple[list[int], list[int]]:
        """Return the ids of a prompt and of the text after it, cut where the text begins.

        Both are read as one: many tokenizers put a blank before whatever they are given, and the
        text alone would begin with two. A token that begins before the text and ends in it counts.
        """
        found = self._tokenizer(
            prompt + text,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        ids, ends = found["input_ids"], [end for _, end in found["offset_mapping"]]
        start = bisect_right(ends, len(prompt))
        return [*self._start, *ids[:start]], ids[start:]

    def inner(self, text: str) -> list[int]:
        """Return a text's ids and nothing else."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return ids

    def choices(self, choices: Sequence[str]) -> list[list[list[int]]]:
        """Return the ways in which each choice may begin an answer: with a blank or without."""
        return [
            [list(ids) for ids in {tuple(self.inner(text)): None for text in (word, f" {word}")}]
            for word in choices
        ]

    def before_end(self, ids: Sequence[int]) -> list[int]:
        """Return the ids up to the first that ends the answer."""
        place = next((place for place, one in enumerate(ids) if one in self.ends), len(ids))
        return list(ids[:place])

    def text(self, ids: Sequence[int]) -> str:
        """Return what ids say."""
        found: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return found

    def _frame(self) -> tuple[list[int], list[int]]:
        """Return the ids before and after a question."""
        if self._tokenizer.chat_template is None:
            return self._start, []
        message = [{"role": "user", "content": MARK}]
        whole = self._tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True
        )
        before, after = whole.split(MARK)
        frame = self._tokenizer([before, after], add_special_tokens=False)["input_ids"]
        return frame[0], frame[1]
