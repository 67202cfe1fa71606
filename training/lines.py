"""Lines of text files, each with the place to name when it is wrong."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

from training.recipe import RecipeError


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (file:line, text) of a plain or gzipped UTF-8 file, blank lines left out.

    Raises:
        RecipeError: The file is missing, is no UTF-8 or is damaged.
    """
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as stream
        ):
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\n")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; is --data right?") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from None


def read_rows(path: Path, columns: int) -> Iterator[tuple[str, list[str]]]:
    """Yield (file:line, first columns) of a tab-separated file.

    Raises:
        RecipeError: A line has fewer columns; the message names file and line.
    """
    for where, line in read_lines(path):
        row = line.split("\t")
        if len(row) < columns:
            raise RecipeError(f"{where}: {len(row)} columns, expected {columns}")
        yield where, row[:columns]


def finite(where: str, name: str, text: str) -> float:
    """Return the number that a column holds.

    Raises:
        RecipeError: It holds none, or NaN or infinity.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecipeError(f"{where}: {name} {text!r} is no finite number")
    return value
