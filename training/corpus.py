"""Documents of a judged set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.contract.types import Candidate
from training.lines import read_lines
from training.recipe import RecipeError

Corpus = dict[str, Candidate]


def read_corpus(path: Path) -> Corpus:
    """Return the documents of a `corpus.jsonl.gz` by id."""
    corpus = {}
    for where, line in read_lines(path):
        try:
            fields: dict[str, Any] = json.loads(line)
            name = str(fields["id"])
            title, text = fields.get("title") or "", fields.get("text") or ""
            if not (isinstance(title, str) and isinstance(text, str)):
                raise TypeError("title and text must be strings")
            corpus[name] = Candidate(name, title, text)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecipeError(f"{where}: not a document: {error!r}") from None
    return corpus
