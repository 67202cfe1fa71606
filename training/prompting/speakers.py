"""The language model that a recipe names, with its answers kept and its tokens counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from training.prompting.cache import Cached
from training.prompting.question import Answer, LanguageModel, Question
from training.prompting.recipe import Endpoint, Local

MILLION = 1_000_000


class Counted:
    """A language model whose questions and tokens are counted."""

    def __init__(self, model: LanguageModel, prices: tuple[float, float]) -> None:
        """Take a model.

        Args:
            model: Who answers.
            prices: Of a million tokens read and written.
        """
        self.name = model.name
        self._model = model
        self._prices = prices
        self._asked = self._cached = self._read = self._written = 0

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield each answer, behind its question's place.

        Raises:
            AnswerError: There is none.
        """
        for place, answer in self._model.ask(questions):
            if answer.cached:
                self._cached += 1
            else:
                self._asked += 1
                self._read += answer.prompt_tokens
                self._written += answer.completion_tokens
            yield place, answer

    @property
    def cost(self) -> float:
        """Return what was paid by now, in the prices' currency."""
        return (self._prices[0] * self._read + self._prices[1] * self._written) / MILLION

    def __str__(self) -> str:
        paid = f", cost {self.cost:.4f}" if any(self._prices) else ""
        return (
            f"{self._asked:,} questions asked, {self._cached:,} answered before; tokens "
            f"{self._read:,} read, {self._written:,} written{paid}"
        )


def open_speaker(speaker: Endpoint | Local, cache: Path | None) -> Counted:
    """Return a language model, whose answers are kept in a file where there is one.

    Raises:
        RecipeError: It cannot be loaded, its key is not set, or the file is of something else.
    """
    model = _load(speaker)
    prices = (0.0, 0.0)
    if isinstance(speaker, Endpoint):
        prices = speaker.prompt_price, speaker.completion_price
    return Counted(model if cache is None else Cached(model, cache), prices)


def _load(speaker: Endpoint | Local) -> LanguageModel:
    if isinstance(speaker, Endpoint):
        from training.prompting.endpoint import EndpointModel

        return EndpointModel(speaker)
    from training.prompting.local import LocalModel

    return LocalModel(speaker)
