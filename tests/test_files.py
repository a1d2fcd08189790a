"""Files and folders that are written whole or not at all."""

import pytest

from src.errors import UserError
from src.files import make_folder, write_text, written_whole


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
