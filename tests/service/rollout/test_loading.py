"""Loading from an engine elsewhere that goes away meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.contract.types import Scores
from service.engines.engine import EngineUnavailableError, Runner
from service.ranking.errors import ConflictError
from service.ranking.model import Model
from service.ranking.readiness import Readiness
from service.rollout import loading
from service.rollout.lanes import Lanes
from service.rollout.loading import Loader
from service.rollout.split import Split
from tests.service.fakes import one_core

pytestmark = pytest.mark.anyio


class LeavingEngine:
    """Is there when it is first asked, and never again."""

    served_version = float("nan")

    def __init__(self) -> None:
        self.checks = 0
        self.closed = False

    async def check(self) -> None:
        self.checks += 1
        if self.checks > 1:
            raise EngineUnavailableError("it is gone")

    async def score(
        self,
        pairs: Sequence[TokenPair],
        deadline: float,
        *,
        low: bool = False,
    ) -> Scores:
        assert pairs, (deadline, low)
        raise EngineUnavailableError("it is gone")

    async def close(self) -> None:
        self.closed = True


async def test_an_engine_that_goes_away_ends_the_load_and_blocks_no_other(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PROOF_S", 0.05)
    shared = one_core()
    engines: list[LeavingEngine] = []

    def opened(_path: Path, _triton_model: str | None) -> Model:
        engines.append(LeavingEngine())
        return Model(bundle, Runner("triton", engines[-1], "int8", 1), shared)

    lanes = Lanes(opened(bundle.root, None), readiness=Readiness(), split=Split("salt"))
    loader = Loader(lanes, open_model=opened, root=bundle.root.parent)
    for _ in range(2):
        with pytest.raises(ConflictError, match=r"not proven in 0\.05 s: it is gone"):
            await loader.load("canary", bundle.root.name)
        assert lanes.get("canary") is None
        assert engines[-1].closed
