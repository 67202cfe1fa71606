"""Amazon ESCI (Shopping Queries): product search in English, Spanish and Japanese.

| file | columns read |
|---|---|
| `shopping_queries_dataset_examples.parquet` | query, query_id, product_id, product_locale, esci_label, split |
| `shopping_queries_dataset_products.parquet` | product_id, product_locale, product_title, product_description, product_bullet_point |

Exact is grade 3, substitute 2, complement 1, irrelevant 0: their order. (The task's own nDCG has the
gains 1, 0.1, 0.01 and 0.) Title is the product's, summary its bullet points and then its description,
without HTML. A product's id is unique within a locale only.

Source:
    Reddy et al. 2022, arXiv:2206.06588.
"""  # noqa: E501 -- a table

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from service.contract.types import Candidate
from training.readers.collection import Collection, Judged
from training.readers.tables import Row, read_parquet
from training.recipe import RecipeError

GRADES = {"E": 3.0, "S": 2.0, "C": 1.0, "I": 0.0}
EXAMPLES = "shopping_queries_dataset_examples.parquet"
PRODUCTS = "shopping_queries_dataset_products.parquet"
_TAG = re.compile(r"<[^>]*>")


def product(row: Row) -> Candidate:
    """Return a row of the products as a document; missing texts are empty."""
    parts = (row["product_bullet_point"], row["product_description"])
    summary = " ".join(text for part in parts if part and (text := _plain(part)))
    return Candidate(product_key(row), row["product_title"] or "", summary)


def product_key(row: Row) -> str:
    """Return the id that is unique over locales, as `us:B000…`."""
    return f"{row['product_locale']}:{row['product_id']}"


def grade(where: str, row: Row) -> float:
    """Return the grade of an example's label.

    Raises:
        RecipeError: The label is none of E, S, C, I.
    """
    if row["esci_label"] not in GRADES:
        raise RecipeError(f"{where}: esci_label {row['esci_label']!r} is none of E, S, C, I")
    return GRADES[row["esci_label"]]


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())


def _queries(root: Path, subset: str) -> Iterator[tuple[str, str]]:
    columns = ("query_id", "query", "split")
    for _, row in read_parquet(root / EXAMPLES, columns):
        if row["split"] == subset:
            yield str(row["query_id"]), row["query"]


def _judgements(root: Path, subset: str) -> Iterator[Judged]:
    columns = ("query_id", "product_id", "product_locale", "esci_label", "split")
    for where, row in read_parquet(root / EXAMPLES, columns):
        if row["split"] == subset:
            yield Judged(str(row["query_id"]), product_key(row), grade(where, row))


def _documents(root: Path, _: str) -> Iterator[tuple[str, Candidate]]:
    columns = ("product_id", "product_locale", "product_title", "product_description")
    for _, row in read_parquet(root / PRODUCTS, (*columns, "product_bullet_point")):
        yield product_key(row), product(row)


ESCI = Collection(_queries, _judgements, _documents, ("train", "test"))
