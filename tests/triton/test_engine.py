"""What the engine asks a real Triton, and makes of its answers."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from export.bundle import export_bundle
from export.triton import export_triton
from export.triton_config import Target
from service.contract.bundle import Bundle
from service.contract.encoding import TokenPair
from service.engines.engine import EngineError, EngineUnavailableError
from service.engines.triton import TritonEngine
from tests.tiny import tiny_teacher
from tests.triton.conftest import Served

pytestmark = [pytest.mark.anyio, pytest.mark.real_part]


SHIPPED = Path(__file__).parents[2] / "models/default"


def pair(tokens: int, first: int = 5) -> TokenPair:
    return TokenPair(np.full(tokens, first, dtype=np.int64), tokens // 2)


def soon() -> float:
    return monotonic() + 20


async def test_pairs_of_all_widths_come_back_in_order(served: Served) -> None:
    engine = served.engine()
    lengths = np.random.default_rng(0).integers(3, 257, size=130)
    pairs = [pair(int(length), first=int(length) % 50 + 5) for length in lengths]
    together = await engine.score(pairs, soon())
    assert together.complete
    assert together.real_tokens == lengths.sum()
    assert together.real_tokens < together.padded_tokens < 2 * together.real_tokens
    for place in range(0, 130, 13):
        alone = await engine.score([pairs[place]], soon())
        assert alone.values[0] == pytest.approx(together.values[place], abs=1e-4)
    await engine.close()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    export_bundle(tiny_teacher(folder / "checkpoint"), folder / "decoder", name="decoder")
    return folder / "decoder"


@pytest.mark.parametrize("kind", ["decoder with padding of its own", "int8 as shipped"])
async def test_other_bundles_score_their_golden_pairs(
    served: Served, decoder: Path, kind: str
) -> None:
    bundle = Bundle.open(SHIPPED if kind.startswith("int8") else decoder)
    precision = bundle.manifest.preferred_precision
    model = export_triton(bundle, served.repository, Target("cpu", precision)).name
    await asyncio.to_thread(served.triton.load, model)
    engine = TritonEngine(
        served.triton.url, model=model, manifest=bundle.manifest, precision=precision
    )
    encoder, golden = bundle.encoder(), bundle.golden[:3]
    pairs = [pair for query in golden for pair in encoder.encode(query.query, query.candidates)]
    scores = [score for query in golden for score in query.scores]
    found = await engine.score(pairs, soon())
    assert np.abs(found.values - scores).max() <= bundle.manifest.precisions[precision].tolerance
    await engine.close()
    await asyncio.to_thread(served.triton.unload, model)


async def test_failure_of_the_model_is_no_failure_of_triton(served: Served) -> None:
    engine = served.engine()
    with pytest.raises(EngineError, match="INTERNAL") as failure:
        await engine.score([pair(20, first=1_000_000)], soon())
    assert not isinstance(failure.value, EngineUnavailableError)
    assert (await engine.score([pair(20)], soon())).complete
    await engine.close()


async def test_other_inputs_than_the_models_are_refused(served: Served) -> None:
    manifest = served.bundle.manifest.model_copy(update={"inputs": ("input_ids",)})
    engine = TritonEngine(
        served.triton.url, model=served.model, manifest=manifest, precision="fp32"
    )
    with pytest.raises(EngineError, match="INVALID_ARGUMENT"):
        await engine.score([pair(20)], soon())
    await engine.close()


async def test_unknown_model_is_not_there(served: Served) -> None:
    engine = served.engine(model="other")
    with pytest.raises(EngineUnavailableError, match="other"):
        await engine.check()
    with pytest.raises(EngineUnavailableError, match="other"):
        await engine.score([pair(20)], soon())
    await engine.close()


async def test_model_of_another_bundle_is_refused(served: Served) -> None:
    manifest = served.bundle.manifest.model_copy(update={"version": "0" * 64})
    engine = TritonEngine(
        served.triton.url, model=served.model, manifest=manifest, precision="fp32"
    )
    with pytest.raises(EngineUnavailableError, match="bundle_version"):
        await engine.check()
    with pytest.raises(EngineUnavailableError, match="bundle_version"):
        await engine.score([pair(20)], soon())
    await engine.close()


async def test_model_of_another_precision_is_refused(served: Served) -> None:
    engine = TritonEngine(
        served.triton.url, model=served.model, manifest=served.bundle.manifest, precision="int8"
    )
    with pytest.raises(EngineUnavailableError, match="precision fp32, this service serves int8"):
        await engine.check()
    await engine.close()


async def test_cancelled_call_costs_nothing(served: Served, held: Callable[[], None]) -> None:
    engine = served.engine()
    await engine.check()
    before = inferences(served)
    first = asyncio.create_task(engine.score([pair(20)], soon()))
    await asyncio.sleep(0.2)  # until it is held
    second = asyncio.create_task(engine.score([pair(20)], soon()))
    await asyncio.sleep(0.2)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    calls = {task for task in asyncio.all_tasks() if "TritonEngine._ask" in repr(task)}
    assert len(calls) == 1  # the first's: a cancelled request leaves none behind
    await asyncio.sleep(0.2)
    held()
    assert (await first).complete
    await engine.score([pair(20)], soon())
    assert inferences(served) == before + 2
    await engine.close()


async def test_deadline_leaves_pairs_unscored(served: Served, held: Callable[[], None]) -> None:
    engine = served.engine()
    scores = await engine.score([pair(20), pair(100)], monotonic() + 0.2)
    assert not scores.scored.any()
    assert scores.real_tokens == 0
    held()
    assert not (await engine.score([pair(20)], monotonic() - 1)).scored.any()
    await engine.close()


def inferences(served: Served) -> int:
    return sum(size * n for size, n in served.triton.batches(served.model).items())
