"""An environment of its own for each peer, with the versions its requirements file locks."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSTALL_TIMEOUT_S = 1800


class PeerMissingError(Exception):
    """A peer that cannot be installed; the message is the reason."""


def python_of(name: str, cache: Path) -> Path:
    """Return the Python of a peer's environment, made where it is missing or outdated.

    Args:
        name: Names the requirements file beside this module.
        cache: Folder of the environments.

    Raises:
        PeerMissingError: pip or venv failed.
    """
    folder = cache / "envs" / name
    requirements = HERE / f"{name}.txt"
    stamp = folder / "installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    torch = [line for line in requirements.read_text("utf-8").split() if line.startswith("torch==")]
    if torch:  # first and alone, so that nothing after it chooses another build
        index = _run(sys.executable, str(ROOT / ".ci" / "torch_index.py")).split()
        _run(*pip, "--no-deps", *index, *torch)
    _run(*pip, "--requirement", str(requirements))
    stamp.write_text(wanted, encoding="utf-8")
    return python


def version_of(python: Path, package: str) -> str:
    """Return the installed version of a package."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return _run(str(python), "-c", code).strip()


def _run(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissingError(str(error)) from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise PeerMissingError(lines[-1] if lines else f"{command[0]} failed")
    return done.stdout
