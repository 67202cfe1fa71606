"""Ranking methods that ask as they go: generators that yield questions and are sent answers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

from training.prompting.question import Answer, LanguageModel, Question, in_order

Result = TypeVar("Result")

Steps = Generator[list[Question], list[Answer], Result]
"""Yields questions, each time some that do not wait for each other, and returns a result."""


def together(parts: Sequence[Steps[Result]]) -> Steps[list[Result]]:
    """Ask the questions of several parts at once and return their results, in their order."""
    results: dict[int, Result] = {}
    waiting: dict[int, list[Question]] = {}

    def go_on(place: int, answers: list[Answer] | None) -> None:
        try:
            waiting[place] = next(parts[place]) if answers is None else parts[place].send(answers)
        except StopIteration as end:
            results[place] = end.value

    for place in range(len(parts)):
        go_on(place, None)
    while waiting:
        asked, waiting = waiting, {}
        answers = iter((yield [question for questions in asked.values() for question in questions]))
        for place, questions in asked.items():
            go_on(place, [next(answers) for _ in questions])
    return [results[place] for place in range(len(parts))]


def answered(steps: Steps[Result], model: LanguageModel) -> Result:
    """Return the result of steps whose questions a language model answers.

    Raises:
        AnswerError: It does not.
    """
    try:
        questions = next(steps)
        while True:
            questions = steps.send(in_order(model.ask(questions)))
    except StopIteration as end:
        result: Result = end.value
        return result
