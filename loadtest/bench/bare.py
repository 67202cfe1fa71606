"""A bare scoring loop in a process of its own: the floor that a service is held against."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.bench.subject import BenchError
from service.contract.encoding import TokenPair

Feeds = dict[str, NDArray[np.int64]]

WARM_UP_CALLS = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """How the loop uses the cores.

    Attributes:
        calls: Calls side by side.
        threads: Threads inside a call.
        batch: Pairs a call, of similar length, padded to the longest.
    """

    calls: int
    threads: int
    batch: int

    def __str__(self) -> str:
        pairs = "1 pair" if self.batch == 1 else f"{self.batch} pairs"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.calls} × {pairs} a call, {threads} each"


@dataclass(frozen=True, slots=True)
class Run:
    """What the loop did.

    Attributes:
        tokens: Real tokens.
        padded: Tokens run, padding included.
        seconds: For how long.
    """

    tokens: int
    padded: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Real tokens a second."""
        return self.tokens / self.seconds

    @property
    def padding(self) -> float:
        """Padding as a share of the real tokens."""
        return self.padded / self.tokens - 1


class BareLoop:
    """The loop's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, setting: Setting, seconds: float) -> Run:
        """Score pairs for so long."""
        return Run(**self._ask({**asdict(setting), "seconds": seconds}))

    def scores(self) -> list[float]:
        """Return the score of each pair, alone in its call."""
        found: list[float] = self._ask({"scores": True})
        return found

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the bare loop ended; see its message above")
        return json.loads(line)


@contextlib.contextmanager
def bare_loop(model: Path, pairs: Sequence[TokenPair]) -> Iterator[BareLoop]:
    """Start the loop on a model and pairs; end it with the block.

    Args:
        model: An ONNX file for ONNX Runtime, or the int8 weights for the native engine.
        pairs: What to score, again and again.
    """
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(
            file,
            ids=np.concatenate([pair.input_ids for pair in pairs]),
            sizes=np.array([len(pair) for pair in pairs]),
            firsts=np.array([pair.first_segment for pair in pairs]),
        )
        file.flush()
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "loadtest.bench.bare", str(model), file.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield BareLoop(process)
        finally:
            process.kill()
            process.communicate()


def batches(pairs: Sequence[TokenPair], size: int) -> list[list[TokenPair]]:
    """Return calls of pairs of similar length, in a fixed random order."""
    ranked = sorted(pairs, key=len)
    calls = [ranked[start : start + size] for start in range(0, len(ranked), size)]
    order = np.random.default_rng(0).permutation(len(calls))
    return [calls[place] for place in order.tolist()]


def padded(pairs: Sequence[TokenPair]) -> Feeds:
    """Return an ONNX model's inputs for pairs, padded to the longest, each int64 [B, L]."""
    shape = (len(pairs), max(map(len, pairs)))
    feeds = {
        name: np.zeros(shape, dtype=np.int64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    for row, pair in enumerate(pairs):
        feeds["input_ids"][row, : len(pair)] = pair.input_ids
        feeds["attention_mask"][row, : len(pair)] = 1
        feeds["token_type_ids"][row, : len(pair)] = pair.token_type_ids
    return feeds


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a model, all its inputs ready.

    Attributes:
        tokens: Real tokens.
        padded: Tokens that it runs on.
        score: Runs it and returns the scores.
    """

    tokens: int
    padded: int
    score: Callable[[], Any]


def _calls(model: Path, pairs: Sequence[TokenPair], setting: Setting) -> list[_Call]:
    groups = batches(pairs, setting.batch)
    if model.suffix != ".onnx":
        from service.scorers.native import NativeScorer

        scorer = NativeScorer(model)
        real = [sum(map(len, group)) for group in groups]
        return [_Call(n, n, partial(scorer.score, g)) for n, g in zip(real, groups, strict=True)]
    session = _session(model, setting.threads)
    feeds = [padded(group) for group in groups]
    return [
        _Call(int(f["attention_mask"].sum()), f["input_ids"].size, partial(session.run, None, f))
        for f in feeds
    ]


def _session(model: Path, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(calls: Sequence[_Call], workers: int, seconds: float) -> Run:
    for call in calls[:WARM_UP_CALLS]:
        call.score()
    numbers = iter(range(sys.maxsize))
    done: list[_Call] = []  # appended to from several threads, which is atomic
    began = time.perf_counter()

    def work() -> None:
        for number in numbers:
            if time.perf_counter() - began > seconds:
                return
            call = calls[number % len(calls)]
            call.score()
            done.append(call)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - began
    return Run(sum(call.tokens for call in done), sum(call.padded for call in done), wall)


def main() -> None:
    """Answer one question a line: a setting to run, or all scores."""
    model, source = map(Path, sys.argv[1:])
    stored = np.load(source, allow_pickle=False)
    ids = np.split(stored["ids"], np.cumsum(stored["sizes"])[:-1])
    pairs = [TokenPair(*pair) for pair in zip(ids, stored["firsts"].tolist(), strict=True)]
    made: dict[Setting, list[_Call]] = {}
    for line in sys.stdin:
        question = json.loads(line)
        if "scores" in question:
            session = _session(model, 1)
            answer: Any = [float(session.run(None, padded([p]))[0][0, 0]) for p in pairs]
        else:
            seconds = question.pop("seconds")
            setting = Setting(**question)
            if setting not in made:
                made[setting] = _calls(model, pairs, setting)
            answer = asdict(_run(made[setting], setting.calls, seconds))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
