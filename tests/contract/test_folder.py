"""Folders that are replaced whole, whenever the writer dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.contract.folder import replaced_folder, restore_folder


def write(target: Path, text: str) -> None:
    with replaced_folder(target) as folder:
        (folder / "file").write_text(text, encoding="utf-8")


def read(target: Path) -> str:
    return (target / "file").read_text(encoding="utf-8")


def test_a_folder_is_made_and_replaced_and_nothing_is_left_beside(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "state"
    write(target, "one")
    assert read(target) == "one"
    write(target, "two")
    assert read(target) == "two"
    assert [path.name for path in target.parent.iterdir()] == ["state"]


def test_a_failed_writer_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "state"
    write(target, "one")
    with pytest.raises(TypeError):
        write(target, b"no text")  # type: ignore[arg-type]
    assert read(target) == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "state"
    (tmp_path / ".state.new").mkdir()
    (tmp_path / ".state.new" / "stale").touch()
    write(target, "one")
    assert [path.name for path in target.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_kill_between_the_two_renames_is_undone(tmp_path: Path) -> None:
    target = tmp_path / "state"
    write(target, "one")
    target.rename(tmp_path / ".state.old")
    restore_folder(target)
    assert read(target) == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_kill_after_both_renames_keeps_the_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "state"
    write(target, "one")
    target.rename(tmp_path / ".state.old")
    write_new = tmp_path / "state"
    write_new.mkdir()
    (write_new / "file").write_text("two", encoding="utf-8")
    restore_folder(target)
    assert read(target) == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_the_next_write_survives_an_unfinished_replacement(tmp_path: Path) -> None:
    target = tmp_path / "state"
    write(target, "one")
    target.rename(tmp_path / ".state.old")
    write(target, "two")
    assert read(target) == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_nothing_to_restore_is_no_error(tmp_path: Path) -> None:
    restore_folder(tmp_path / "state")
    assert list(tmp_path.iterdir()) == []
