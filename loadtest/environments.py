"""An environment of its own for each requirements file, with the versions that it locks."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTALL_TIMEOUT_S = 1800
PIP_INSTALL = ("-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check")


class EnvironmentMissingError(Exception):
    """What cannot be installed; the message is the reason."""


def python_of(requirements: Path, cache: Path) -> Path:
    """Return the Python of an environment, made where it is missing or outdated.

    Args:
        requirements: What to install, every version locked; its name is the environment's.
        cache: Folder of the environments.

    Raises:
        EnvironmentMissingError: pip or venv failed.
    """
    folder = cache / "envs" / requirements.stem
    stamp = folder / "installed"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    # Most modules are never imported: compiling them all would take a third of the time.
    pip = (str(python), *PIP_INSTALL)
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
        raise EnvironmentMissingError(str(error)) from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise EnvironmentMissingError(lines[-1] if lines else f"{command[0]} failed")
    return done.stdout
