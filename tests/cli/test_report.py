"""The command that writes a report: its file, what it may change, and mistakes."""

import re

import pytest

from src.errors import UserError
from src.tools import report
from tests.helpers.commands import run_module
from tests.visuals.runs import write_images, write_run


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A finished run."""
    return write_run(tmp_path_factory.mktemp("runs") / "finished", images, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "run folder nowhere holds no config.yaml"),
        (["RUN", "nowhere"], "run folder nowhere holds no config.yaml"),
        (["RUN", "--output", "no/such/r.html"], "--output no/such/r.html: no/such is no folder"),
        (["RUN", "--output", "."], "--output .: a report is a page; name a file that ends in .html"),
        (["RUN", "model.tokens=none"], "a report may only be given other data.*"),
        (["data.root=x"], "name the folder of a run"),
        ([], "name the folder of a run"),
    ],
)
def test_a_mistake_is_one_line(finished, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        report.main([str(finished.path) if argument == "RUN" else argument for argument in arguments])
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_data_that_has_moved_is_an_override(images, tmp_path, capsys):
    moved = tmp_path / "moved"
    moved.symlink_to(images)
    run = write_run(tmp_path / "run", moved, 5)
    moved.unlink()
    report.main([str(run.path)])
    assert "The picture cannot be drawn: data.root" in run.report.read_text(encoding="utf-8")
    report.main([str(run.path), f"data.root={images}"])
    text = run.report.read_text(encoding="utf-8")
    assert "cannot be drawn" not in text
    assert len(re.findall(r'<img src="data:image/(?:png|jpeg);', text)) == 1
    assert capsys.readouterr().out == 2 * f"report: {run.report}\n"


def test_several_runs_are_one_page_beside_the_first(images, tmp_path, capsys):
    others = [write_run(tmp_path / name, images, 2) for name in ("a", "b")]
    report.main([str(run.path) for run in others])
    assert capsys.readouterr().out == f"report: {tmp_path / 'report.html'}\n"
    assert "2 runs compared" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_command(finished, tmp_path):
    done = run_module("src.tools.report", finished.path, "--output", tmp_path / "r.html")
    assert (done.returncode, done.stdout) == (0, f"report: {tmp_path / 'r.html'}\n"), done.stderr
    refused = run_module("src.tools.report", "nowhere")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("error: run folder nowhere holds no config.yaml")
