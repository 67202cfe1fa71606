"""Shards of labels: Parquet files of examples with a teacher's scores, and what each holds."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import islice
from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.contract.types import Float32s, RankingExample
from training.recipe import RecipeError

FACTS = b"disranker"
"""Key of a shard's own account of itself in the file's metadata."""

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        (
            "candidates",
            pa.list_(
                pa.struct([("id", pa.string()), ("title", pa.string()), ("summary", pa.string())])
            ),
        ),
        ("grades", pa.list_(pa.float32())),
        ("teacher_scores", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one shard is made from.

    Attributes:
        number: Place of the shard, from 0.
        digest: sha256 of the examples.
        examples: At least one.
    """

    number: int
    digest: str
    examples: tuple[RankingExample, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a shard says of itself.

    Attributes:
        inputs: Digest of what it was made from.
        queries: Its examples.
        pairs: Its scores.
        mean: Mean of the scores.
        squares: Sum of their squared differences from the mean.
    """

    inputs: str
    queries: int
    pairs: int
    mean: float
    squares: float

    @property
    def std(self) -> float:
        """Return the scores' standard deviation, of the population."""
        return sqrt(self.squares / max(self.pairs, 1))


def cut(examples: Iterable[RankingExample], size: int) -> Iterator[Inputs]:
    """Yield the inputs of shard after shard, each of `size` examples, the last of what is left."""
    rows = iter(examples)
    number = 0
    while chunk := tuple(islice(rows, size)):
        digest = hashlib.sha256()
        for example in chunk:
            digest.update(repr(example).encode())
        yield Inputs(number, digest.hexdigest(), chunk)
        number += 1


def encode_shard(inputs: Inputs, scores: Sequence[Float32s]) -> bytes:
    """Return a shard's Parquet file, the same bytes for the same inputs and scores.

    Raises:
        RecipeError: A score is not finite.
    """
    for example, values in zip(inputs.examples, scores, strict=True):
        if not np.isfinite(values).all():
            raise RecipeError(f"query {example.query_id!r}: the teacher's scores are not finite")
    rows = [
        {
            "query_id": example.query_id,
            "query": example.query,
            "candidates": [asdict(candidate) for candidate in example.candidates],
            "grades": example.grades,
            "teacher_scores": values.tolist(),
        }
        for example, values in zip(inputs.examples, scores, strict=True)
    ]
    facts = json.dumps(asdict(_facts(inputs, scores)))
    stream = pa.BufferOutputStream()
    schema = SCHEMA.with_metadata({FACTS: facts.encode()})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), stream)
    return bytes(stream.getvalue())


def facts_of(path: Path) -> Facts:
    """Return what a shard says of itself.

    Raises:
        RecipeError: It is no shard, or says nothing.
    """
    try:
        found: Facts = Facts(**json.loads(pq.read_schema(path).metadata[FACTS]))
        return found
    except (OSError, pa.ArrowException, TypeError, KeyError, ValueError) as error:
        raise RecipeError(f"{path}: no shard of labels: {error}; remove it") from None


def together(shards: Iterable[Facts]) -> Facts:
    """Return the facts of several shards as of one; its digest is empty.

    Source:
        Chan, Golub and LeVeque 1979: means and sums of squares of two parts, added.
    """
    return reduce(_add, shards, Facts("", 0, 0, 0.0, 0.0))


def shard_path(folder: Path, number: int) -> Path:
    """Return where a folder's shard of this number is."""
    return folder / f"part-{number:05}.parquet"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, let it reach the disk and rename it: what is there is whole."""
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


def write_json(path: Path, fields: dict[str, object]) -> None:
    """Write a JSON object, whole or not at all."""
    write_whole(path, (json.dumps(fields, indent=2) + "\n").encode())


def _facts(inputs: Inputs, scores: Sequence[Float32s]) -> Facts:
    values = np.concatenate(scores).astype(np.float64)
    mean = float(values.mean()) if len(values) else 0.0
    squares = float(np.square(values - mean).sum())
    return Facts(inputs.digest, len(inputs.examples), len(values), mean, squares)


def _add(a: Facts, b: Facts) -> Facts:
    pairs = a.pairs + b.pairs
    gap = b.mean - a.mean
    share = b.pairs / max(pairs, 1)
    squares = a.squares + b.squares + gap * gap * a.pairs * share
    return Facts("", a.queries + b.queries, pairs, a.mean + gap * share, squares)
