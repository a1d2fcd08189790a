"""Records of experiments: what they hold, what they do not, and that table and plots can be made of them again."""

import shutil

import pytest

from src.config import dump, load
from src.errors import UserError
from src.experiments.experiment import Experiment
from src.experiments.paired import Rule
from src.experiments.records import without_paths
from src.experiments.variants import Variant
from tests.experiments.test_costs import QUICK, train
from tests.helpers.commands import ROOT, run_here

GROUPS = {"rows": [Variant("6(55%)+11"), Variant("none", ("train.phases=[{epochs: 1}, {epochs: 1}]",), "in phases")]}
LOG = """2026-11-27 10:00:00,000 run folder: {run}
2026-11-27 10:00:00,001 1,000 training images in {data}, https://example.org/a/b
2026-11-27 10:00:30,000 training 500/2000 img, 00:10 left
2026-11-27 10:01:00,000 epoch 1/2 none: loss 2.0, 345 img/s, 00:10 left
"""


def plan(output, root):
    settings = {"train.epochs": 2, "train.warmup_dense_epochs": 0, "data.root": str(root)}
    return Experiment.plan(QUICK, load(QUICK, settings), settings, GROUPS, 2, output, Rule())


@pytest.fixture
def output(tmp_path):
    """An experiment's folder, as if it had been trained on data whose path has a space."""
    data = tmp_path / "my data"
    found = plan(tmp_path / "out", data)
    for number, job in enumerate(found.jobs):
        train(job, [40.0 + number, 50.0 - number], seconds=2.0)
        job.run.config.write_text(dump(job.config))
        job.run.log.write_text(LOG.format(run=job.run.path, data=data))
        job.run.environment.write_text('[{"hardware": "AMD EPYC, 2 cores"}]')
        job.run.last.parent.mkdir()
        job.run.last.write_bytes(b"weights")
        job.run.path.with_suffix(".output").write_text("said")
    found.write()
    (tmp_path / "out" / "accuracy.png").write_bytes(b"\x89PNG")
    return tmp_path / "out"


def record(folder, *arguments):
    return run_here("src.tools.record", *arguments, cwd=folder)


def test_a_record_has_everything_but_weights_and_paths(tmp_path, output):
    done = record(tmp_path, "out", "kept/one")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "record: kept/one, 33 files of 6 trainings; write its README.md\n"
    files = {str(path.relative_to(tmp_path / "kept/one")) for path in (tmp_path / "kept/one").rglob("*.*")}
    run = {f"{name}/seed{seed}/{file}" for name in ("none", "6_55_11", "in_phases") for seed in (0, 1)
           for file in ("config.yaml", "metrics.csv", "images.json", "environment.json", "train.log")}  # fmt: skip
    assert files == run | {"results.csv", "table.md", "accuracy.png"}
    for name in files - {"accuracy.png"}:
        text = (tmp_path / "kept/one" / name).read_text()
        assert str(tmp_path) not in text
        assert "training 500/2000" not in text
    log = (tmp_path / "kept/one/none/seed1/train.log").read_text().splitlines()
    assert [line.partition(",00")[2][2:] for line in log] == [
        "run folder: seed1", "1,000 training images in my data, https://example.org/a/b",
        "epoch 1/2 none: loss 2.0, 345 img/s, 00:10 left"]  # fmt: skip
    for name in ("results.csv", "none/seed0/metrics.csv"):
        assert (tmp_path / "kept/one" / name).read_text() == (output / name).read_text()


def test_table_and_plots_can_be_made_of_a_record_again(tmp_path, output):
    assert record(tmp_path, output, "kept").returncode == 0
    shutil.copytree(tmp_path / "kept", tmp_path / "again")
    for name in ("table.md", "results.csv"):
        (tmp_path / "again" / name).unlink()
    shutil.rmtree(output)
    found = plan(tmp_path / "again", "my data")
    found.keep_finished()
    found.write()
    for name in ("table.md", "results.csv"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "kept" / name).read_text()
    found.draw()
    assert (tmp_path / "again/cost-curves.png").stat().st_size > 1000


def test_without_a_dense_training_nothing_is_compared(tmp_path, output):
    for seed in (0, 1):
        cut(output / f"none/seed{seed}/metrics.csv")
    with pytest.raises(UserError, match=r"no dense training is finished in .*out, and all others are compared with it"):
        plan(output, tmp_path / "my data").keep_finished()


def test_a_later_record_of_the_same_experiment_replaces_it_but_for_a_persons_words(tmp_path, output):
    record(tmp_path, "out", "kept")
    (tmp_path / "kept/README.md").write_text("words")
    (output / "accuracy.png").write_bytes(b"\x89PNG, new")
    done = record(tmp_path, "out", "kept")
    assert done.stdout == "record: kept, 33 files of 6 trainings\n"
    assert (tmp_path / "kept/README.md").read_text() == "words"
    assert (tmp_path / "kept/accuracy.png").read_bytes() == b"\x89PNG, new"
    (output / "accuracy.png").unlink()
    done = record(tmp_path, "out", "kept")
    assert done.stderr == (
        "error: kept holds files that are not of out (accuracy.png); name another folder\n"
    )  # it would be taken for a plot of these figures


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: (out / "results.csv").unlink(), "out holds no results.csv; name the --output of"),
        (lambda out: shutil.rmtree(out / "none/seed1"), "out/none/seed1 of results.csv is missing"),
        (lambda out: cut(out / "6_55_11/seed0/metrics.csv"), "out/6_55_11/seed0 is not finished; a record is of whole"),
        (lambda out: change(out / "results.csv"), "out/none/seed0 is not what results.csv says; write that again with"),
    ],
)
def test_what_is_not_whole_is_refused_and_nothing_written(tmp_path, output, spoil, message):
    spoil(output)
    done = record(tmp_path, "out", "kept")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr
    assert not (tmp_path / "kept").exists()


def cut(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def change(path):
    path.write_text(path.read_text().replace(",50.0,50.0,", ",60.0,60.0,", 1))


def test_an_evaluation_has_a_record_too(tmp_path):
    (tmp_path / "matrix").mkdir()
    for name in ("evaluation.csv", "table.md", "classes.csv", "pairs.csv", "predictions.csv", "shares.png"):
        (tmp_path / "matrix" / name).write_text("a,b\n")
    assert record(tmp_path, "matrix", "kept").stdout.startswith("record: kept, 5 files of 0 trainings")
    assert "takes two folders" in record(tmp_path, "matrix").stderr
    assert "takes two folders" in record(tmp_path, "matrix", "kept", "train.epochs=2").stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("root: /home/jane/data", "root: data"),
        ('"/home/jane/x.ckpt", and (/mnt/disk)', '"x.ckpt", and (disk)'),
        ("--resume=/srv/runs/one/", "--resume=one"),
        ("345 img/s, 1/12, 6(55%)+11, a/b/c, ../shared/x, https://a.org/b/c, +1 / -1", None),
    ],
)
def test_paths_are_cut_to_their_last_part(text, expected):
    assert without_paths(text) == (text if expected is None else expected)


def test_no_shipped_record_names_a_path_of_a_machine():
    files = [path for path in (ROOT / "records").rglob("*") if path.suffix in (".csv", ".md", ".json", ".yaml", ".log")]
    assert len(files) > 30
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert without_paths(text) == text, path
    for folder in (ROOT / "records").iterdir():
        assert not folder.is_dir() or (folder / "README.md").is_file()
