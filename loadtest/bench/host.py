"""The machine, the versions and the commit that a measurement belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from loadtest.bench.results import Host, Measured, Result
from loadtest.bench.subject import cores
from loadtest.server import ROOT
from service.contract.bundle import Bundle

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
"""CPU features that decide which kernels run."""

PACKAGES = ("onnxruntime", "numpy", "tokenizers", "fastapi", "uvicorn", "pydantic")


def this_host(bundle: Bundle) -> Host:
    """Return what this machine is, and how busy it is before anything is measured."""
    facts = _cpu_facts(Path("/proc/cpuinfo"))
    known = set(facts.get("flags", "").split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Host(
        cpu=facts.get("model name") or platform.processor() or platform.machine(),
        cores=cores(),
        memory_gb=round(memory / 1e9, 1),
        flags=tuple(flag for flag in FLAGS if flag in known),
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        versions={name: found for name in PACKAGES if (found := _version(name))},
        commit=_commit(),
        bundle=f"{bundle.manifest.name} {bundle.short_version}",
        load_before=round(os.getloadavg()[0], 2),
    )


def noted(
    kind: type[Measured[Result]],
    section: str,
    measure: Callable[[], Result],
    *,
    bundle: Bundle,
    command: str,
    requests: str,
) -> Measured[Result]:
    """Return what measure returns, and when, where and how it did."""
    host, began = this_host(bundle), time.monotonic()
    at = datetime.now(UTC).isoformat(timespec="minutes")
    result = measure()
    return kind(
        section=section,
        at=at,
        seconds=round(time.monotonic() - began, 1),
        command=command,
        requests=requests,
        host=host,
        result=result,
    )


def _cpu_facts(path: Path) -> dict[str, str]:
    """Return the first core's facts; none where the system has no such file."""
    try:
        first = path.read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    lines = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """Return the commit, marked where tracked files differ from it; "unknown" without git."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*")
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
