"""Clicked documents as a stream: (query, title, summary) of files, a data set or a judged set."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from service.contract.types import Candidate
from training.data import read_judged
from training.recipe import RecipeError
from training.teacher_recipes import ClickDataset, ClickFiles, ClickJudged, ClickSource

READ_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Click:
    """A query with a document that was clicked for it."""

    query: str
    document: Candidate


class Shard(Protocol):
    """A part of a click source that can be read from any row."""

    @property
    def identity(self) -> str:
        """Return what tells it from another one, without reading it."""
        ...

    def rows(self, start: int) -> Iterator[Click]:
        """Yield the rows from number `start` on, counted from 0."""
        ...


def open_clicks(source: ClickSource, data: Path) -> list[Shard]:
    """Return the shards of a source.

    Args:
        source: What the recipe names.
        data: Folder that files and judged sets are relative to.

    Raises:
        RecipeError: There is nothing, or a file is of an unknown kind.
    """
    match source:
        case ClickFiles():
            return _files(source, data)
        case ClickDataset():
            return [DatasetShard(source)]
        case ClickJudged():
            return [JudgedShard(_clicked(source, data))]


@dataclass(frozen=True, slots=True)
class JsonLines:
    """A file of one JSON object a line, gzipped or not; blank lines are no rows."""

    path: Path
    source: ClickFiles

    @property
    def identity(self) -> str:
        """Return its name and size."""
        return f"{self.path.name} {self.path.stat().st_size}"

    def rows(self, start: int) -> Iterator[Click]:
        """Yield the rows from number `start` on.

        Raises:
            RecipeError: A line is malformed; the message names it.
        """
        row = 0
        opened = gzip.open if self.path.suffix == ".gz" else open
        try:
            with opened(self.path, "rb") as stream:
                for number, line in enumerate(stream, start=1):
                    if not line.strip():
                        continue
                    if row >= start:
                        yield self._click(line, number)
                    row += 1
        except (OSError, EOFError, zlib.error) as error:
            raise RecipeError(f"{self.path}: {error}") from None

    def _click(self, line: bytes, number: int) -> Click:
        where = f"{self.path}:{number}"
        try:
            fields = json.loads(line)
        except ValueError as error:
            raise RecipeError(f"{where}: not JSON: {error}") from None
        return _click(fields, self.source, where)


@dataclass(frozen=True, slots=True)
class Parquet:
    """A Parquet file, read a row group at a time."""

    path: Path
    source: ClickFiles

    @property
    def identity(self) -> str:
        """Return its name and size."""
        return f"{self.path.name} {self.path.stat().st_size}"

    def rows(self, start: int) -> Iterator[Click]:
        """Yield the rows from number `start` on; earlier row groups are not read.

        Raises:
            RecipeError: The file or a row of it is malformed.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as file:
                names = [self.source.query, self.source.title, self.source.summary]
                columns = [name for name in names if name in file.schema_arrow.names]
                row = 0
                for group in range(file.num_row_groups):
                    size = file.metadata.row_group(group).num_rows
                    if row + size <= start:
                        row += size
                        continue
                    for batch in file.iter_batches(READ_ROWS, row_groups=[group], columns=columns):
                        for fields in batch.to_pylist():
                            if row >= start:
                                yield _click(fields, self.source, f"{self.path}: row {row}")
                            row += 1
        except (OSError, pa.ArrowException) as error:
            raise RecipeError(f"{self.path}: {error}") from None


@dataclass(frozen=True, slots=True)
class DatasetShard:
    """A Hugging Face data set, streamed."""

    source: ClickDataset

    @property
    def identity(self) -> str:
        """Return its name, configuration and split."""
        return f"{self.source.name} {self.source.config} {self.source.split}"

    def rows(self, start: int) -> Iterator[Click]:
        """Yield the rows from number `start` on.

        Raises:
            RecipeError: The data set cannot be opened, or a row is malformed.
        """
        source = self.source
        try:
            from datasets import load_dataset
        except ImportError:
            raise RecipeError(
                "datasets is not installed; it comes with the [training] extra"
            ) from None
        try:
            stream = load_dataset(source.name, source.config, split=source.split, streaming=True)
        except (OSError, ValueError) as error:
            raise RecipeError(f"data set {source.name!r} cannot be opened: {error}") from None
        for row, fields in enumerate(stream.skip(start), start=start):
            yield _click(fields, source, f"{source.name}: row {row}")


@dataclass(frozen=True, slots=True)
class JudgedShard:
    """The rows of a judged set, in memory."""

    clicks: tuple[Click, ...]

    @property
    def identity(self) -> str:
        """Return its rows."""
        return repr(self.clicks)

    def rows(self, start: int) -> Iterator[Click]:
        """Yield the rows from number `start` on."""
        yield from self.clicks[start:]


def _files(source: ClickFiles, data: Path) -> list[Shard]:
    shards: list[Shard] = []
    for pattern in source.paths:
        paths = sorted(path for path in data.glob(pattern) if path.is_file())
        if not paths:
            raise RecipeError(f"{data / pattern}: no such file; is --data right?")
        for path in paths:
            if path.name.endswith((".jsonl", ".jsonl.gz")):
                shards.append(JsonLines(path, source))
            elif path.suffix == ".parquet":
                shards.append(Parquet(path, source))
            else:
                raise RecipeError(f"{path} is neither .jsonl, .jsonl.gz nor .parquet")
    return shards


def _clicked(source: ClickJudged, data: Path) -> tuple[Click, ...]:
    clicks = tuple(
        Click(example.query, candidate)
        for example in read_judged(source.source, data)
        for candidate, grade in zip(example.candidates, example.grades or (), strict=True)
        if grade >= source.clicked_from
    )
    if not clicks:
        raise RecipeError(f"{source.source.path}: no document of grade {source.clicked_from:g}")
    return clicks


def _click(fields: Any, source: ClickFiles | ClickDataset, where: str) -> Click:
    """Return a row; a title or summary that is absent or null is empty."""
    if not isinstance(fields, Mapping):
        raise RecipeError(f"{where}: not an object")
    if source.query not in fields:
        raise RecipeError(f"{where}: no field {source.query!r}")
    texts = [fields.get(name) or "" for name in (source.query, source.title, source.summary)]
    for name, text in zip((source.query, source.title, source.summary), texts, strict=True):
        if not isinstance(text, str):
            raise RecipeError(f"{where}: {name} is {text!r:.40}, not a string")
        if not text.isascii() and text.encode("utf-8", "replace") != text.encode("utf-8", "ignore"):
            raise RecipeError(f"{where}: {name} holds half a character (a lone surrogate)")
    return Click(texts[0], Candidate(None, texts[1], texts[2]))
