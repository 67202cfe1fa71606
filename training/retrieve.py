"""Candidate retrieval: queries without judgements meet documents for a teacher to score."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.contract.examples import write_examples
from service.contract.template import document_text
from service.contract.types import Candidate, RankingExample
from training.corpus import read_corpus
from training.data import EXAMPLES
from training.first_stage import Places, rankings
from training.hashing import stable_hash
from training.queries import judged_queries, read_queries_of
from training.readers.split import query_hash
from training.recipe import RecipeError
from training.retrieval_recipe import FirstStage, RetrieveRecipe

DONE = "retrieved.json"


def retrieve(recipe: RetrieveRecipe, *, data: Path, out: Path, restart: bool = False) -> Path:
    """Write queries with candidates to `out/<recipe name>/examples.jsonl` and return the folder.

    A query gets the top of each retriever, some documents from further down each ranking and some
    random ones, each document once. Nothing is done anew where the recipe's candidates are there.

    Args:
        recipe: Queries, corpora and retrievers.
        data: Folder of the sets the recipe names.
        out: Folder of runs.
        restart: Throw earlier candidates of this name away.

    Raises:
        RecipeError: An input cannot be read, or the folder holds another recipe's candidates.
    """
    folder = out / recipe.name
    told = {"recipe": recipe.model_dump(mode="json")}
    if not restart and (folder / DONE).exists():
        if json.loads((folder / DONE).read_text(encoding="utf-8"))["recipe"] != told["recipe"]:
            raise RecipeError(
                f"{folder} holds candidates of another recipe; "
                "give the recipe a new name, or start over with --restart"
            )
        return folder
    documents = _documents(recipe, data)
    queries, counts = _queries(recipe, data)
    print("queries: " + ", ".join(f"{n:,} {what}" for what, n in counts.items()), file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scratch = folder / f"{EXAMPLES}.tmp"
    write_examples(scratch, _examples(recipe, queries, documents))
    scratch.replace(folder / EXAMPLES)
    done = folder / f"{DONE}.tmp"
    done.write_text(
        json.dumps({**told, "counts": counts, "documents": len(documents)}, indent=2) + "\n",
        encoding="utf-8",
    )
    done.replace(folder / DONE)
    return folder


def _documents(recipe: RetrieveRecipe, data: Path) -> list[Candidate]:
    """Return the documents of all corpora, each text once."""
    distinct = {
        stable_hash(text): document
        for name in recipe.corpora
        for document in read_corpus(data / name / "corpus.jsonl.gz").values()
        if (text := document_text(document)).strip()
    }
    if not distinct:
        raise RecipeError(f"{', '.join(recipe.corpora)}: no document with text")
    return list(distinct.values())


def _queries(recipe: RetrieveRecipe, data: Path) -> tuple[list[str], dict[str, int]]:
    """Return the distinct queries of all sources, in their order, and what was counted."""
    seen = {query_hash(text) for source in recipe.exclude for text in judged_queries(source, data)}
    excluded = len(seen)
    counts: Counter[str] = Counter()
    queries = []
    for source in recipe.queries:
        for query in read_queries_of(source, data):
            if len(query.split()) > recipe.most_words:
                counts["left out as too long"] += 1
            elif query_hash(query) in seen:
                counts["left out as known or excluded"] += 1
            else:
                seen.add(query_hash(query))
                queries.append(query)
                counts[getattr(source, "form", source.kind)] += 1
    if not queries:
        raise RecipeError(f"no query is left; {excluded} are excluded, {dict(counts)}")
    return queries, dict(counts)


def _examples(
    recipe: RetrieveRecipe, queries: list[str], documents: list[Candidate]
) -> Iterator[RankingExample]:
    texts = [document_text(document) for document in documents]
    found = zip(*(rankings(stage, texts, queries) for stage in recipe.retrievers), strict=True)
    for number, (query, places) in enumerate(
        tqdm(zip(queries, found, strict=True), total=len(queries), unit="query")
    ):
        rng = np.random.default_rng([recipe.seed, stable_hash(query)])
        chosen = [
            place
            for stage, ranked in zip(recipe.retrievers, places, strict=True)
            for place in _drawn(stage, ranked, rng)
        ]
        chosen += rng.integers(len(documents), size=recipe.random).tolist()
        candidates = tuple(documents[place] for place in dict.fromkeys(chosen))
        yield RankingExample(f"q{number}", query, candidates)


def _drawn(stage: FirstStage, ranked: Places, rng: np.random.Generator) -> list[int]:
    deeper = ranked[stage.top :]
    drawn = rng.choice(deeper, size=min(stage.deep, len(deeper)), replace=False)
    return [*ranked[: stage.top].tolist(), *drawn.tolist()]
