"""What a shadow costs: the ratios, and a short run against real processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from loadtest.__main__ import main
from loadtest.shadow.measure import NOTHING, ratio


def test_a_ratio_is_of_all_blocks_and_its_interval_holds_it() -> None:
    draw = np.random.default_rng(0)
    without = [draw.exponential(size=200).tolist() for _ in range(20)]
    shadowed = [[1.1 * latency for latency in block] for block in without]
    found = ratio(without, shadowed, 99)
    assert found.value == pytest.approx(1.1)
    assert found.low == pytest.approx(1.1)  # each pair has it
    assert found.high == pytest.approx(1.1)
    other = [draw.exponential(size=200).tolist() for _ in range(20)]
    chance = ratio(without, other, 99)
    expected = np.percentile(np.concatenate(other), 99) / np.percentile(np.concatenate(without), 99)
    assert chance.value == pytest.approx(expected)
    assert chance.low < 1 < chance.high


def test_shadows_of_all_kinds_are_measured(bundle_path: Path, tmp_path: Path) -> None:
    flags = ["--pairs", "1", "--seconds", "0.5", "--only", f"{NOTHING},answers,garbage"]
    arguments = ["shadow", "--bundle", str(bundle_path), "--output", str(tmp_path), *flags]
    assert main([*arguments, "--flags", "--threads 1 --shadow-max-queue-ms 1e6"]) == 0
    rows = json.loads((tmp_path / "shadow.json").read_text())["result"]["rows"]
    assert [row["name"] for row in rows] == [NOTHING, "answers", "garbage"]
    assert [row["failed"] for row in rows] == [0, 0, 0]
    assert all(row["requests"] > 0 for row in rows)
    counts = [row["outcomes"] for row in rows]
    assert counts[0] == {}
    assert counts[1].get("compared", 0) > 0
    assert counts[2].get("failed garbage", 0) > 0
    report = (tmp_path / "shadow.md").read_text()
    assert "| garbage | " in report
    assert str(tmp_path) not in report
