"""What a language model is asked, what it answers, and the seam of those who answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from training.recipe import RecipeError


class AnswerError(RecipeError):
    """A language model does not answer, or not with what was asked; the message says what."""


@dataclass(frozen=True, slots=True)
class Write:
    """Asks for a text: the likeliest, token by token.

    Attributes:
        prompt: What is asked.
        max_tokens: Longest answer.
    """

    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Choose:
    """Asks how likely each choice is to begin the answer.

    Attributes:
        prompt: What is asked.
        choices: Words of different first tokens.
    """

    prompt: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Continue:
    """Asks how likely a text is after another.

    Attributes:
        prompt: The text before, as it stands: no chat template is laid around it.
        text: The text after, not blank; it begins with its own blank where there should be one.
    """

    prompt: str
    text: str


Question = Write | Choose | Continue


@dataclass(frozen=True, slots=True)
class Answer:
    """What a language model answers.

    Attributes:
        text: To `Write`; "" where it says nothing.
        logs: To `Choose`, log p of each choice; to `Continue`, the mean log p of the text's tokens.
        prompt_tokens: Tokens that were read.
        completion_tokens: Tokens that were written.
        cached: Whether it was given in an earlier run.
    """

    text: str = ""
    logs: tuple[float, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False


class LanguageModel(Protocol):
    """Answers questions."""

    name: str
    """Tells its answers from another model's."""

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield each answer, behind its question's place, as soon as it is there.

        Raises:
            AnswerError: There is none; those that there are were yielded before.
        """
        ...


def in_order(answers: Iterable[tuple[int, Answer]]) -> list[Answer]:
    """Return answers in the order of their places."""
    return [answer for _, answer in sorted(answers, key=lambda found: found[0])]
