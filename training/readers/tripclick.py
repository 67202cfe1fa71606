"""TripClick: clicks in a health search engine, its benchmark of head, torso and tail queries.

| file, under `benchmark/` | form |
|---|---|
| `topics/topics.head.train.txt` | `<top>` blocks with num and title |
| `qrels/qrels.dctr.head.train.txt`, `qrels/qrels.raw.torso.train.txt` | TREC qrels |
| `documents/docs_grp_*.txt` | `<DOC>` blocks with DOCNO, TITLE and TEXT |

Head queries have the DCTR grades 0 to 3 (how often a shown document was clicked), torso and tail
ones 1 for a click and 0 for what was passed over. Test topics have no public judgements. Title and
summary are the article's title and abstract.

Source:
    Rekabsaz et al. 2021, SIGIR, arXiv:2103.07901.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from service.contract.types import Candidate
from training.lines import read_lines
from training.readers.collection import Collection, Judged
from training.readers.trec import read_judgements
from training.recipe import RecipeError
from training.trec import read_topics

SUBSETS = tuple(
    f"{frequency}.{split}" for frequency in ("head", "torso", "tail") for split in ("train", "val")
)
_FIELD = re.compile(r"<(DOCNO|TITLE|TEXT)>(.*?)</\1>", re.DOTALL)


def article(where: str, block: str) -> Candidate:
    """Return a `<DOC>` block as a document.

    Raises:
        RecipeError: It has no DOCNO.
    """
    fields = {name: " ".join(text.split()) for name, text in _FIELD.findall(block)}
    if not fields.get("DOCNO"):
        raise RecipeError(f"{where}: a <DOC> without <DOCNO>")
    return Candidate(fields["DOCNO"], fields.get("TITLE", ""), fields.get("TEXT", ""))


def _queries(root: Path, subset: str) -> Iterator[tuple[str, str]]:
    yield from read_topics(root / f"benchmark/topics/topics.{subset}.txt").items()


def _judgements(root: Path, subset: str) -> Iterator[Judged]:
    kind = "dctr" if subset.startswith("head.") else "raw"
    return read_judgements(root / f"benchmark/qrels/qrels.{kind}.{subset}.txt")


def _documents(root: Path, _: str) -> Iterator[tuple[str, Candidate]]:
    paths = sorted((root / "benchmark" / "documents").glob("docs_grp_*.txt"))
    if not paths:
        raise RecipeError(f"{root}: no benchmark/documents/docs_grp_*.txt; is --data right?")
    for path in paths:
        for where, block in _blocks(path):
            document = article(where, block)
            yield str(document.id), document


def _blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (file:line of its end, text) of each `<DOC>`."""
    lines: list[str] = []
    for where, line in read_lines(path):
        lines.append(line)
        if line.strip() == "</DOC>":
            yield where, "\n".join(lines)
            lines = []
    if lines:
        raise RecipeError(f"{path}: the last <DOC> is not closed")


TRIPCLICK = Collection(_queries, _judgements, _documents, SUBSETS)
