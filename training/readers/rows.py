"""Files of ranking examples, as streams that can be gone through again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from service.contract.examples import example_of, iter_examples
from service.contract.types import RankingExample
from training.readers.split import part_of
from training.readers.tally import Tally
from training.recipe import Examples, RecipeError

READ_ROWS = 256
DUPLICATE_ROWS = 2**17
"""Duplicates are found at least this many rows apart, so that memory is bounded (17 MB)."""


class ExamplesFile:
    """The examples of a JSON Lines or Parquet file; each iteration reads it anew.

    What is left out is told on stderr, after the first time.
    """

    def __init__(self, source: Examples, data: Path) -> None:
        self._path = data / source.path
        self._part = source.part
        self._name = " ".join(filter(None, (source.path, source.part)))
        self._told = False

    def __iter__(self) -> Iterator[RankingExample]:
        """Yield the examples, one in memory at a time.

        Raises:
            RecipeError: A row is no example (file and row are named), or nothing is left.
        """
        tally = Tally(self._name, window=DUPLICATE_ROWS)
        some = False
        for row in self._rows():
            if self._part not in (None, part_of(row.query)):
                continue
            tidy = tally.tidy(row)
            if tidy is not None:
                some = True
                yield tidy
        if not self._told:
            print(tally, file=sys.stderr)
            self._told = True
        if not some:
            raise RecipeError(f"{self._path}: no query with a candidate is left")

    def _rows(self) -> Iterator[RankingExample]:
        try:
            yield from (
                iter_parquet(self._path)
                if self._path.suffix == ".parquet"
                else iter_examples(self._path)
            )
        except (OSError, ValueError) as error:
            raise RecipeError(str(error)) from None


def iter_parquet(path: Path) -> Iterator[RankingExample]:
    """Yield the examples of a Parquet file whose columns are the fields of `RankingExample`.

    Raises:
        ValueError: The file is no Parquet, or a row no example; the message names it.
        OSError: The file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(READ_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield example_of(fields, number)
    except (ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise ValueError(f"{path}: row {number}: not a ranking example: {error!r}") from None
