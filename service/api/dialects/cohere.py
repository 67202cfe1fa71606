"""Cohere v2: `POST /v2/rerank`; its v1 is one of those in `rerank.py`."""

from __future__ import annotations

from service.api.dialect import Answer, Dialect
from service.api.dialects.rerank import RerankRequest, RerankResponse, ask, response, scored


def write(asked: RerankRequest, answer: Answer) -> object:
    """Return a `RerankResponse` as a dict; v2 never returns documents."""
    return response(answer, scored(asked, answer), version="2")


COHERE = Dialect(request=RerankRequest, response=RerankResponse, ask=ask, write=write)
