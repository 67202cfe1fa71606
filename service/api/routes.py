"""Where a request to rank may be sent, and in which dialects."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from service.api.dialect import Dialect
from service.api.dialects.cohere import COHERE
from service.api.dialects.nim import NIM
from service.api.dialects.rerank import BARE, RERANK
from service.api.dialects.score import SCORE
from service.api.dialects.tei import TEI
from service.api.dialects.voyage import VOYAGE
from service.api.native import NATIVE
from service.api.openapi import headers, problem_responses, request_body
from service.api.routing import WANTED
from service.api.schema import MAX_KEY_CHARS
from service.api.serving import Serving

MODEL = {
    "name": "model",
    "in": "path",
    "required": True,
    "description": "The hosted model's name, slashes and all. Ignored: one model is served.",
    "schema": {"type": "string", "pattern": r"^[^\n]+$"},
    "example": "nvidia/llama-3.2-nv-rerankqa-1b-v2",
}
"""A path's parameter, where it has one."""


ROUTING = [
    {
        "name": "X-Routing-Key",
        "in": "header",
        "description": "Makes the choice of the model sticky while a canary is served: equal keys "
        "get the same model. By default the field `routing_key`, where the body may have one, else "
        "the request's id.",
        "schema": {"type": "string", "maxLength": MAX_KEY_CHARS},
    },
    {
        "name": "X-Variant",
        "in": "header",
        "description": "Asks for a lane, for testers; with keys, for those of the scope `variant`.",
        "schema": {"type": "string", "enum": [*WANTED]},
    },
]
"""Headers that a request may have."""


@dataclass(frozen=True, slots=True)
class Route:
    """A path to rank at.

    Attributes:
        path: Where.
        summary: Whose clients ask there.
        dialects: What they speak; see `read_request`.
    """

    path: str
    summary: str
    dialects: tuple[Dialect[Any], ...]

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The path's parameters and the headers, for the OpenAPI document."""
        return [*([MODEL] if "{" in self.path else []), *ROUTING]

    @property
    def problems(self) -> tuple[int, ...]:
        """Statuses of what a request may be answered with instead of a ranking."""
        unknown = (404,) if "{" in self.path else ()
        return (400, *unknown, 408, 409, 413, 422, 429, 500, 503, 504)


ROUTES = (
    Route("/rank", "Rank documents for a query", (NATIVE,)),
    Route("/rerank", "text-embeddings-inference (`texts`), vLLM, Infinity, Jina", (TEI, BARE)),
    Route("/v1/rerank", "Cohere v1, Jina, vLLM; Voyage (`top_k`, `truncation`)", (VOYAGE, RERANK)),
    Route("/v2/rerank", "Cohere v2, vLLM", (COHERE,)),
    Route("/ranking", "NVIDIA NIM", (NIM,)),
    Route("/v1/ranking", "NVIDIA NIM", (NIM,)),
    Route("/v1/retrieval/{model:path}/reranking", "NVIDIA NIM, hosted", (NIM,)),
    Route("/score", "vLLM: scores in the request's order", (SCORE,)),
    Route("/v1/score", "vLLM: scores in the request's order", (SCORE,)),
)


class RawRoute(APIRoute):
    """Calls its endpoint with the request, without FastAPI's parsing, which it has no use for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint."""
        return self.endpoint


def ranking_router(serving: Serving) -> APIRouter:
    """Return the router of all paths to rank at."""
    router = APIRouter(tags=["ranking"], route_class=RawRoute)
    for route in ROUTES:
        router.add_api_route(
            route.path,
            _endpoint(serving, route.dialects),
            methods=["POST"],
            name="rank_at_" + route.path.split("{")[0].strip("/").replace("/", "_"),
            summary=route.summary,
            response_model=reduce(or_, (dialect.response for dialect in route.dialects)),
            responses={
                200: {"headers": headers(200, ranked=True)},
                **problem_responses(*route.problems),
            },
            openapi_extra={"parameters": route.parameters, **request_body(*route.dialects)},
        )
    return router


def _endpoint(
    serving: Serving, dialects: tuple[Dialect[Any], ...]
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def rank(request: Request) -> Response:
        return await serving.answer(request, dialects)

    return rank
