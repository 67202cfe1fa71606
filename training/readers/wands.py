"""WANDS: Wayfair's product search.

| file | columns read; tab-separated, with a header |
|---|---|
| `query.csv` | query_id, query |
| `label.csv` | query_id, product_id, label |
| `product.csv` | product_id, product_name, product_description |

Exact is grade 2, Partial 1, Irrelevant 0. Title is the product's name, summary its description.

Source:
    Chen et al. 2022, ECIR.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.contract.types import Candidate
from training.readers.collection import Collection, Judged
from training.readers.tables import Row, read_csv
from training.recipe import RecipeError

GRADES = {"Exact": 2.0, "Partial": 1.0, "Irrelevant": 0.0}


def product(row: Row) -> Candidate:
    """Return a row of `product.csv` as a document."""
    return Candidate(row["product_id"], row["product_name"], row["product_description"])


def grade(where: str, row: Row) -> float:
    """Return the grade of a row of `label.csv`.

    Raises:
        RecipeError: The label is none of the three.
    """
    if row["label"] not in GRADES:
        raise RecipeError(f"{where}: label {row['label']!r} is none of {', '.join(GRADES)}")
    return GRADES[row["label"]]


def _queries(root: Path, _: str) -> Iterator[tuple[str, str]]:
    for _, row in read_csv(root / "query.csv", ("query_id", "query")):
        yield row["query_id"], row["query"]


def _judgements(root: Path, _: str) -> Iterator[Judged]:
    for where, row in read_csv(root / "label.csv", ("query_id", "product_id", "label")):
        yield Judged(row["query_id"], row["product_id"], grade(where, row))


def _documents(root: Path, _: str) -> Iterator[tuple[str, Candidate]]:
    columns = ("product_id", "product_name", "product_description")
    for _, row in read_csv(root / "product.csv", columns):
        yield row["product_id"], product(row)


WANDS = Collection(_queries, _judgements, _documents)
