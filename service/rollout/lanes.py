"""The lanes: which model serves the stable requests, which is the canary, which the shadow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from service.ranking.model import Model
from service.ranking.readiness import Readiness

Variant = Literal["stable", "canary", "shadow"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

Labels = tuple[str, str, Variant]
"""What a model in a lane is called: its name, its version and the lane."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model in its lane.

    Attributes:
        variant: The lane.
        model: What serves it.
    """

    variant: Variant
    model: Model

    @property
    def labels(self) -> Labels:
        """What it is called."""
        bundle = self.model.bundle
        return bundle.manifest.name, bundle.short_version, self.variant


class Lanes:
    """One model a lane; the stable lane always has one."""

    def __init__(self, stable: Model, *, readiness: Readiness) -> None:
        """Begin with a stable model.

        Args:
            stable: Serves whatever nothing else does.
            readiness: Told which model's trust counts.
        """
        self.readiness = readiness
        self._served: dict[Variant, Served] = {}
        self.put("stable", stable)

    @property
    def stable(self) -> Served:
        """What serves by default."""
        return self._served["stable"]

    def get(self, variant: Variant) -> Served | None:
        """Return what serves a lane."""
        return self._served.get(variant)

    def __iter__(self) -> Iterator[Served]:
        """Yield what is served, the stable one first."""
        return iter([self._served[variant] for variant in VARIANTS if variant in self._served])

    def put(self, variant: Variant, model: Model) -> None:
        """Let a model serve a lane from the next request on."""
        self._served[variant] = Served(variant, model)
        if variant == "stable":
            self.readiness.trust = model.trust

    def start(self) -> None:
        """Begin to warm all models up."""
        for served in self:
            served.model.start()

    async def stop(self) -> None:
        """Stop all models."""
        await asyncio.gather(*(served.model.stop() for served in self))
