"""Pairwise prompting: which of two documents, asked in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from training.figures import Floats
from training.prompting.question import Answer, Choose, Question
from training.prompting.steps import Steps, together

PAIR = """\
Query: {query}

Document A: {first}

Document B: {second}

Which of the two answers the query better? Say A or B.
Answer:"""


def all_pairs(query: str, documents: Sequence[str]) -> Steps[Floats]:
    """Return each document's wins, a tie for half a one, over all others.

    Source:
        Qin et al. 2023, arXiv:2306.17563, PRP-Allpair; the wording is ours.
    """
    pairs = list(combinations(range(len(documents)), 2))
    answers = yield [
        question for a, b in pairs for question in _both(query, documents[a], documents[b])
    ]
    wins = np.zeros(len(documents))
    for place, (a, b) in enumerate(pairs):
        share = (1 + _preference(answers[2 * place : 2 * place + 2])) / 2
        wins[a] += share
        wins[b] += 1 - share
    return wins


def sorting(query: str, documents: Sequence[str]) -> Steps[Floats]:
    """Return n for the first of n documents, 1 for the last, sorted by comparing two at a time.

    By merging, which ends however the answers contradict each other, keeps ties in their order and
    needs at most n · log2 n comparisons; the halves are sorted at the same time.

    Source:
        Qin et al. 2023, arXiv:2306.17563, PRP-Sorting, there by heapsort; the wording is ours.
    """
    order = yield from _sorted(query, documents, list(range(len(documents))))
    return by_order(order)


def by_order(order: Sequence[int]) -> Floats:
    """Return n for the first of n places, 1 for the last."""
    scores = np.empty(len(order))
    scores[list(order)] = np.arange(len(order), 0, -1)
    return scores


def _sorted(query: str, documents: Sequence[str], places: list[int]) -> Steps[list[int]]:
    if len(places) < 2:
        return places
    half = len(places) // 2
    halves = [_sorted(query, documents, part) for part in (places[:half], places[half:])]
    left, right = yield from together(halves)
    merged = []
    while left and right:
        answers = yield _both(query, documents[left[0]], documents[right[0]])
        merged.append((left if _preference(answers) >= 0 else right).pop(0))
    return [*merged, *left, *right]


def _both(query: str, one: str, other: str) -> list[Question]:
    return [
        Choose(PAIR.format(query=query, first=first, second=second), ("A", "B"))
        for first, second in ((one, other), (other, one))
    ]


def _preference(answers: Sequence[Answer]) -> int:
    """Return 1 where the one wins in both orders, -1 where the other does, 0 where neither."""
    there, back = ([*answer.logs] for answer in answers)
    if there[0] > there[1] and back[1] > back[0]:
        return 1
    return -1 if there[1] > there[0] and back[0] > back[1] else 0
