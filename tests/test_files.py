"""Files are whole or not there."""

from pathlib import Path

import pytest

from expertise._files import atomic_file, atomic_folder


def test_a_file_appears_when_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with atomic_file(target) as part:
        part.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_after_an_error_the_old_file_stands_and_nothing_is_left(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(target) as part:
        part.write_text(f"half {1 / 0}")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for text in ("first", "second"):
        with atomic_folder(target) as part:
            (part / "inner").mkdir()
            (part / "inner" / text).write_text(text)
    assert [file.name for file in (target / "inner").iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [target]


def test_after_an_error_the_old_folder_stands(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as part:
        (part / "half").write_text(f"half {1 / 0}")
    assert [file.name for file in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]
