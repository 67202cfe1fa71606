"""Published data sets, as recipes name them."""

from __future__ import annotations

import sys
from pathlib import Path

from service.contract.types import RankingExample
from training.readers.collection import FirstStage, read_collection
from training.readers.esci import ESCI
from training.readers.msmarco import MS_MARCO
from training.readers.orcas import ORCAS
from training.readers.tally import Tally
from training.readers.trec import TREC
from training.readers.tripclick import TRIPCLICK
from training.readers.wands import WANDS
from training.recipe import Published, RecipeError

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
    examples = [
        *read_collection(
            COLLECTIONS[source.dataset],
            root,
            source.subset,
            part=source.part,
            limit=source.limit,
            first_stage=stage,
            tally=tally,
        )
    ]
    print(tally, file=sys.stderr)
    if not examples:
        raise RecipeError(f"{root}: no query with a candidate is left")
    return examples
