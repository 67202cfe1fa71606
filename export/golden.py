"""A bundle's golden scores, held against another way to compute them."""

from __future__ import annotations

import numpy as np

from export.errors import ExportError
from service.contract.bundle import Bundle
from service.scorers.scorer import Scorer


def require_golden(bundle: Bundle, scorer: Scorer, *, tolerance: float, where: str) -> None:
    """Hold a scorer against a bundle's golden scores, as the service will when it starts.

    Args:
        bundle: The opened bundle.
        scorer: What is to serve it.
        tolerance: Bound on |score - golden score|.
        where: What computes the scores, for the error's text.

    Raises:
        ExportError: A golden score is off by more.
    """
    encoder = bundle.encoder()
    for number, golden in enumerate(bundle.golden, start=1):
        scores = scorer.score(encoder.encode(golden.query, golden.candidates))
        found = float(np.abs(scores - golden.scores).max())
        if not found <= tolerance:
            raise ExportError(
                f"{bundle.root}: golden query {number} deviates by {found:.6g} in {where}; the "
                f"tolerance is {tolerance:.6g}"
            )
