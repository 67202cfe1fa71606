"""A language model behind OpenAI's HTTP API."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from service.scorers.json_client import JsonClient, RemoteError
from training.prompting.question import Answer, AnswerError, Continue, Question, Write
from training.prompting.recipe import Endpoint

TOP = {"chat": 20, "completions": 5}
"""The most alternatives to a token that OpenAI's two APIs tell."""


class EndpointModel:
    """Asks a server, several questions at a time; a busy one is asked again (`JsonClient`)."""

    def __init__(self, recipe: Endpoint) -> None:
        """Take a server.

        Raises:
            RecipeError: The variable that should hold its key is not set.
        """
        self.name = recipe.identity()
        self._recipe = recipe
        self._client = JsonClient(
            recipe.url,
            key=recipe.key(),
            requests_per_s=recipe.requests_per_s,
            timeout_s=recipe.timeout_s,
        )

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield each answer, behind its question's place, as soon as it is there.

        Raises:
            AnswerError: The server refuses, fails for long, or answers with something else.
        """
        threads = ThreadPoolExecutor(self._recipe.connections)
        left = {threads.submit(self._answer, one): place for place, one in enumerate(questions)}
        failure = None
        try:
            for found in as_completed(left):
                if failure := found.exception():
                    break
                yield left.pop(found), found.result()
        finally:
            threads.shutdown(cancel_futures=True)
        if failure:  # what was asked meanwhile has its price, too
            done = (found for found in left if not found.cancelled() and not found.exception())
            yield from ((left[found], found.result()) for found in done)
            raise failure

    def _answer(self, question: Question) -> Answer:
        api = "completions" if isinstance(question, Continue) else self._recipe.api
        path = "/chat/completions" if api == "chat" else "/completions"
        try:
            answer = self._client.post(path, self._body(question, api))
        except RemoteError as error:
            raise AnswerError(f"language model {error}") from None
        try:
            return _read(question, api, answer)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise AnswerError(
                f"{self._client.url}{path}: no answer to a {type(question).__name__} question: "
                f"{type(error).__name__} {error}: {answer!r:.300}"
            ) from None

    def _body(self, question: Question, api: str) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._recipe.model, "temperature": 0}
        if isinstance(question, Continue):
            whole = question.prompt + question.text
            # One token is written, for servers that refuse to write none.
            return body | {"prompt": whole, "echo": True, "logprobs": 1, "max_tokens": 1}
        prompt: dict[str, Any] = {"prompt": question.prompt}
        if api == "chat":
            prompt = {"messages": [{"role": "user", "content": question.prompt}]}
        if isinstance(question, Write):
            return body | prompt | {"max_tokens": question.max_tokens}
        top = {"logprobs": TOP["completions"]}
        if api == "chat":
            top = {"logprobs": True, "top_logprobs": TOP["chat"]}
        return body | prompt | top | {"max_tokens": 1}


def _read(question: Question, api: str, answer: Mapping[str, Any]) -> Answer:
    """Return what a server's answer says.

    Raises:
        KeyError: A part is missing; also AttributeError, IndexError, TypeError and ValueError.
    """
    usage = answer.get("usage") or {}
    tokens = int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0))
    choice = answer["choices"][0]
    if isinstance(question, Continue):
        mean = _echoed(choice["logprobs"], question.text, int(usage["prompt_tokens"]))
        return Answer("", (mean,), *tokens)
    if isinstance(question, Write):
        text = choice["message"]["content"] if api == "chat" else choice["text"]
        if not isinstance(text, str | None):
            raise TypeError("its text is none")
        return Answer(text or "", (), *tokens)
    return Answer("", _chosen(_top(choice["logprobs"], api), question.choices), *tokens)


def _finite(log: float) -> float:
    if not math.isfinite(log):
        raise ValueError(f"log p of {log}")
    return log


def _top(logprobs: Mapping[str, Any], api: str) -> dict[str, float]:
    """Return log p of the likeliest first tokens; of those that read alike, the likelier's."""
    if api == "chat":
        first = logprobs["content"][0]["top_logprobs"]
        found = [(one["token"], _finite(float(one["logprob"]))) for one in first]
    else:
        found = [(token, _finite(float(log))) for token, log in logprobs["top_logprobs"][0].items()]
    likely: dict[str, float] = {}
    for token, log in sorted(found, key=lambda one: one[1]):
        likely[_word(token)] = log
    return likely


def _chosen(likely: Mapping[str, float], choices: Sequence[str]) -> tuple[float, ...]:
    """Return each choice's log p; of one that is not among the likeliest, the least of these.

    That is the most it can be: less of the difference than there is, of the right sign.
    """
    least = min(likely.values())
    return tuple(likely.get(_word(choice), least) for choice in choices)


def _word(token: str) -> str:
    return token.strip(" \n▁Ġ").lower()


def _echoed(logprobs: Mapping[str, Any], text: str, read: int) -> float:
    """Return the mean log p of the tokens that make the end of the prompt up.

    Letters are counted from the end, since some servers tell a `<s>` in front as letters, too. A
    token that begins before the text and ends in it counts.
    """
    logs, tokens = logprobs["token_logprobs"][:read], logprobs["tokens"]
    offsets = [*logprobs["text_offset"], logprobs["text_offset"][-1] + len(tokens[-1])]
    ends = offsets[1 : read + 1]
    start = ends[-1] - len(text)
    mine = [_finite(float(log)) for log, end in zip(logs, ends, strict=True) if end > start]
    return sum(mine) / len(mine)
