"""A small HTTP server that speaks OpenAI's protocol, with answers by a function of the test."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.json_server import Reply, json_server


@dataclass
class Server:
    """What was asked, and how many asked at a time."""

    answer: Callable[[str, dict[str, Any]], Reply]
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def run(self) -> Iterator[str]:
        """Serve, and yield the URL up to and with /v1."""

        def answer(path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
            with self.lock:
                self.asked.append((path, headers, body))
                self.busy += 1
                self.busiest = max(self.busiest, self.busy)
            try:
                return self.answer(path, body)
            finally:
                with self.lock:
                    self.busy -= 1

        with json_server(answer) as url:
            yield f"{url}/v1"


def said(text: str | None, *, read: int = 7, written: int = 3) -> Reply:
    """Return a chat model's text."""
    return 200, {}, _answer({"message": {"role": "assistant", "content": text}}, read, written)


def likely(**logs: float) -> Reply:
    """Return a chat model's likeliest first tokens."""
    top = [{"token": token, "logprob": log} for token, log in logs.items()]
    choice = {"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": top}]}}
    return 200, {}, _answer(choice, 7, 1)


def echoed(tokens: list[str], logs: list[float | None], read: int) -> Reply:
    """Return a prompt's tokens with their log p, and what was written after it."""
    offsets = [sum(map(len, tokens[:place])) for place in range(len(tokens))]
    logprobs = {"tokens": tokens, "token_logprobs": logs, "text_offset": offsets}
    return 200, {}, _answer({"text": "".join(tokens), "logprobs": logprobs}, read, 1)


def oracle(path: str, body: dict[str, Any]) -> Reply:
    """Answer as a model that finds a document good where it has the query's first word."""
    if path == "/v1/completions":
        prompt: str = body["prompt"]
        word = prompt.rpartition("search engine:")[2].split()[0]
        good = word in prompt.rpartition("\n")[0].split()
        return echoed(["<s>", prompt, "!"], [None, -1.0 if good else -2.0, -9.0], 2)
    prompt = body["messages"][0]["content"]
    query = re.search(r"query: (.+)", prompt, flags=re.IGNORECASE)
    assert query is not None
    word = query[1].split()[0]
    if "Say Yes or No" in prompt:
        good = word in prompt.partition("\n")[0].split()
        return likely(Yes=-0.1, No=-3.0) if good else likely(Yes=-3.0, No=-0.1)
    if "Say A or B" in prompt:
        first, second = (
            word in prompt.partition(f"Document {name}: ")[2].partition("\n")[0].split()
            for name in "AB"
        )
        return likely(A=-0.5 - second, B=-0.5 - first)
    rows = re.findall(r"^\[(\d+)\] (.*)$", prompt, flags=re.MULTILINE)
    good_ones = [f"[{number}]" for number, text in rows if word in text.split()]
    return said(" > ".join(good_ones))


def _answer(choice: dict[str, Any], read: int, written: int) -> dict[str, Any]:
    usage = {"prompt_tokens": read, "completion_tokens": written}
    return {"choices": [{"index": 0, **choice}], "usage": usage}
