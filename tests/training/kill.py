"""Kills stages of training, for the tests that start them again."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
PATIENCE_S = 120


def start(stage: str, recipe: Path, data: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "training", stage, str(recipe)]
    return subprocess.Popen(
        [*command, "--data", str(data), "--out", str(out)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def saved_step(folder: Path) -> int:
    """Return the step of the run's saved state, -1 where there is none at this moment."""
    try:
        step: int = json.loads((folder / "state" / "state.json").read_text())["step"]
    except (OSError, ValueError):
        return -1
    return step


def kill_after(step: int, stage: str, recipe: Path, data: Path, run: Path) -> None:
    """Start the stage, wait for a state of that step, and kill it some milliseconds later."""
    process = start(stage, recipe, data, run.parent)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while saved_step(run) < step:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))  # any moment will do: saving, evaluating, a step
    finally:
        process.kill()
        process.wait()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
