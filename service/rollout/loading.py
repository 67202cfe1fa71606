"""Bundles that come and go while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from service.contract.bundle import BundleError
from service.engines.engine import EngineError
from service.ranking.errors import ConflictError, Fault, InvalidRequestError
from service.ranking.model import Model
from service.rollout.lanes import Lanes, Served, Variant
from service.runtime import step_back

OpenModel = Callable[[Path, str | None], Model]
"""Opens a bundle to be run by what Triton calls so, or by its default name; takes seconds."""


PROOF_S = 600.0
"""For the golden scores; without end where Triton goes away between its check and them."""


class Loader:
    """Loads bundles beside the running ones, and swaps them once they are proven.

    One thing is done at a time. What fails changes nothing.
    """

    def __init__(self, lanes: Lanes, *, open_model: OpenModel, root: Path | None) -> None:
        """Load into lanes.

        Args:
            lanes: Where proven models go.
            open_model: Opens a bundle.
            root: Directory of the bundles that may be loaded; None for none.
        """
        self._lanes = lanes
        self._open_model = open_model
        self._root = root
        self._busy = False

    async def load(self, variant: Variant, name: str, *, triton_model: str | None = None) -> Served:
        """Return a lane with the bundle of a name in it, proven.

        Args:
            variant: The lane; what it had is let go of once its requests are answered.
            name: The bundle's path under the root.
            triton_model: What Triton calls its model, where that is not the default.

        Raises:
            InvalidRequestError: There is no such bundle, it is not intact, or it misses its golden
                scores on this host.
            ConflictError: There is no root, something else is being loaded, Triton does not serve
                the model, there is no Triton, or it went away.
        """
        with self._alone():
            path = self._locate(name)
            model = await self._opened(path, name, triton_model)
            try:
                await self._prove(model, name)
            except BaseException:
                await model.stop()
                raise
            if variant == "canary":
                self._lanes.split.reset()
            self._lanes.put(variant, model)
        return Served(variant, model)

    def unload(self, variant: Variant) -> None:
        """Let go of a lane's model once its requests are answered.

        Raises:
            ConflictError: The lane is empty, or something is being loaded.
        """
        with self._alone():
            self._served(variant)
            self._lanes.remove(variant)

    def promote(self) -> Served:
        """Make the canary the stable model, and return it; nothing is loaded or warmed up for that.

        Raises:
            ConflictError: There is no canary, it may not rank, or something is being loaded.
        """
        with self._alone():
            canary = self._served("canary")
            if (fault := canary.model.trust.fault) is not None:
                raise ConflictError(Fault("canary", f"it may not rank: {fault}"))
            self._lanes.promote()
        return self._lanes.stable

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._busy:
            raise ConflictError(Fault("lanes", "something else is being loaded; try again later"))
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _served(self, variant: Variant) -> Served:
        served = self._lanes.get(variant)
        if served is None:
            raise ConflictError(Fault(variant, "the lane is empty"))
        return served

    def _locate(self, name: str) -> Path:
        """Return a bundle's path, refusing one that leads out of the root, by links too."""
        if self._root is None:
            message = (
                "the setting bundles_root says where bundles may be loaded from; it is not set"
            )
            raise ConflictError(Fault("bundle", message))
        try:
            root = self._root.resolve(strict=True)
            path = (root / name).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a circle of links
            raise _no_bundle(name, f"cannot be found: {error}") from None
        if path == root or not path.is_relative_to(root):
            raise _no_bundle(name, "leads out of bundles_root")
        return path

    async def _opened(self, path: Path, name: str, triton_model: str | None) -> Model:
        opened = partial(self._open_model, path, triton_model)
        thread = ThreadPoolExecutor(1, "load", initializer=step_back)
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, opened)
        except (BundleError, OSError) as error:
            raise _no_bundle(name, str(error)) from error
        finally:
            thread.shutdown(wait=False)  # it gives way to all others, and the loop would wait

    async def _prove(self, model: Model, name: str) -> None:
        try:
            await model.check()
        except EngineError as error:
            raise ConflictError(Fault("triton_model", str(error))) from error
        model.start()
        try:
            async with asyncio.timeout(PROOF_S):
                await model.judged()
        except TimeoutError:
            message = f"it was not proven in {PROOF_S:g} s: {model.trust.fault}"
            raise ConflictError(Fault("bundle", message, value=name)) from None
        if model.trust.fault is not None:
            raise _no_bundle(name, model.trust.fault)


def _no_bundle(name: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(Fault("bundle", message, value=name))
