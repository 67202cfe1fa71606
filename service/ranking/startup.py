"""From a cold model to a proven one, and with a model elsewhere an eye on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.contract.bundle import Bundle
from service.engines.engine import EngineError, RemoteEngine
from service.ranking.golden import GoldenError, check_golden, rehearse
from service.ranking.health import PROBE_S, Recovery
from service.ranking.lane import Lane
from service.ranking.readiness import Trust

log = logging.getLogger(__name__)


async def warm_up(lane: Lane, bundle: Bundle, *, tolerance: float, trust: Trust) -> None:
    """Trust the model once its golden scores match; say why where they do not."""
    try:
        largest = await check_golden(lane, bundle.golden, tolerance=tolerance)
        await rehearse(lane, bundle.golden, max_length=bundle.manifest.max_length)
    except GoldenError as error:
        trust.fault = str(error)
        log.error("the start-up check failed", extra={"fields": {"reason": str(error)}})
    except Exception as error:
        trust.fault = "the start-up check failed; the log says why"
        fields = {"reason": f"{type(error).__name__}: {error}"}  # of golden pairs, nobody's text
        log.exception("the start-up check failed", extra={"fields": fields})
    else:
        trust.fault = None
        found = {
            "model": bundle.manifest.name,
            "version": bundle.short_version,
            "largest_deviation": largest,
            "tolerance": tolerance,
        }
        log.info("ready", extra={"fields": found})


async def accompany(
    engine: RemoteEngine,
    start: Callable[[], Awaitable[None]],
    *,
    trust: Trust,
    recovery: Recovery,
) -> None:
    """Watch over an engine elsewhere, which may come later and go; never returns.

    Args:
        engine: The engine.
        start: Warms it up; called once it is there, until it is trusted.
        trust: Told why not, as long as it is not.
        recovery: Told when it went.
    """
    while trust.fault is not None:
        try:
            await engine.check()
        except EngineError as error:
            if trust.fault != str(error):
                log.warning("not ready yet: %s", error)
            trust.fault = str(error)
        else:
            await start()
        await asyncio.sleep(0 if trust.fault is None else PROBE_S)
    while True:
        await asyncio.sleep(PROBE_S)
        try:
            await engine.check()
        except EngineError as error:
            recovery.suspect(str(error))
