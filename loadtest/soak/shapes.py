"""Requests of every shape, good, bad and abandoned, to shake a service with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator as Rng

Ending = Literal["answer", "leave", "cut"]

LONGEST_WORDS = 400
MAX_TEXT_BYTES = 600_000
"""Of a request's documents; above it there are fewer of them, so that it stays under 1 MB."""

BAD_BODIES = (
    b"",
    b"{",
    b"[" * 10_000,
    b'{"query": 1, "candidates": []}',
    b'{"query": "q", "candidates": [{"text": 1}]}',
    b'{"query": "q", "candidates": [{"text": "t", "nope": 1}]}',
    b" " * 1_000_001,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """One request, and how its client behaves.

    Attributes:
        body: What is sent.
        ending: Whether the client waits for the answer, leaves while it is computed, or stops in
            the middle of its body.
        patience_s: How long a client that leaves waits.
    """

    body: bytes
    ending: Ending = "answer"
    patience_s: float = 0.0


def shapes(*, seed: int, max_candidates: int = 1000) -> Iterator[Shape]:
    """Yield endless requests: counts and lengths evenly spread in their logarithms.

    Every document is new, so that caches fill and turn over. One in ten bodies is bad, one in ten
    clients leaves early, and one in ten requests has a deadline it can hardly meet.
    """
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        number += 1
        kind = rng.integers(10)
        if kind == 0:
            yield Shape(BAD_BODIES[rng.integers(len(BAD_BODIES))])
            continue
        body = _body(rng, number, max_candidates, hurried=kind == 1)
        if kind == 2:
            ending: Ending = "leave" if rng.integers(2) else "cut"
            yield Shape(body, ending, float(rng.uniform(0, 0.1)))
        else:
            yield Shape(body)


def _body(rng: Rng, number: int, max_candidates: int, *, hurried: bool) -> bytes:
    count = _up_to(rng, max_candidates)
    words = _up_to(rng, LONGEST_WORDS)
    count = max(1, min(count, MAX_TEXT_BYTES // (8 * words)))
    candidates = [
        {"id": f"{number}-{n}", "title": f"{number} {n}", "summary": _text(rng, _up_to(rng, words))}
        for n in range(count)
    ]
    fields: dict[str, object] = {"query": _text(rng, _up_to(rng, 40)), "candidates": candidates}
    if hurried:
        fields["deadline_ms"] = float(rng.uniform(1, 200))
    return json.dumps(fields).encode()


def _up_to(rng: Rng, most: int) -> int:
    return int(np.exp(rng.uniform(0, np.log(most + 1))))


def _text(rng: Rng, words: int) -> str:
    letters = rng.integers(ord("a"), ord("z") + 1, size=(words, 6), dtype=np.uint8)
    return " ".join(bytes(word).decode() for word in letters)
