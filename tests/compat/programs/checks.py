"""What every client is put through, in the client's own environment.

A program names a client's way to rank and what it raises. Run with a variant's name and a `Task` on
stdin, it prints one JSON line a check, for the driver in the project's environment to read; it may
import nothing but the standard library and its client.
"""

from __future__ import annotations

import json
import math
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

TOP_N = 3
TOLERANCE = 1e-6
WRONG_KEY = "not-a-key"
BLANK = " "


@dataclass(frozen=True, slots=True)
class Task:
    """What the driver has set up.

    Attributes:
        url: Of a service that wants a key.
        busy_url: Of one that answers 429 for as long as it is asked.
        key: Opens the service.
        rated_key: Opens it for a request every few seconds.
        query: To rank for.
        documents: To rank.
        truth: What `/rank` says: `index`, `score` and `relevance` of each, best first.
        reasons: By status, words that the service gives for it.
    """

    url: str
    busy_url: str
    key: str
    rated_key: str
    query: str
    documents: list[str]
    truth: list[dict[str, float]]
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of a client."""

    url: str
    key: str
    query: str
    documents: list[str]
    top_n: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One document of a client's answer; its text where the answer brought one."""

    index: int
    score: float
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A client as it is used.

    Attributes:
        rank: Makes a client and ranks with it.
        raises: By status, the exception that its user gets.
        tries: How often it asks while it gets 429.
        logits: Whether its scores are logits, not relevance.
        cannot: By check, why it is not for this client.
    """

    rank: Callable[[Ask], list[Hit]]
    raises: Mapping[int, type[Exception]]
    tries: int = 1
    logits: bool = False
    cannot: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """How a check went.

    Attributes:
        check: Its name.
        state: "ok", "failed" or "unsupported".
        note: What was seen, or why not.
        tries: How often the service should have been asked, where that is checked.
    """

    check: str
    state: str
    note: str = ""
    tries: int | None = None


class WrongError(Exception):
    """A check that failed; the message says how."""


def main(programs: Mapping[str, Program]) -> None:
    """Run a variant's checks."""
    program, task = programs[sys.argv[1]], Task(**json.load(sys.stdin))
    for finding in findings(program, task):
        print(json.dumps(asdict(finding)), flush=True)


def findings(program: Program, task: Task) -> Iterator[Finding]:
    """Yield what each check found."""
    for name, check in CHECKS.items():
        if name in program.cannot:
            yield Finding(name, "unsupported", program.cannot[name])
            continue
        tries = program.tries if name == "429" else None
        try:
            yield Finding(name, "ok", check(program, task), tries)
        except WrongError as error:
            yield Finding(name, "failed", str(error), tries)
        except Exception as error:
            yield Finding(name, "failed", f"{type(error).__name__}: {error}"[:300], tries)


def ranks(program: Program, task: Task) -> str:
    """Rank all documents: `/rank`'s order and scores."""
    hits = program.rank(Ask(task.url, task.key, task.query, task.documents))
    same(hits, program, task.truth)
    return ""


def top_n(program: Program, task: Task) -> str:
    """Ask for the best few."""
    hits = program.rank(Ask(task.url, task.key, task.query, task.documents, TOP_N))
    same(hits, program, task.truth[:TOP_N])
    return ""


def documents(program: Program, task: Task) -> str:
    """Read the documents from the answer."""
    for hit in program.rank(Ask(task.url, task.key, task.query, task.documents)):
        if hit.text != task.documents[hit.index]:
            raise WrongError(f"document {hit.index} came back as {hit.text!r:.80}")
    return ""


def wrong_key(program: Program, task: Task) -> str:
    """Ask with a key that is none."""
    return refused(program, task, 401, Ask(task.url, WRONG_KEY, task.query, task.documents))


def bad_input(program: Program, task: Task) -> str:
    """Ask a blank query."""
    return refused(program, task, 422, Ask(task.url, task.key, BLANK, task.documents))


def busy(program: Program, task: Task) -> str:
    """Ask a service that stays overloaded."""
    return refused(program, task, 429, Ask(task.busy_url, task.key, task.query, task.documents))


def retry(program: Program, task: Task) -> str:
    """Ask with a key that has to wait; a client that tries again gets its answer."""
    exhaust(task)
    try:
        hits = program.rank(Ask(task.url, task.rated_key, task.query, task.documents))
    except Exception as error:
        if program.tries > 1 or type(error) is not program.raises[429]:
            raise
        return "gives up at once"
    same(hits, program, task.truth)
    return "answered"


CHECKS: Mapping[str, Callable[[Program, Task], str]] = {
    "ranks": ranks,
    "top_n": top_n,
    "documents": documents,
    "401": wrong_key,
    "422": bad_input,
    "429": busy,
    "retry": retry,
}


def same(hits: Sequence[Hit], program: Program, truth: Sequence[Mapping[str, float]]) -> None:
    """Pass where a client's order and scores are the service's own.

    Raises:
        WrongError: They are not.
    """
    order, wanted = [hit.index for hit in hits], [place["index"] for place in truth]
    if order != wanted:
        raise WrongError(f"order {order}, not {wanted}")
    name = "score" if program.logits else "relevance"
    for hit, place in zip(hits, truth, strict=True):
        if not math.isclose(hit.score, place[name], rel_tol=TOLERANCE):
            raise WrongError(f"document {hit.index} has {hit.score}, not {place[name]}")


def refused(program: Program, task: Task, status: int, ask: Ask) -> str:
    """Return what a client raises, and how much of the reason it passes on.

    Raises:
        WrongError: It raises something else, or nothing.
    """
    expected = program.raises[status]
    try:
        hits = program.rank(ask)
    except Exception as error:
        name = type(error).__name__
        if type(error) is not expected:
            raise WrongError(f"{name}, not {expected.__name__}: {error}"[:300]) from error
        if task.reasons[str(status)] in str(error):
            return f"`{name}`"
        return f"`{name}`, {'only the status' if str(status) in str(error) else 'no reason'}"
    raise WrongError(f"answered with {len(hits)} documents")


def exhaust(task: Task) -> None:
    """Have one request answered for the rated key, so that the next has to wait."""
    body = {"query": task.query, "candidates": [{"text": text} for text in task.documents]}
    request = urllib.request.Request(  # noqa: S310
        f"{task.url}/rank",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {task.rated_key}"},
    )
    while True:
        try:
            urllib.request.urlopen(request).close()  # noqa: S310
        except urllib.error.HTTPError as error:
            time.sleep(int(error.headers["retry-after-ms"]) / 1000)
        else:
            return
