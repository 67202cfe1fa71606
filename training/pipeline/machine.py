"""The machine and the versions that a report's figures come from."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "onnxruntime")


def describe_machine() -> str:
    """Return processor, cores, memory, GPUs and system as a line."""
    parts = [f"{_processor()}, {os.cpu_count()} cores", _memory(), *_gpus()]
    return "; ".join([*filter(None, parts), platform.platform(terse=True)])


def describe_versions() -> str:
    """Return the versions of Python and of what the figures depend on as a line."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpus() -> list[str]:
    """Return the GPUs' names as their driver gives them: torch would take seconds to load."""
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.splitlines()


def _memory() -> str:
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return ""
    return f"{size / 2**30:.0f} GiB"
