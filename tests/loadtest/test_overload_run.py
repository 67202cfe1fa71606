"""An overload run measures a real service, from its capacity to a burst."""

import json
import subprocess
import sys
from pathlib import Path

from loadtest.bench.results import Measured
from loadtest.overload.results import OverloadResult

ROOT = Path(__file__).parents[2]


def overload(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest", "overload", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def test_overload_offers_multiples_of_the_capacity_and_accounts_for_every_request(
    bundle_path: Path, tmp_path: Path
) -> None:
    done = overload(
        *("--bundle", bundle_path, "--seconds", "0.5", "--rounds", "1"),
        *("--flags", "--threads 1", "--output", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'overload.md'}\n"
    raw = (tmp_path / "overload.json").read_text(encoding="utf-8")
    result = Measured[OverloadResult].model_validate_json(raw).result
    (part,) = result.rounds
    assert result.flags == "--threads 1"
    assert [step.name for step in part.steps] == [
        *("0.5×", "0.9×", "1×", "1.5×", "2×", "5×", "burst")
    ]
    assert part.capacity.tokens_per_s > part.capacity.requests_per_s > 0
    for step in part.steps:
        assert sum(step.outcomes.values()) == step.scheduled
        assert step.outcomes["lost"] == step.outcomes["error"] == step.unanswered == 0
        assert step.wasted_share is not None
    crowded = part.steps[5]
    assert crowded.outcomes["rejected"] > 0
    assert crowded.handler_p50_ms is not None
    assert crowded.handler_p50_ms <= (crowded.refused_p50_ms or 0)
    assert [recovery.load for recovery in part.recoveries] == ["5×", "burst"]
    assert json.loads(raw)["section"] == "overload"


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    done = overload("--seconds", "0")
    assert done.returncode == 2
    assert "0 is not above 0" in done.stderr
    done = overload("--rounds", "0")
    assert done.returncode == 2
    assert "0 is not at least 1" in done.stderr
    done = overload("--bundle", tmp_path, "--output", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("loadtest: ")
    assert done.stderr.count("\n") == 1
