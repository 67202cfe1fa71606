"""Records of compared requests, as JSON Lines; the service writes them, whoever likes reads."""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

log = logging.getLogger(__name__)

SUFFIX = ".jsonl"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EventModel(_Part):
    """A model that scored."""

    name: str
    version: str
    variant: str


class EventDocument(_Part):
    """A candidate's text."""

    title: str
    summary: str


class ComparisonEvent(_Part):
    """One request, scored by two models."""

    event: Literal["comparison"] = "comparison"
    schema_version: Literal[1] = 1
    time: datetime = Field(description="When the request was answered, UTC.")
    request_id: str
    model: EventModel = Field(description="What answered.")
    against: EventModel = Field(description="What it is compared with.")
    ids: tuple[str | None, ...] = Field(description="The candidates' ids, in the request's order.")
    scores: tuple[float, ...] = Field(description="Raw scores that were answered with.")
    against_scores: tuple[float, ...] = Field(description="The other model's raw scores.")
    comparison: dict[str, int | float | None] = Field(
        description="Fields of the service's `Comparison`; null for what could not be told."
    )
    query: str | None = Field(default=None, description="Only where texts are recorded.")
    documents: tuple[EventDocument, ...] | None = Field(
        default=None, description="Only where texts are recorded, in the request's order."
    )


def read_events(folder: Path) -> Iterator[ComparisonEvent]:
    """Yield a folder's events, file by file, oldest file first.

    A line that a kill or a full disk cut short is left out, with a warning; so is a compressed
    file's rest where it is damaged.

    Raises:
        OSError: The folder or a file cannot be read.
    """
    for path in event_files(folder):
        for number, line in enumerate(_lines(path), start=1):
            try:
                yield ComparisonEvent.model_validate_json(line)
            except ValidationError:
                log.warning("%s:%d is no event; left out", path, number)


def event_files(folder: Path) -> list[Path]:
    """Return a folder's files of events by name, which begins with their time.

    A file whose compressed twin is whole, as a kill between the two may leave it, is left out.
    """
    found = {path.name: path for path in sorted(folder.glob(f"*{SUFFIX}*"))}
    return [
        path
        for name, path in found.items()
        if name.endswith(f"{SUFFIX}.gz") or (name.endswith(SUFFIX) and f"{name}.gz" not in found)
    ]


def _lines(path: Path) -> Iterator[bytes]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as stream:
        try:
            yield from stream
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            log.warning("%s is damaged: %s", path, error)
