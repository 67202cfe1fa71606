"""Ranking methods against answers made by hand, and what each asks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import pytest

from training.figures import Floats
from training.prompting.listwise import tiers, windows
from training.prompting.pairwise import all_pairs, sorting
from training.prompting.pointwise import likelihood, yes_no
from training.prompting.question import Answer, Choose, Continue, Question, Write
from training.prompting.steps import Steps, answered, together


class Scripted:
    """Answers by a function, and counts how often it is asked."""

    name = "scripted"

    def __init__(self, answer: Callable[[Question], Answer]) -> None:
        self._answer = answer
        self.rounds: list[int] = []

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Answer the last question first: places say whose an answer is."""
        self.rounds.append(len(questions))
        return reversed([*enumerate(map(self._answer, questions))])


def run(steps: Steps[Floats], answer: Callable[[Question], Answer]) -> list[float]:
    scores: list[float] = answered(steps, Scripted(answer)).tolist()
    return scores


def better_number(question: Question) -> Answer:
    """Prefer the greater number of two, whatever the order."""
    assert isinstance(question, Choose)
    first, second = (
        float(question.prompt.partition(f"Document {name}: ")[2].partition("\n")[0])
        for name in "AB"
    )
    return Answer(logs=(first, second))


def test_yes_no_is_the_log_odds_of_the_two_answers() -> None:
    def answer(question: Question) -> Answer:
        assert isinstance(question, Choose)
        assert question.choices == ("Yes", "No")
        assert "boil water" in question.prompt
        return Answer(logs=(-1.0, -3.0) if "kettle" in question.prompt else (-4.0, -0.5))

    assert run(yes_no("boil water", ["a kettle", "a dog"]), answer) == [2.0, -3.5]


def test_likelihood_is_that_of_the_query_after_the_document() -> None:
    def answer(question: Question) -> Answer:
        assert isinstance(question, Continue)
        assert question.text == " boil water"
        return Answer(logs=(-1.0 if "kettle" in question.prompt else -2.0,))

    assert run(likelihood("boil water", ["a dog", "a kettle"]), answer) == [-2.0, -1.0]


def test_all_pairs_counts_wins_over_both_orders() -> None:
    model = Scripted(better_number)
    assert answered(all_pairs("q", ["2", "3", "1"]), model).tolist() == [1.0, 2.0, 0.0]
    assert model.rounds == [6]


@pytest.mark.parametrize("method", [all_pairs, sorting])
def test_a_model_that_always_likes_the_first_place_decides_nothing(
    method: Callable[[str, Sequence[str]], Steps[Floats]],
) -> None:
    scores = run(method("q", ["x", "y", "z"]), lambda _: Answer(logs=(-0.1, -2.0)))
    expected = {"all_pairs": [1.0, 1.0, 1.0], "sorting": [3.0, 2.0, 1.0]}
    assert scores == expected[method.__name__]


@pytest.mark.parametrize("seed", range(4))
def test_sorting_finds_the_order_of_all_pairs_with_fewer_questions(seed: int) -> None:
    numbers = random.Random(seed).sample(range(100), 17)
    texts = [str(number) for number in numbers]
    model = Scripted(better_number)
    scores = answered(sorting("q", texts), model).tolist()
    expected = [sum(other <= number for other in numbers) for number in numbers]
    assert scores == expected
    assert sum(model.rounds) < 17 * 16 / 2


def test_sorting_ends_when_the_answers_contradict_each_other() -> None:
    draw = random.Random(0)
    scores = run(
        sorting("q", [str(n) for n in range(20)]),
        lambda _: Answer(logs=(draw.random(), draw.random())),
    )
    assert sorted(scores) == list(range(1, 21))


def shown(question: Question) -> list[str]:
    assert isinstance(question, Write)
    rows = [line for line in question.prompt.splitlines() if line.startswith("[")]
    return [row.partition(" ")[2] for row in rows]


def by_number(question: Question) -> Answer:
    numbers = [int(text) for text in shown(question)]
    order = sorted(range(len(numbers)), key=lambda place: -numbers[place])
    return Answer(" > ".join(f"[{place + 1}]" for place in order))


def test_windows_carry_the_best_from_the_end_to_the_front() -> None:
    numbers = list(range(48))  # the best come last
    seen: list[list[str]] = []

    def answer(question: Question) -> Answer:
        seen.append(shown(question))
        return by_number(question)

    scores = run(windows("q", [str(n) for n in numbers], size=20, step=10), answer)
    assert [len(texts) for texts in seen] == [20, 20, 20, 18]
    assert seen[0] == [str(n) for n in range(28, 48)]
    best = sorted(numbers, key=lambda number: -scores[number])[:10]
    assert best == list(range(47, 37, -1))
    assert sorted(scores) == list(range(1, 49))


def test_one_window_holds_a_short_list() -> None:
    assert run(windows("q", ["1", "3", "2"], size=20, step=10), by_number) == [1.0, 3.0, 2.0]


def test_in_windows_the_omitted_follow_in_their_order() -> None:
    scores = run(windows("q", list("abcd"), size=4, step=2), lambda _: Answer("[3]"))
    assert scores == [3.0, 2.0, 4.0, 1.0]


def test_tiers_are_ranked_then_omitted_then_never_shown() -> None:
    def answer(question: Question) -> Answer:
        assert shown(question) == ["a", "b", "c"]
        return Answer("[3] > [1]")

    assert run(tiers("q", list("abcde"), shown=3), answer) == [1.0, 0.0, 2.0, -1.0, -1.0]


def test_an_answer_without_a_ranking_teaches_nothing() -> None:
    assert run(tiers("q", list("abcde"), shown=3), lambda _: Answer("Sorry.")) == [0.0] * 5


def test_queries_are_ranked_side_by_side() -> None:
    model = Scripted(better_number)
    steps = together([sorting("q", ["1", "2", "3"]), sorting("q", ["5"]), sorting("q", ["2", "1"])])
    found = answered(steps, model)
    assert [scores.tolist() for scores in found] == [[1, 2, 3], [1], [2, 1]]
    assert model.rounds[0] == 4
    assert len(model.rounds) <= 3
