"""Rows of published tables as dictionaries, each with the place to name when it is wrong."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from training.lines import read_lines
from training.recipe import RecipeError

Row = dict[str, Any]


def read_tsv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a tab-separated file without a header, its columns named by us.

    Raises:
        RecipeError: A row has another number of columns; file and line are named.
    """
    for where, line in read_lines(path):
        values = line.split("\t")
        if len(values) != len(columns):
            raise RecipeError(f"{where}: {len(values)} columns, expected {', '.join(columns)}")
        yield where, dict(zip(columns, values, strict=True))


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a tab-separated file with a header; quoted fields may hold line ends.

    Raises:
        RecipeError: A column is missing, or a row is shorter or longer than the header.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            _check_columns(path, reader.fieldnames or (), columns)
            for row in reader:
                if None in row or None in row.values():
                    raise RecipeError(
                        f"{path}:{reader.line_num}: not as many columns as the header"
                    )
                yield f"{path}:{reader.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(f"{path}: {error}") from None


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a Parquet file, a batch in memory at a time.

    Raises:
        RecipeError: It is no Parquet file, or a column is missing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _check_columns(path, file.schema_arrow.names, columns)
        number = 0
        for batch in file.iter_batches(columns=list(columns)):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise RecipeError(f"{path}: {error}") from None


def _check_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in found]:
        raise RecipeError(f"{path}: no column {', '.join(missing)}; it has {', '.join(found)}")
