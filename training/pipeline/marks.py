"""Marks of a pipeline's steps: what each was made of, and whether it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from training.hashing import sha256_of
from training.pipeline.plan import Step

WHOLE_BYTES = 64 * 2**20
"""Larger files of data are known by their size alone."""

LONGEST_NAME = 255
"""Longer strings of a recipe name no file; the system would not even look."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is written of a step when it starts and when it ends.

    Attributes:
        inputs: Digests of its recipe, of its data and of the marks of the steps it reads, by name.
        command: The command that runs it alone.
        started_at: Of the first attempt, ISO 8601 in UTC.
        seconds: Of all attempts.
        finished_at: None while it is not finished.
    """

    inputs: dict[str, str]
    command: list[str]
    started_at: str
    seconds: float = 0.0
    finished_at: str | None = None

    @property
    def identity(self) -> str:
        """What later steps know this one's outcome by; another one each time it is made anew."""
        return _digest([self.inputs, self.finished_at])


def read_mark(path: Path) -> Mark | None:
    """Return a mark, None where there is none."""
    try:
        return Mark(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def write_mark(path: Path, mark: Mark) -> None:
    """Write a mark in one replacement."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(asdict(mark), indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)


def inputs_of(step: Step, marks: Mapping[str, Mark], data: Path) -> dict[str, str]:
    """Return the digests of all that decides a step's outcome.

    Args:
        step: The step.
        marks: Those of the steps it reads, all finished.
        data: Folder of the data.
    """
    files = sorted({file for text in _strings(step.wanted) for file in _files(text, data)})
    return {
        "recipe": _digest([step.stage.stage, step.wanted]),
        "data": _digest([_identity(file, data) for file in files]),
        **{f"{{{name}}}": marks[name].identity for name in step.reads},
    }


def changes(mark: Mark, inputs: Mapping[str, str]) -> str:
    """Return which of a step's inputs are no longer those of its mark."""
    names = {"recipe": "its recipe", "data": "its data"}
    every = dict.fromkeys([*mark.inputs, *inputs])
    differ = [name for name in every if mark.inputs.get(name) != inputs.get(name)]
    return " and ".join(names.get(name, name.strip("{}")) for name in differ)


def _strings(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for part in value.values():
                yield from _strings(part)
        case list():
            for part in value:
                yield from _strings(part)
        case str():
            yield value


def _files(text: str, data: Path) -> tuple[Path, ...]:
    """Return the files under data that a field may mean: a set's folder, a file or a pattern."""
    if not text or len(text) > LONGEST_NAME or Path(text).is_absolute():
        return ()
    found = data.glob(text) if "*" in text else [data / text]
    return tuple(
        file
        for path in found
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file()
    )


def _identity(file: Path, data: Path) -> tuple[str, int, str]:
    stat = file.stat()
    digest = _content(file, stat.st_mtime_ns) if stat.st_size <= WHOLE_BYTES else ""
    return file.relative_to(data).as_posix(), stat.st_size, digest


@cache
def _content(file: Path, changed_ns: int) -> str:  # noqa: ARG001 - a changed file is read again
    return sha256_of(file)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
