"""The load test's ways to a real Triton, and what it makes of their latencies."""

from pathlib import Path

import numpy as np
import pytest

from loadtest.__main__ import main
from loadtest.triton.command import table
from loadtest.triton.measure import Row
from loadtest.triton.ways import InProcess, by_message, by_shared_memory
from service.contract.encoding import TokenPair
from service.scorers.buckets import padded
from tests.triton.conftest import Served

pytestmark = pytest.mark.real_part


@pytest.mark.anyio
async def test_all_ways_give_the_same_scores(served: Served) -> None:
    pairs = [TokenPair(np.full(n, n), 2) for n in range(5, 20)]
    feeds = padded(pairs, 32, 0)
    expected = await InProcess(served.bundle.model_path("fp32")).score(feeds)
    n_bytes = sum(values.nbytes for values in feeds.values()) + 4 * len(pairs)
    before = shared()
    async with by_message(served.triton.url, served.model) as message:
        assert np.abs(await message.score(feeds) - expected).max() <= 1e-4
    async with by_shared_memory(served.triton.url, served.model, n_bytes) as region:
        for _ in range(2):
            assert np.abs(await region.score(feeds) - expected).max() <= 1e-4
        assert len(shared() - before) == 1
    assert shared() == before


def shared() -> set[Path]:
    return {*Path("/dev/shm").glob("disranker-*")}  # noqa: S108


def test_command_writes_a_table(served: Served, tmp_path: Path) -> None:
    flags = ["--bundle", str(served.bundle.root), "--precision", "fp32", "--output", str(tmp_path)]
    short = ["--rounds", "1", "--seconds", "0.05", "--width", "32", "--pairs", "2"]
    assert main(["triton", "--url", served.triton.url, *flags, *short]) == 0
    lines = (tmp_path / "triton.md").read_text().splitlines()
    assert [line.split(" | ")[:2] for line in lines[4:]] == [
        [f"| {clients}", way]
        for clients in (1, 8)
        for way in ("in process", "gRPC", "shared memory")
    ]


def test_ratios_are_medians_of_the_rounds() -> None:
    local = Row("in process", 1, (10.0, 20.0, 30.0), (20.0, 20.0, 20.0))
    grpc = Row("gRPC", 1, (20.0, 22.0, 60.0), (40.0, 20.0, 10.0))
    assert grpc.ratio(local) == 2.0
    assert grpc.ratio(local, 99) == 1.0
    assert table([local, grpc]).splitlines()[-1] == (
        "| 1 | gRPC | 22 | 20 | 2.000 | 1.000 | 1.000 |"
    )
