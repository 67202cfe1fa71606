"""Sources that recipes name: published data sets, and JSON Lines of ranking examples."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from service.contract.examples import read_examples
from service.contract.types import RankingExample
from training.readers.collection import FirstStage, read_collection
from training.readers.esci import ESCI
from training.readers.msmarco import MS_MARCO
from training.readers.orcas import ORCAS
from training.readers.split import part_of
from training.readers.tally import Tally
from training.readers.trec import TREC
from training.readers.tripclick import TRIPCLICK
from training.readers.wands import WANDS
from training.recipe import Examples, Published, RecipeError

COLLECTIONS = {
    "trec": TREC,
    "msmarco-passage": MS_MARCO,
    "orcas": ORCAS,
    "esci": ESCI,
    "wands": WANDS,
    "tripclick": TRIPCLICK,
}


def read_published(source: Published, data: Path) -> list[RankingExample]:
    """Return a published data set's examples and say on stderr what was left out.

    Raises:
        RecipeError: A file cannot be read, a row is wrong, or nothing is left.
    """
    root = data / source.path
    tally = Tally(" ".join(filter(None, (source.dataset, source.subset, source.part))))
    stage = None if source.run is None else FirstStage(root / source.run, source.depth)
    rows = read_collection(
        COLLECTIONS[source.dataset],
        root,
        source.subset,
        part=source.part,
        limit=source.limit,
        first_stage=stage,
        tally=tally,
    )
    return _read(rows, tally, root)


def read_jsonl(source: Examples, data: Path) -> list[RankingExample]:
    """Return the examples of a JSON Lines file and say on stderr what was left out.

    Raises:
        RecipeError: A line is no example (file and line are named), or nothing is left.
    """
    path = data / source.path
    tally = Tally(" ".join(filter(None, (source.path, source.part))))
    try:
        examples = read_examples(path)
    except (OSError, ValueError) as error:
        raise RecipeError(str(error)) from None
    taken = (row for row in examples if source.part in (None, part_of(row.query)))
    return _read((tidy for row in taken if (tidy := tally.tidy(row)) is not None), tally, path)


def _read(rows: Iterator[RankingExample], tally: Tally, where: Path) -> list[RankingExample]:
    examples = list(rows)
    print(tally, file=sys.stderr)
    if not examples:
        raise RecipeError(f"{where}: no query with a candidate is left")
    return examples
