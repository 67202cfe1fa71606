"""How a query and a candidate become the two texts the student reads."""

from __future__ import annotations

from service.contract.types import Candidate

TEMPLATE = "bert-pair-1"
"""`[CLS] query [SEP] title summary [SEP]`; a bundle names the template it was trained with."""

PAIR_TEMPLATE = "pair-1"
"""The same in the frame of the model's own tokenizer, such as `<s> query </s></s> … </s>`."""

DECODER_TEMPLATE = "decoder-pair-1"
"""`<s> query : title : summary </s>`, pooled on `</s>`; see `decoder_encoding`."""


TEMPLATES = (TEMPLATE, PAIR_TEMPLATE, DECODER_TEMPLATE)


def require_known(template: str) -> None:
    """Raise ValueError for a template that is none of `TEMPLATES`."""
    if template not in TEMPLATES:
        known = ", ".join(map(repr, TEMPLATES))
        raise ValueError(f"template is {template!r}; this program knows {known}")


def document_text(candidate: Candidate) -> str:
    """Return the candidate's text: the non-blank ones of title and summary, joined by a space."""
    return " ".join(part for part in (candidate.title, candidate.summary) if part.strip())
