"""The lanes: which model serves most requests, which is the canary, which the shadow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from service.ranking.errors import NoLaneError
from service.ranking.model import Model
from service.ranking.readiness import Readiness
from service.rollout.split import Split
from service.runtime import return_memory

log = logging.getLogger(__name__)

Variant = Literal["stable", "canary", "shadow"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

Reason = Literal["split", "override", "fallback"]
"""Why a request is in its lane: by its key, by its own wish, or since the canary may not rank."""

REASONS: tuple[Reason, ...] = get_args(Reason)

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


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a request goes.

    Attributes:
        served: Serves it.
        reason: Why.
    """

    served: Served
    reason: Reason


class Lanes:
    """One model a lane; the stable lane always has one.

    Attributes:
        readiness: Of this replica.
        split: Between stable and canary.
    """

    def __init__(self, stable: Model, *, readiness: Readiness, split: Split) -> None:
        """Begin with a stable model.

        Args:
            stable: Serves whatever nothing else does.
            readiness: Told which model's trust counts.
            split: Chooses who is the canary's.
        """
        self.readiness = readiness
        self.split = split
        self._served: dict[Variant, Served] = {}
        self._leaving: dict[Model, asyncio.Task[None]] = {}
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

    def weight_of(self, variant: Variant) -> float:
        """Return what part of the routing keys goes to a lane."""
        canary = self.split.weight.canary if "canary" in self._served else 0.0
        return {"stable": 1.0 - canary, "canary": canary, "shadow": 0.0}[variant]

    def choose(self, key: str, wanted: Variant | None = None) -> Choice:
        """Return where a request goes.

        Args:
            key: Its routing key.
            wanted: The lane it asks for by name; not one that is only mirrored to.

        Raises:
            NoLaneError: Nothing serves the lane it asks for.
        """
        canary = self._served.get("canary")
        if wanted is not None:
            served = self._served.get(wanted)
            if served is None:
                raise NoLaneError(wanted)
            return Choice(served, "override")
        if canary is None or not self.split.takes(key, canary.model.bundle.manifest.version):
            return Choice(self.stable, "split")
        if canary.model.trust.fault is not None:
            return Choice(self.stable, "fallback")
        return Choice(canary, "split")

    def put(self, variant: Variant, model: Model) -> None:
        """Let a model serve a lane from the next request on, and the one before finish its own."""
        old = self._served.get(variant)
        self._served[variant] = Served(variant, model)
        if variant == "stable":
            self.readiness.trust = model.trust
        if old is not None:
            self._let_go(old.model)

    def remove(self, variant: Variant) -> None:
        """Let nothing serve a lane from the next request on; never the stable one."""
        if variant == "canary":
            self.split.reset()
        self._let_go(self._served.pop(variant).model)

    def promote(self) -> None:
        """Let the canary serve the stable lane from the next request on."""
        self.split.reset()
        self.put("stable", self._served.pop("canary").model)

    @property
    def leaving(self) -> list[Model]:
        """Models that serve no lane any more but for the requests they have."""
        return [*self._leaving]

    def _let_go(self, model: Model) -> None:
        async def leave() -> None:
            await model.drained()
            try:
                await model.stop()
            except Exception:  # of an engine elsewhere, say; it is gone all the same
                log.exception("a model did not stop")
            del self._leaving[model]
            return_memory()

        self._leaving[model] = asyncio.create_task(leave())

    def start(self) -> None:
        """Begin to warm all models up."""
        for served in self:
            served.model.start()

    async def stop(self) -> None:
        """Stop all models."""
        for task in self._leaving.values():
            task.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        models = [*self.leaving, *(served.model for served in self)]
        await asyncio.gather(*(model.stop() for model in models))
