"""Ranking and checking without a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.api.checks import id_faults, query_faults
from service.api.faults import faults_of
from service.api.schema import RankCandidate
from service.contract.bundle import Bundle, BundleError
from service.contract.manifest import Precision
from service.contract.template import document_text
from service.contract.types import Candidate
from service.ranking.golden import deviation
from service.ranking.ranker import ranked, relevance_of
from service.scorers.scorer import EngineName, choose_engine, load_scorer

Format = Literal["table", "json"]


class CandidatesError(Exception):
    """A candidates file with a bad line; the message names file and line."""


def rank_file(
    bundle: Bundle,
    *,
    precision: Precision,
    engine: EngineName | None,
    threads: int,
    query: str,
    candidates: str,
    top_k: int | None,
    style: Format,
    max_query_chars: int,
) -> None:
    """Print the ranking of a JSONL file's candidates (`-` is the standard input).

    Raises:
        CandidatesError: A line is no candidate, there is none, or the query is no query.
        BundleError: The model does not load.
    """
    documents = read_candidates(candidates)
    faults = [*query_faults(query, max_chars=max_query_chars), *id_faults(documents)]
    if faults:
        raise CandidatesError(f"{faults[0].field}: {faults[0].message}")
    pairs = bundle.encoder().encode(query, documents)
    scores = load_scorer(bundle, precision, engine=engine, threads=threads).score(pairs)
    places = ranked(documents, scores, top_k=top_k)
    relevance = relevance_of(
        scores[[place.index for place in places]], bundle.manifest.score.relevance
    )
    rows = [
        {**asdict(place), "relevance": relevant}
        for place, relevant in zip(places, relevance.tolist(), strict=True)
    ]
    if style == "json":
        model = {"name": bundle.manifest.name, "version": bundle.short_version}
        print(json.dumps({"query": query, "model": model, "results": rows}, ensure_ascii=False))
    else:
        _print_table(query, rows, documents)


def check_bundle(path: Path, *, threads: int) -> None:
    """Print how far each model of the bundle is from its golden scores on this host.

    Raises:
        BundleError: The bundle is not intact, or a model misses its tolerance.
    """
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    print(f"{path}: {manifest.name} {bundle.short_version}, {len(manifest.files)} files intact")
    encoder = bundle.encoder()
    missed = []
    for precision, entry in manifest.precisions.items():
        for engine in _engines(bundle, precision):
            scorer = load_scorer(bundle, precision, engine=engine, threads=threads)
            largest = max(
                deviation(golden, scorer.score(encoder.encode(golden.query, golden.candidates)))
                for golden in bundle.golden
            )
            verdict = "ok" if largest <= entry.tolerance else "MISSED"
            print(
                f"{precision}, engine {engine}: largest deviation {largest:.6f} over "
                f"{len(bundle.golden)} golden queries, tolerance {entry.tolerance:.6f}: {verdict}"
            )
            if verdict != "ok":
                missed.append(f"{precision} ({engine}) by {largest:.6f} of {entry.tolerance:.6f}")
    if missed:
        raise BundleError(f"{path}: golden scores missed on this host: {', '.join(missed)}")


def _engines(bundle: Bundle, precision: Precision) -> tuple[EngineName, ...]:
    """Return what can run a model here; say why where the native engine cannot."""
    chosen, reason = choose_engine(bundle, precision)
    if chosen == "native":
        return "native", "onnx"
    print(f"{precision}: no native engine: {reason}")
    return ("onnx",)


def read_candidates(source: str) -> list[Candidate]:
    """Return the candidates of a JSONL file, `-` for the standard input.

    Raises:
        CandidatesError: A line is no candidate, or there is none.
        OSError: The file cannot be read.
    """
    found: list[Candidate] = []
    for number, line in _lines(source):
        try:
            found.append(RankCandidate.model_validate_json(line).candidate())
        except ValidationError as error:
            fault = faults_of(error, whole="candidate")[0]
            raise CandidatesError(f"{source}:{number}: {fault.field}: {fault.message}") from None
    if not found:
        raise CandidatesError(f"{source}: no candidates; give one JSON object a line")
    return found


def _lines(source: str) -> Iterator[tuple[int, bytes]]:
    data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            yield number, line


def _print_table(
    query: str, rows: Sequence[dict[str, Any]], documents: Sequence[Candidate]
) -> None:
    table = Table(title=Text(query), title_justify="left", expand=True)
    for heading in ("rank", "score", "relevance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("id", max_width=24, overflow="ellipsis", no_wrap=True)
    table.add_column("document", ratio=1, overflow="ellipsis", no_wrap=True)
    for row in rows:
        document = documents[row["index"]]
        table.add_row(
            str(row["rank"]),
            f"{row['score']:.4f}",
            f"{row['relevance']:.4f}",
            Text(document.id or f"#{row['index']}"),
            Text(document_text(document)),
        )
    Console().print(table)
