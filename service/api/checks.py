"""What is checked of a request that is well formed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from service.api.faults import echo
from service.ranking.errors import Fault


class Named(Protocol):
    """A candidate that may have an id."""

    @property
    def id(self) -> str | None:
        """The caller's name for it."""
        ...


def query_faults(query: str, *, max_chars: int, field: str = "query") -> Iterator[Fault]:
    """Yield what is wrong with a query."""
    value = f"a string of {len(query)} characters"
    if not query.strip():
        yield Fault(field, "a query needs non-blank text", value=value, limit=1)
    elif len(query) > max_chars:
        message = f"a query has at most {max_chars} characters, this has {len(query)}"
        yield Fault(field, message, value=value, limit=max_chars)


def id_faults(candidates: Sequence[Named]) -> Iterator[Fault]:
    """Yield the first id that two candidates have."""
    first: dict[str, int] = {}
    for index, candidate in enumerate(candidates):
        if candidate.id is None:
            continue
        if (other := first.setdefault(candidate.id, index)) != index:
            message = f"candidates[{index}] has the same id as candidates[{other}]"
            yield Fault(f"candidates[{index}].id", message, value=echo(candidate.id))
            return
