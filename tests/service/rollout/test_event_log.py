"""The event log on real files: turned over, killed, full, unwritable."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from service.contract.events import ComparisonEvent, event_files, read_events
from service.rollout import event_log
from service.rollout.event_log import EventLog

DAY_S = 86_400.0
MODEL = {"name": "m", "version": "0123", "variant": "stable"}
EVENT: dict[str, Any] = {
    "time": "2026-01-02T03:04:05.678Z",
    "model": MODEL,
    "against": MODEL | {"variant": "shadow"},
    "ids": ["a", None],
    "scores": [1.5, -2.0],
    "against_scores": [0.5, 0.25],
    "comparison": {"candidates": 2, "tau_b": None},
}


def line(number: int) -> bytes:
    return json.dumps(EVENT | {"request_id": f"r{number}"}).encode()


def numbers(folder: Path) -> list[int]:
    return [int(event.request_id[1:]) for event in read_events(folder)]


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "new" / "events", file_bytes=1_000_000, file_s=DAY_S)
    for number in range(100):
        events.append(line(number))
    events.close()
    found = [*read_events(tmp_path / "new" / "events")]
    assert [event.request_id for event in found] == [f"r{number}" for number in range(100)]
    assert found[0] == ComparisonEvent.model_validate(EVENT | {"request_id": "r0"})
    assert (events.written, events.dropped, events.lost) == (100, 0, 0)


def test_files_are_turned_over_by_size_and_compressed(tmp_path: Path) -> None:
    size = 10 * (len(line(10)) + 1)
    events = EventLog(tmp_path, file_bytes=size, file_s=DAY_S)
    for number in range(10, 45):
        events.append(line(number))
    events.close()
    files = event_files(tmp_path)
    assert [len(gzip.decompress(path.read_bytes())) for path in files] == pytest.approx(
        [size, size, size, size / 2], abs=50
    )
    assert numbers(tmp_path) == [*range(10, 45)]
    assert all(path.stat().st_mode & 0o007 == 0 for path in files)
    assert len([*tmp_path.iterdir()]) == len(files)


def test_a_file_of_age_is_turned_over_without_a_further_line(tmp_path: Path) -> None:
    events = EventLog(tmp_path, file_bytes=1_000_000, file_s=0.05)
    events.append(line(1))
    waiting = Event()
    for _ in range(400):
        if any(path.suffix == ".gz" for path in tmp_path.iterdir()):
            break
        waiting.wait(0.05)
    assert numbers(tmp_path) == [1]
    assert [path.suffix for path in tmp_path.iterdir()] == [".gz"]
    events.close()


def test_a_kill_leaves_whole_lines_and_the_next_run_goes_on(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from service.rollout.event_log import EventLog\n"
        f"events = EventLog(Path({str(tmp_path)!r}), file_bytes=10**9, file_s=1e5)\n"
        f"line = {line(0)!r}\n"
        "n = 0\n"
        "while True:\n"
        "    events.append(line.replace(b'r0', b'r%d' % n)); n += 1\n"
        "    if events.written > 500: print('go', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"go\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = numbers(tmp_path)
    assert found == [*range(len(found))]
    assert len(found) > 500
    events = EventLog(tmp_path, file_bytes=10**9, file_s=DAY_S)
    events.append(line(len(found)))
    events.close()
    assert sorted(numbers(tmp_path)) == [*range(len(found) + 1)]


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "20260101T000000-1-000001.jsonl").write_bytes(line(1) + b"\n" + line(2)[:40])
    (tmp_path / "20260101T000001-1-000002.jsonl").write_bytes(line(3) + b"\n")
    (tmp_path / "20260101T000001-1-000002.jsonl.gz").write_bytes(gzip.compress(line(3) + b"\n"))
    whole = gzip.compress(line(4) + b"\n")
    (tmp_path / "20260101T000002-1-000003.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert numbers(tmp_path) == [1, 3]


def test_an_unwritable_folder_loses_records_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    events = EventLog(tmp_path / "file" / "events", file_bytes=1_000, file_s=DAY_S)
    for number in range(5):
        events.append(line(number))
    events.close()
    assert (events.written, events.dropped, events.lost) == (0, 0, 5)


def test_a_folder_that_is_gone_when_its_file_is_turned_over_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "events"
    events = EventLog(folder, file_bytes=1_000_000, file_s=1)
    events.append(line(0))
    while not events.written:
        pass
    folder.rename(tmp_path / "away")
    folder.write_text("in the way")
    while "not compressed" not in caplog.text:
        pass
    folder.unlink()
    events.append(line(1))
    events.close()
    assert numbers(folder) == [1]
    assert (events.written, events.dropped, events.lost) == (2, 0, 0)


def test_a_full_disk_loses_records_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands for the disk: a write beyond it is short, then fails."""
    monkeypatch.setattr(event_log, "RETRY_S", 0.0)
    monkeypatch.setattr(event_log, "COMPRESSION", 9)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    room = 3 * (len(line(0)) + 1) + 20
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        events = EventLog(tmp_path, file_bytes=1_000_000, file_s=DAY_S)
        for number in range(8):
            events.append(line(number))
        events.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    # Three lines a file; the fourth is cut short, and the next file begins with the fifth.
    assert numbers(tmp_path) == [0, 1, 2, 4, 5, 6]
    assert (events.written, events.lost) == (6, 2)


def test_a_folder_that_hangs_drops_what_does_not_fit_and_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named pipe without a reader stands for the folder: to open it takes for ever."""
    monkeypatch.setattr(event_log, "WAITING_BYTES", 10 * len(line(0)))
    monkeypatch.setattr(event_log, "CLOSE_S", 0.1)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(event_log, "_open_private", lambda *_: os.open(tmp_path / "pipe", 1))
    events = EventLog(tmp_path / "events", file_bytes=1_000_000, file_s=DAY_S)
    for number in range(1000):
        events.append(line(number % 10))
    events.close()
    assert events.dropped >= 980
    assert events.written == events.lost == 0
    os.close(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK))  # lets the thread end
