"""How a query and a candidate become the two texts the student reads."""

from __future__ import annotations

from service.contract.types import Candidate

TEMPLATE = "bert-pair-1"
"""`[CLS] query [SEP] title summary [SEP]`; a bundle names the template it was trained with."""

DECODER_TEMPLATE = "decoder-pair-1"
"""`<s> query : title : summary </s>`, pooled on `</s>`; see `decoder_encoding`."""


def require_known(template: str) -> None:
    """Raise ValueError for a template that is neither."""
    if template not in (TEMPLATE, DECODER_TEMPLATE):
        raise ValueError(
            f"template is {template!r}; this program knows {TEMPLATE!r} and {DECODER_TEMPLATE!r}"
        )


def document_text(candidate: Candidate) -> str:
    """Return the candidate's text: the non-blank ones of title and summary, joined by a space."""
    return " ".join(part for part in (candidate.title, candidate.summary) if part.strip())
