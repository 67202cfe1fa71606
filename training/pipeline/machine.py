"""The machine and the versions that a report's figures come from."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "numpy", "onnxruntime")


def describe_machine() -> str:
    """Return processor, cores, memory, GPUs and system as a line."""
    import torch

    parts = [f"{_processor()}, {os.cpu_count()} cores", _memory()]
    parts += [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
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


def _memory() -> str:
    try:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return ""
    return f"{size / 2**30:.0f} GiB"
