"""A stage as a process: its status, its log, and how it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.pipeline.process import run_logged

SAYS = """\
import sys
print("first", flush=True)
for done in range(3):
    sys.stderr.write(f"\\r{done} of 2"); sys.stderr.flush()
sys.stderr.write("\\r      \\rnote\\nlast"); sys.stderr.flush()
raise SystemExit(7)
"""


def test_output_is_shown_and_kept_with_the_last_state_of_a_line(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = tmp_path / "log"
    for _ in range(2):
        assert run_logged([sys.executable, "-c", SAYS], log) == 7
    assert log.read_text() == "first\nnote\nlast\n" * 2
    shown = capfdbinary.readouterr().err
    assert shown.count(b"\r1 of 2\r2 of 2") == 2


def test_a_process_killed_by_a_signal_tells_which(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert run_logged(command, tmp_path / "log") == -signal.SIGKILL


def test_ctrl_c_ends_the_stage_and_leaves_its_last_words_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    stage = (
        "import os, time\n"
        "try:\n"
        "    print(os.getpid(), 'ready', flush=True)\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('last words', flush=True)\n"
    )
    ours = (
        "import sys\nfrom pathlib import Path\n"
        "from training.pipeline.process import run_logged\n"
        f"run_logged([sys.executable, '-c', {stage!r}], Path({str(log)!r}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", ours], stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not log.exists() or "ready" not in log.read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # to both, as a terminal does
    _, said = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    assert b"last words" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text().split()[0]), 0)
