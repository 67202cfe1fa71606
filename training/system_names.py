"""Names of the ranking systems that are no path."""

from __future__ import annotations

BM25, BI_ENCODER = "bm25", "bi-encoder:"


def is_named(system: str) -> bool:
    """Tell whether a system is known by its name, not by a path."""
    return system == BM25 or system.startswith(BI_ENCODER)
