"""What agreement to expect, from the report that an export wrote into a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.contract.bundle import BundleError
from service.contract.manifest import Manifest
from service.rollout.guardrails import Bounds

PARITY_LESS = 0.05
"""How far below the figures of the report the bounds lie: its queries are not the users'."""


def parity_bounds(manifest: Path) -> Bounds:
    """Return the bounds that follow from a manifest's parity report.

    The report is of each precision against the checkpoint it was made of; the least of them counts.

    Raises:
        BundleError: It is no manifest, or has no report.
    """
    try:
        metrics = Manifest.model_validate_json(manifest.read_bytes()).metrics
        parity: Any = metrics.get("parity") or {}
        tau_b = min(float(report["kendall_tau"]) for report in parity.values())
        overlap_10 = min(float(report["top10_overlap"]) for report in parity.values())
    except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{manifest}: no manifest with a parity report") from error
    return Bounds(tau_b - PARITY_LESS, overlap_10 - PARITY_LESS)
