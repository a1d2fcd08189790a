"""Files and folders that are written whole or not at all."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.errors import UserError
from src.files import link, lock, make_folder, set_mode, write_text, written_whole


def test_a_file_takes_the_place_of_another_whole(tmp_path):
    write_text(tmp_path / "a.txt", "one\r\n")
    with written_whole(tmp_path / "a.txt", previous=tmp_path / "b.txt") as partial:
        partial.write_text("two")
        assert (tmp_path / "a.txt").read_bytes() == b"one\r\n"
        assert ".partial" in partial.name
        assert partial.suffix == ".txt"
    assert (tmp_path / "a.txt").read_text() == "two"
    assert (tmp_path / "b.txt").read_bytes() == b"one\r\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_what_fails_leaves_the_file_before_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "one")
    with pytest.raises(RuntimeError, match="no"), written_whole(tmp_path / "a.txt") as partial:
        partial.write_text("two")
        partial.with_name(f"{partial.stem}.tmp").write_text("a library's own")
        raise RuntimeError("no")
    assert (tmp_path / "a.txt").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_written_whole_too(tmp_path):
    with written_whole(tmp_path / "a") as partial:
        (partial / "b").mkdir(parents=True)
        (partial / "b" / "c.txt").write_text("c")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "c"
    with pytest.raises(OSError, match="not empty"), written_whole(tmp_path / "a") as partial:
        (partial / "b").mkdir(parents=True)
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "c"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output .*/file/a cannot be made: Not a directory; name another folder"):
        make_folder(tmp_path / "file" / "a", "--output")


def failing(*numbers):
    """Return a function that fails with each error in turn, as on a file system that lacks it."""
    left = list(numbers)

    def fail(*given, **named):
        raise OSError(left[0] if len(left) == 1 else left.pop(0), "simulated")

    return fail


def test_where_folders_cannot_be_flushed_files_are_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    write_text(tmp_path / "a.txt", "one")
    assert (tmp_path / "a.txt").read_text() == "one"
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="simulated"):
        write_text(tmp_path / "a.txt", "two")
    assert (tmp_path / "a.txt").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK])
def test_where_there_are_no_links_a_copy_is_made(tmp_path, monkeypatch, number):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    monkeypatch.setattr(os, "link", failing(number))
    link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").write_text("three")
    assert (tmp_path / "b").read_text() == "one"
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    with pytest.raises(OSError, match="simulated"):
        link(tmp_path / "a", tmp_path / "b")


def test_where_there_are_no_rights_they_stay(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    monkeypatch.setattr(Path, "chmod", failing(errno.EPERM))
    set_mode(tmp_path / "a", 0o644)
    monkeypatch.setattr(Path, "chmod", failing(errno.EIO))
    with pytest.raises(OSError, match="simulated"):
        set_mode(tmp_path / "a", 0o644)


def test_locks_fall_back_to_the_other_kind_and_say_where_there_is_none(tmp_path, monkeypatch):
    with (tmp_path / "a").open("a+") as file, (tmp_path / "a").open("a+") as other:
        assert lock(file) is True
        assert lock(other) is False
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOSYS))
    with (tmp_path / "a").open("a+") as file:
        assert lock(file) is True
        code = f"import fcntl; fcntl.lockf(open({str(tmp_path / 'a')!r}, 'a+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
        assert "BlockingIOError" in done.stderr
        monkeypatch.setattr(fcntl, "lockf", failing(errno.ENOLCK))
        assert lock(file) is None
        monkeypatch.setattr(fcntl, "lockf", failing(errno.EIO))
        with pytest.raises(OSError, match="simulated"):
            lock(file)
