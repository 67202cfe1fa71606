"""Text that tokenises like text: a vocabulary's own words, as often as words are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract.encoding import PairEncoder

ZIPF_OFFSET = 2.7
"""Zipf–Mandelbrot's offset: the 100 commonest words are then 39 % of all, as in DL19's passages."""

COMPOUNDS = 20_000
"""Words of several tokens, made of a word and a piece that only continues words."""

COMPOUND_SHARE = 0.12
"""Share of words that are compounds: 10–11 % of the tokens of web text continue a word."""

MARK_SHARE = 0.17
"""Share of words with a mark after them: 14–16 % of the tokens of web text are marks."""

MARKS = (",", ".", "-", ":", "?", "'", ")", ";")
MARK_ODDS = (0.37, 0.36, 0.11, 0.05, 0.02, 0.04, 0.03, 0.02)


class Prose:
    """Writes text of given token counts with a BERT vocabulary.

    A BERT vocabulary lists its words from the commonest to the rarest, so a word's place in it is
    its rank. Compounds are ranked at random. The text means nothing; its tokens per word, marks and
    repeated words are those of web text, which is what a tokenizer, a cache and a model's cost see.
    """

    def __init__(self, tokenizer: Path) -> None:
        """Read the vocabulary of a `tokenizer.json`.

        Raises:
            ValueError: The file is no BERT-type tokenizer, or has no words.
        """
        encoder = PairEncoder.from_file(tokenizer)
        entries = Tokenizer.from_file(str(tokenizer)).get_vocab()
        ranked = [entry for entry in sorted(entries, key=entries.__getitem__) if entry.isascii()]
        self._words = _Lexicon(encoder, [e for e in ranked if e.isalnum() and len(e) > 1])
        tails = [e[2:] for e in ranked if e.startswith("##") and e[2:].isalpha()]
        self._compounds = _Lexicon(encoder, _compounds(self._words.texts, tails))
        if not len(self._words.singles):
            raise ValueError(f"{tokenizer}: no word of one token in the vocabulary")

    def write(self, tokens: int, rng: Generator) -> str:
        """Return a text of exactly so many tokens, "" for 0."""
        words = self._draw(tokens, rng)
        marks = np.where(
            rng.random(tokens) < MARK_SHARE, rng.choice(len(MARKS), tokens, p=MARK_ODDS), -1
        )
        written: list[str] = []
        left = tokens
        for (text, cost), mark in zip(words, marks.tolist(), strict=True):
            if cost > left:
                text, cost = self._words.single(rng)
            left -= cost
            if mark >= 0 and left > 0:
                text += MARKS[mark]
                left -= 1
            written.append(text)
            if left == 0:
                break
        return " ".join(written)

    def _draw(self, count: int, rng: Generator) -> list[tuple[str, int]]:
        words = self._words.draw(count, rng)
        compounds = self._compounds.draw(count, rng)
        chosen = (rng.random(count) < COMPOUND_SHARE).tolist()
        return [
            b if use and compounds else a
            for a, b, use in zip(words, compounds or words, chosen, strict=True)
        ]


class _Lexicon:
    """Words with their token counts, the commonest first."""

    def __init__(self, encoder: PairEncoder, texts: list[str]) -> None:
        self.texts = texts
        self.costs = [len(ids) for ids in encoder.encode_texts(texts)]
        self.singles = [text for text, cost in zip(texts, self.costs, strict=True) if cost == 1]
        weights = 1 / (np.arange(len(texts)) + 1 + ZIPF_OFFSET)
        self._cumulative: NDArray[np.float64] = np.cumsum(weights) / weights.sum()

    def draw(self, count: int, rng: Generator) -> list[tuple[str, int]]:
        """Return independent draws of a word and its tokens; none where there are no words."""
        if not self.texts:
            return []
        places = np.searchsorted(self._cumulative, rng.random(count)).tolist()
        return [(self.texts[place], self.costs[place]) for place in places]

    def single(self, rng: Generator) -> tuple[str, int]:
        """Return a word of one token."""
        return self.singles[int(rng.integers(len(self.singles)))], 1


def _compounds(words: list[str], tails: list[str]) -> list[str]:
    """Return words with tails in a fixed order, none that is a word itself."""
    if not words or not tails:
        return []
    rng = np.random.default_rng(0)
    heads = rng.integers(len(words), size=COMPOUNDS).tolist()
    ends = rng.integers(len(tails), size=COMPOUNDS).tolist()
    found = (words[head] + tails[end] for head, end in zip(heads, ends, strict=True))
    known = set(words)
    return [text for text in dict.fromkeys(found) if text not in known]
