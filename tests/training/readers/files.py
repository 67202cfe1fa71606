"""A few rows of each published data set, hand-made in its own files and columns."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_msmarco(root: Path) -> None:
    write_lines(root / "collection.tsv", "0\tBees make honey.", "1\tA kettle boils.", "2\tParis.")
    write_lines(root / "queries.train.tsv", "121352\tdefine kettle", "634306\tcapital of france")
    write_lines(root / "qrels.train.tsv", "121352\t0\t1\t1", "634306\t0\t2\t1")
    write_lines(root / "msmarco-test2019-queries.tsv", "19335\thow do bees make honey")
    write_lines(root / "2019qrels-pass.txt", "19335 Q0 1 0", "19335 Q0 0 3")


def write_orcas(root: Path) -> None:
    write_lines(
        root / "orcas.tsv",
        "1074\tpaw paw\tD2\thttp://b.example/",
        "1074\tpaw paw\tD1\thttp://a.example/",
        "2001\tkettle\tD1\thttp://a.example/",
    )
    write_lines(
        root / "msmarco-docs.tsv",
        "D1\thttp://a.example/\tPawpaw\tA fruit tree.",
        "D2\thttp://b.example/\t.\tAll about paws.",
    )


def write_esci(root: Path) -> None:
    names = ["example_id", "query", "query_id", "product_id", "product_locale", "esci_label"]
    names += ["small_version", "large_version", "split"]
    examples = [
        (0, "kettle", 7, "B1", "us", "I", 1, 1, "train"),
        (1, "kettle", 7, "B2", "us", "E", 1, 1, "train"),
        (2, "kettle", 7, "B3", "us", "S", 0, 1, "train"),
        (3, "kettle", 7, "B4", "us", "C", 0, 1, "train"),
        (4, "hervidor", 8, "B1", "es", "E", 1, 1, "test"),
    ]
    root.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in examples])
    pq.write_table(table, root / "shopping_queries_dataset_examples.parquet")
    names = ["product_id", "product_title", "product_description", "product_bullet_point"]
    names += ["product_brand", "product_color", "product_locale"]
    products = [
        ("B1", "Mug", None, None, "Acme", None, "us"),
        ("B1", "Hervidor", "<p>Hierve&nbsp;agua</p>", None, "Acme", None, "es"),
        ("B2", "Kettle", "<b>Boils</b> water", "1.7 litres\nSteel", "Acme", "red", "us"),
        ("B3", "Pot", None, "Steel", None, None, "us"),
        ("B4", "Tea", "Black &amp; green", None, None, None, "us"),
    ]
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in products])
    pq.write_table(table, root / "shopping_queries_dataset_products.parquet")


def write_wands(root: Path) -> None:
    write_lines(
        root / "query.csv", "query_id\tquery\tquery_class", "0\tsalon chair\tMassage Chairs"
    )
    write_lines(
        root / "label.csv",
        "id\tquery_id\tproduct_id\tlabel",
        "0\t0\t25434\tExact",
        "1\t0\t12088\tIrrelevant",
        "2\t0\t42931\tPartial",
    )
    header = "product_id\tproduct_name\tproduct_class\tcategory hierarchy\tproduct_description"
    write_lines(
        root / "product.csv",
        f"{header}\tproduct_features\trating_count\taverage_rating\treview_count",
        "12088\tsolid oak bed\tBeds\tFurniture\tA bed.\tcolor:oak\t15.0\t4.5\t15.0",
        '25434\tbarber chair\tChairs\tFurniture\t"A 20"" chair,\nheavy."\tcolor:red\t\t\t',
        "42931\toffice chair\tChairs\tFurniture\t\tcolor:red\t1.0\t5.0\t0.0",
    )


def write_tripclick(root: Path) -> None:
    folder = root / "benchmark"
    write_lines(
        folder / "topics" / "topics.head.train.txt",
        "<top>",
        "",
        "<num> Number: 1",
        "<title> asthma pregnancy",
        "",
        "<desc> Description:",
        "",
        "</top>",
    )
    write_lines(folder / "qrels" / "qrels.dctr.head.train.txt", "1 0 29 3", "1 0 41 0")
    write_lines(
        folder / "topics" / "topics.tail.val.txt", "<top><num>9</num><title>cough</title></top>"
    )
    write_lines(folder / "qrels" / "qrels.raw.tail.val.txt", "9 0 41 1")
    write_lines(
        folder / "documents" / "docs_grp_00.txt",
        "<DOC>",
        "<DOCNO>29</DOCNO>",
        "<TITLE>Asthma in pregnancy</TITLE>",
        "<URL>http://a.example/</URL>",
        "<TEXT>",
        "Inhalers are",
        "safe.",
        "</TEXT>",
        "</DOC>",
    )
    write_lines(
        folder / "documents" / "docs_grp_01.txt",
        "<DOC>",
        "<DOCNO> 41 </DOCNO>",
        "<TITLE>Cough</TITLE><TEXT>Honey helps.</TEXT>",
        "</DOC>",
    )


def write_trec(root: Path, topics: dict[str, str], qrels: list[tuple[str, str, float]]) -> None:
    write_lines(root / "topics.txt", *[f"{name}\t{text}" for name, text in topics.items()])
    write_lines(root / "qrels.txt", *[f"{q} 0 {d} {grade:g}" for q, d, grade in qrels])
    with gzip.open(root / "corpus.jsonl.gz", "wt", encoding="utf-8") as stream:
        for name in dict.fromkeys(document for _, document, _ in qrels):
            stream.write(json.dumps({"id": name, "title": "", "text": f"text of {name}"}) + "\n")
