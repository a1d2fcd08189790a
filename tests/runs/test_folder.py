"""The run folder: made once, locked, and nothing of another's is touched before."""

import dataclasses
import errno
import fcntl
import logging

import pytest

from src.config import Config, RunConfig
from src.errors import UserError
from src.runs import RunFolder, folder
from src.runs.metrics import read_metrics


def config(path):
    return dataclasses.replace(Config(), run=RunConfig(dir=str(path)))


def content(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file() and file.name != "lock"}


def test_of_two_processes_that_make_one_folder_one_is_refused(tmp_path, monkeypatch):
    """The second looked before the first had written, and comes to the lock while the first writes, or after."""
    run = RunFolder.create(config(tmp_path / "run"), "a", ["ant"])
    before = content(run.path)
    check = RunFolder.check_unused
    looks = []

    def looked_before(self):
        looks.append(self)
        if len(looks) > 1:
            check(self)

    monkeypatch.setattr(RunFolder, "check_unused", looked_before)
    with pytest.raises(UserError, match="holds a run already"):
        RunFolder.create(config(tmp_path / "run"), "a", ["bee"])
    looks.clear()
    with run.lock(), pytest.raises(UserError, match="in use by process"):
        RunFolder.create(config(tmp_path / "run"), "a", ["bee"])
    assert content(run.path) == before


def test_two_runs_of_one_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder.time, "strftime", lambda form: "now")
    made = [RunFolder.create(Config(), "a", ["ant"]).path.name for _ in range(3)]
    assert made == ["a-now", "a-now-2", "a-now-3"]


def test_a_folder_of_something_else_is_refused_and_a_torn_beginning_is_not(tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    for name in ("lock", "classes.txt", "config.7.partial.yaml"):
        (tmp_path / "run" / name).touch()
    (tmp_path / "run/thesis.tex").touch()
    with pytest.raises(UserError, match=r"run holds other files \(thesis\.tex\); name a new or an empty folder"):
        RunFolder.create(config(tmp_path / "run"), "a", ["ant"])
    (tmp_path / "run/thesis.tex").unlink()
    run = RunFolder.create(config(tmp_path / "run"), "a", ["ant"])
    assert run.read_classes() == ("ant",)
    assert not list(run.path.glob("*.partial*"))


def test_without_locks_a_run_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    run = RunFolder.create(config(tmp_path / "run"), "a", ["ant"])

    def fail(*given):
        raise OSError(errno.ENOSYS, "Function not implemented")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, fail)
    with caplog.at_level(logging.WARNING, logger="skipvit"), run.lock():
        pass
    assert "this file system has no locks; see that no other process trains in it" in caplog.text


def test_numbers_that_would_overflow_are_unknown(tmp_path):
    (tmp_path / "m.csv").write_text(
        "epoch,phase,tokens,loss,lr,top1,top5,img_s,seconds\n1,1,none,1e308,-1e308,nan,inf,3e38,1\n"
    )
    (row,) = read_metrics(tmp_path / "m.csv")
    assert (row.loss, row.lr, row.top1, row.top5, row.img_s) == (None, None, None, None, 3e38)
