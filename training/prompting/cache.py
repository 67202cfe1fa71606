"""Answers on disk: a run that was stopped, or is repeated, asks for none of them again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from training.prompting.question import Answer, LanguageModel, Question
from training.recipe import RecipeError

TABLE = "CREATE TABLE IF NOT EXISTS answers (question BLOB PRIMARY KEY, answer TEXT NOT NULL)"


class Cached:
    """A language model whose answers are kept, each as soon as it is there."""

    def __init__(self, model: LanguageModel, path: Path) -> None:
        """Open a file of answers, or begin one.

        Raises:
            RecipeError: It cannot be opened, or is another kind of file.
        """
        self.name = model.name
        self._model = model
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._answers = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._answers.execute("PRAGMA journal_mode=WAL")
            self._answers.execute(TABLE)
        except (OSError, sqlite3.Error) as error:
            raise RecipeError(f"{path}: no file of answers: {error}") from None

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield each answer, behind its question's place; equal questions are asked once.

        Raises:
            AnswerError: There is none to a question that was not asked before.
        """
        places: dict[bytes, list[int]] = {}
        for place, question in enumerate(questions):
            places.setdefault(self._key(question), []).append(place)
        new = []
        for key, mine in places.items():
            if (known := self._find(key)) is None:
                new.append(key)
            else:
                yield from ((place, known) for place in mine)
        for number, answer in self._model.ask([questions[places[key][0]] for key in new]):
            self._keep(new[number], answer)
            first, *others = places[new[number]]
            yield first, answer
            yield from ((place, replace(answer, cached=True)) for place in others)

    def _key(self, question: Question) -> bytes:
        return hashlib.sha256(f"{self.name}\n{question!r}".encode()).digest()

    def _find(self, key: bytes) -> Answer | None:
        row = self._answers.execute("SELECT answer FROM answers WHERE question = ?", (key,))
        found = row.fetchone()
        if found is None:
            return None
        text, logs, read, written = json.loads(found[0])
        return Answer(text, tuple(logs), read, written, cached=True)

    def _keep(self, key: bytes, answer: Answer) -> None:
        fields = [answer.text, answer.logs, answer.prompt_tokens, answer.completion_tokens]
        row = (key, json.dumps(fields))
        self._answers.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", row)
