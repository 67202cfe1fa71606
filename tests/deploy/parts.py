"""The real tools that read what is in deploy/, and where that is."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PARTS = ROOT / ".parts"


def find(tool: str) -> str:
    """Return a tool of .parts/ or the PATH; skip the test where there is none."""
    found = shutil.which(tool, path=PARTS) or shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is neither in .parts/ nor installed")
    return found


def run(tool: str, *arguments: str | Path) -> str:
    """Return what a tool prints."""
    command = [find(tool), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
