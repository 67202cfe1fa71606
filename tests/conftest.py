"""What every test shares: no model hub, and no real component skipped in silence."""

import os
import signal
from collections.abc import Generator

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # two workers whose torch takes two threads each get slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SKIPPED_PART = "skipped real part"


def pytest_configure() -> None:
    # A job in the background ignores Ctrl-C, and so would every process it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a `real_part` test into a failure under CI=true, else note it."""
    report = yield
    if item.get_closest_marker("real_part") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.user_properties.append((SKIPPED_PART, reason))
        if os.environ.get("CI") == "true":
            report.outcome = "failed"
            report.longrepr = f"a real part is missing under CI=true: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the real parts this run went without."""
    lines = [
        f"{report.nodeid}: {value}"
        for outcome in ("skipped", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in getattr(report, "user_properties", ())
        if name == SKIPPED_PART
    ]
    if lines:
        terminalreporter.section("real parts skipped")
    for line in lines:
        terminalreporter.line(line)
