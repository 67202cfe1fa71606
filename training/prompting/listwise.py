"""Listwise prompting: the model writes down the order of many documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.figures import Floats
from training.prompting.pairwise import by_order
from training.prompting.permutation import read_permutation
from training.prompting.question import Question, Write
from training.prompting.steps import Steps

TOKENS_A_DOCUMENT, MORE_TOKENS = 8, 16
"""Room for "[12] > " in any tokenizer, and for a few words before it."""

LIST = """\
Here are {count} documents, each with its number in brackets, for the search query: {query}

{documents}

Search query: {query}

Rank the {count} documents by how well they answer the query, best first. {omit}Write the numbers \
and nothing else, as in [2] > [1]."""

OMIT = "Leave out those that do not answer it. "


def windows(query: str, documents: Sequence[str], *, size: int, step: int) -> Steps[Floats]:
    """Return n for the first of n documents, 1 for the last, ranked in windows from the end.

    Each window begins `step` places before the last one, so that good documents are handed up to
    the front. What an answer omits comes behind what it ranks, in its order.

    Source:
        Sun et al. 2023, arXiv:2304.09542, section 3.2, size 20 and step 10; the wording is ours.
    """
    order = list(range(len(documents)))
    end = len(order)
    while end > 0:
        start = max(0, end - size)
        shown = order[start:end]
        answers = yield [_ask(query, [documents[place] for place in shown], "")]
        found = read_permutation(answers[0].text, len(shown))
        order[start:end] = [shown[place] for place in (*found.ranked, *found.omitted)]
        end = 0 if start == 0 else end - step
    return by_order(order)


def tiers(query: str, documents: Sequence[str], *, shown: int) -> Steps[Floats]:
    """Return tiers: k for the first of k ranked, 1 for the last, 0 omitted, -1 never shown.

    The first `shown` documents are ranked in one prompt that asks to leave some out. Where the
    answer ranks none, all documents get 0: there is nothing to learn of that query.

    Source:
        RRADistill (Choi et al. 2024, arXiv:2410.18097): omitted documents are hard negatives, and
        there is no sliding window. Our interpretation, of the abstract: only the pre-ranker's best
        are shown, what it puts last are easy negatives below the hard ones, and the prompt invites
        to leave out.
    """
    count = min(shown, len(documents))
    answers = yield [_ask(query, documents[:count], OMIT)]
    found = read_permutation(answers[0].text, count)
    scores = np.zeros(len(documents))
    if found.ranked:
        scores[count:] = -1
        scores[list(found.ranked)] = np.arange(len(found.ranked), 0, -1)
    return scores


def _ask(query: str, documents: Sequence[str], omit: str) -> Question:
    rows = "\n".join(f"[{number}] {text}" for number, text in enumerate(documents, start=1))
    prompt = LIST.format(count=len(documents), query=query, documents=rows, omit=omit)
    return Write(prompt, TOKENS_A_DOCUMENT * len(documents) + MORE_TOKENS)
