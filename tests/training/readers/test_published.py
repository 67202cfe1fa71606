"""Published data sets, on a few hand-made rows in their own files; none can be downloaded here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.contract.types import Candidate, RankingExample
from tests.training.readers.files import (
    write_esci,
    write_lines,
    write_msmarco,
    write_orcas,
    write_trec,
    write_tripclick,
    write_wands,
)
from training.data import read_source
from training.recipe import Published, RecipeError

EXPECTED: list[tuple[Callable[[Path], None], str, str, list[RankingExample]]] = [
    (
        write_msmarco,
        "msmarco-passage",
        "train",
        [
            RankingExample(
                "121352", "define kettle", (Candidate("1", "", "A kettle boils."),), (1.0,)
            ),
            RankingExample("634306", "capital of france", (Candidate("2", "", "Paris."),), (1.0,)),
        ],
    ),
    (
        write_msmarco,
        "msmarco-passage",
        "dl19",
        [
            RankingExample(
                "19335",
                "how do bees make honey",
                (Candidate("1", "", "A kettle boils."), Candidate("0", "", "Bees make honey.")),
                (0.0, 3.0),
            )
        ],
    ),
    (
        write_orcas,
        "orcas",
        "",
        [
            RankingExample(
                "1074",
                "paw paw",
                (
                    Candidate("D2", "", "All about paws."),
                    Candidate("D1", "Pawpaw", "A fruit tree."),
                ),
                (1.0, 1.0),
            ),
            RankingExample("2001", "kettle", (Candidate("D1", "Pawpaw", "A fruit tree."),), (1.0,)),
        ],
    ),
    (
        write_esci,
        "esci",
        "train",
        [
            RankingExample(
                "7",
                "kettle",
                (
                    Candidate("us:B1", "Mug", ""),
                    Candidate("us:B2", "Kettle", "1.7 litres Steel Boils water"),
                    Candidate("us:B3", "Pot", "Steel"),
                    Candidate("us:B4", "Tea", "Black & green"),
                ),
                (0.0, 3.0, 2.0, 1.0),
            )
        ],
    ),
    (
        write_esci,
        "esci",
        "test",
        [RankingExample("8", "hervidor", (Candidate("es:B1", "Hervidor", "Hierve agua"),), (3.0,))],
    ),
    (
        write_wands,
        "wands",
        "",
        [
            RankingExample(
                "0",
                "salon chair",
                (
                    Candidate("25434", "barber chair", 'A 20" chair,\nheavy.'),
                    Candidate("12088", "solid oak bed", "A bed."),
                    Candidate("42931", "office chair", ""),
                ),
                (2.0, 0.0, 1.0),
            )
        ],
    ),
    (
        write_tripclick,
        "tripclick",
        "head.train",
        [
            RankingExample(
                "1",
                "asthma pregnancy",
                (
                    Candidate("29", "Asthma in pregnancy", "Inhalers are safe."),
                    Candidate("41", "Cough", "Honey helps."),
                ),
                (3.0, 0.0),
            )
        ],
    ),
    (
        write_tripclick,
        "tripclick",
        "tail.val",
        [RankingExample("9", "cough", (Candidate("41", "Cough", "Honey helps."),), (1.0,))],
    ),
]


@pytest.mark.parametrize(
    ("write", "dataset", "subset", "expected"),
    EXPECTED,
    ids=[f"{dataset} {subset}" for _, dataset, subset, _ in EXPECTED],
)
def test_rows_become_query_title_summary_and_grade(
    write: Callable[[Path], None],
    dataset: str,
    subset: str,
    expected: list[RankingExample],
    tmp_path: Path,
) -> None:
    write(tmp_path / "set")
    source = Published.model_validate({"dataset": dataset, "path": "set", "subset": subset})
    assert read_source(source, tmp_path) == expected


def test_a_run_adds_unjudged_documents_as_irrelevant(tmp_path: Path) -> None:
    write_msmarco(tmp_path / "set")
    run = ("2 1 9 t", "1 2 8 t", "0 3 7 t")
    write_lines(tmp_path / "set" / "bm25.run", *[f"121352 Q0 {row}" for row in run])
    source = Published(
        dataset="msmarco-passage", path="set", subset="train", run="bm25.run", depth=2
    )
    first, second = read_source(source, tmp_path)
    assert [candidate.id for candidate in first.candidates] == ["1", "2"]
    assert first.grades == (1.0, 0.0)
    assert second.grades == (1.0,)


def test_a_limit_takes_the_same_queries_whatever_their_order(tmp_path: Path) -> None:
    topics = {f"q{number}": f"query {number}" for number in range(30)}
    qrels = [(name, "d", 1.0) for name in topics]
    write_trec(tmp_path / "a", topics, qrels)
    write_trec(tmp_path / "b", dict(reversed(topics.items())), qrels)
    found = [
        {e.query_id for e in read_source(Published(dataset="trec", path=name, limit=7), tmp_path)}
        for name in ("a", "b")
    ]
    assert len(found[0]) == 7
    assert found[0] == found[1]


def test_an_unknown_subset_is_refused_with_those_there_are(tmp_path: Path) -> None:
    write_msmarco(tmp_path)
    with pytest.raises(RecipeError, match="'eval' is none of train, dev, dl19, dl20"):
        read_source(Published(dataset="msmarco-passage", path=".", subset="eval"), tmp_path)


BAD_ROWS: list[tuple[Callable[[Path], None], str, str, str, str, str]] = [
    (write_msmarco, "msmarco-passage", "train", "collection.tsv", "3 no tab", ":4: 1 columns"),
    (write_msmarco, "msmarco-passage", "train", "qrels.train.tsv", "1 0 2 x", ":3: grade 'x'"),
    (write_orcas, "orcas", "", "orcas.tsv", "1\tq\tD1", ":4: 3 columns"),
    (write_wands, "wands", "", "label.csv", "3\t0\t1\tMaybe", ":5: label 'Maybe'"),
    (write_wands, "wands", "", "label.csv", "3\t0", ":5: not as many columns"),
    (write_wands, "wands", "", "product.csv", "3\ta\tb\tc\td\te\tf\tg\th\ti", ":6: not as many"),
]


@pytest.mark.parametrize(("write", "dataset", "subset", "name", "line", "message"), BAD_ROWS)
def test_a_malformed_row_is_named_by_file_and_line(
    write: Callable[[Path], None],
    dataset: str,
    subset: str,
    name: str,
    line: str,
    message: str,
    tmp_path: Path,
) -> None:
    write(tmp_path)
    with (tmp_path / name).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    source = Published.model_validate({"dataset": dataset, "path": ".", "subset": subset})
    with pytest.raises(RecipeError) as caught:
        read_source(source, tmp_path)
    assert f"{tmp_path / name}{message}" in str(caught.value)


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    write_wands(tmp_path)
    write_lines(tmp_path / "query.csv", "id\tquery", "0\tchair")
    with pytest.raises(RecipeError, match=r"query\.csv: no column query_id; it has id, query"):
        read_source(Published(dataset="wands", path="."), tmp_path)


@pytest.mark.parametrize(
    ("write", "dataset", "subset"),
    [(write, dataset, subset) for write, dataset, subset, _ in EXPECTED],
)
def test_missing_files_are_named(
    write: Callable[[Path], None], dataset: str, subset: str, tmp_path: Path
) -> None:
    source = Published.model_validate({"dataset": dataset, "path": "nothing", "subset": subset})
    with pytest.raises(RecipeError, match="nothing"):
        read_source(source, tmp_path)
