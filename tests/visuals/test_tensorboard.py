"""TensorBoard's events: those of the metrics, once each, at no cost to the training."""

import io
import logging
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from src.training import trainer
from src.visuals import tensorboard
from src.visuals.tensorboard import METRICS, TensorBoardCallback
from tests.helpers.commands import ROOT
from tests.helpers.configs import load
from tests.training.test_training import check_same, make_config, run


def records(folder):
    """The events of a folder's files, in the order in which TensorBoard reads them; a torn end is left out."""
    for path in sorted(folder.glob("events.*")):
        with path.open("rb") as file:
            while len(head := file.read(12)) == 12:
                data = file.read(struct.unpack("Q", head[:8])[0])
                if len(file.read(4)) == 4:
                    yield Event.FromString(data)


def shown(folder):
    """What TensorBoard shows: {tag: {step: value}}, after the starts that take back what comes after them."""
    points = {}
    for event in records(folder):
        if event.session_log.status == SessionLog.START:
            points = {tag: {s: v for s, v in steps.items() if s < event.step} for tag, steps in points.items()}
        for value in event.summary.value:
            steps = points.setdefault(value.tag, {})
            assert event.step not in steps, "doubled"
            assert event.wall_time > 0
            steps[event.step] = value.simple_value if value.HasField("simple_value") else value.image
    return points


def check_board(folder, epochs, pictures):
    """The points are those of metrics.csv, and the pictures of these epochs."""
    points = shown(folder.tensorboard)
    assert set(points) == {*METRICS, "tokens"}
    for metric in METRICS:
        values = {row.epoch: getattr(row, metric) for row in folder.read_metrics()}
        expected = {epoch: value for epoch, value in values.items() if value is not None}
        assert points[metric] == pytest.approx(expected, rel=1e-6), metric
    assert len(folder.read_metrics()) == epochs
    assert sorted(points["tokens"]) == pictures
    for picture in points["tokens"].values():
        size = Image.open(io.BytesIO(picture.encoded_image_string)).size
        assert size == (picture.width, picture.height)


@pytest.fixture
def config(tmp_path, photos):
    small = ["model.depth=2", "model.tokens=1(50%)+2", "train.warmup_dense_epochs=0"]
    recipe = ["data.mixup=0.8", "model.drop_path_rate=0.2", "run.save_every_steps=2"]
    return make_config(tmp_path, f"data.root={photos}", *small, *recipe)


class KilledError(Exception):
    pass


@pytest.mark.long
def test_a_board_changes_nothing_and_a_resume_doubles_nothing(tmp_path, config, monkeypatch):
    """Killed where the points of an epoch are written and its checkpoint is not, and again between two steps."""
    without = run(config, tmp_path, "without")
    assert not without.tensorboard.exists()
    config = replace(config, train=replace(config.train, tensorboard=True))
    whole = run(config, tmp_path, "whole")
    check_same(whole, without)
    check_board(whole, 3, [1, 3])

    save, note = trainer.save_state, TensorBoardCallback.on_step

    def kill_at_second_epoch(folder, config, state, progress):
        if progress.epoch == 2:
            raise KilledError
        save(folder, config, state, progress)

    def kill_in_third_epoch(self, step, loss):
        note(self, step, loss)
        if step == 9:
            raise KilledError

    monkeypatch.setattr(trainer, "save_state", kill_at_second_epoch)
    with pytest.raises(KilledError):
        run(config, tmp_path, "killed")
    monkeypatch.setattr(trainer, "save_state", save)
    monkeypatch.setattr(TensorBoardCallback, "on_step", kill_in_third_epoch)
    with pytest.raises(KilledError):
        run(config, tmp_path, "killed", resume=True)
    monkeypatch.setattr(TensorBoardCallback, "on_step", note)
    resumed = run(config, tmp_path, "killed", resume=True)
    check_same(resumed, without)
    check_board(resumed, 3, [1, 3])
    assert len(list(resumed.tensorboard.glob("events.*"))) == 3
    written = [event.step for event in records(resumed.tensorboard) if event.summary.value]
    assert written.count(2) == 2 * len(METRICS), "nothing was there to be taken back"
    losses, expected = (shown(folder.tensorboard / "steps")["step_loss"] for folder in (resumed, whole))
    assert losses.keys() >= expected.keys()
    assert {step: losses[step] for step in expected} == expected


@pytest.mark.slow
def test_a_board_that_is_switched_on_late_has_the_epochs_before(tmp_path, config):
    config = replace(config, train=replace(config.train, epochs=2, eval_every=2))
    folder = run(config, tmp_path)
    config = replace(config, train=replace(config.train, epochs=3, tensorboard=True))
    run(config, tmp_path, resume=True)
    check_board(folder, 3, [3])


def test_a_picture_that_fails_is_a_warning(tmp_path, config, monkeypatch, caplog):
    def fail(*arguments):
        raise ValueError("no\nway")

    monkeypatch.setattr(tensorboard, "token_sheet", fail)
    config = replace(config, train=replace(config.train, epochs=1, tensorboard=True))
    with caplog.at_level(logging.WARNING, logger="skipvit"):
        folder = run(config, tmp_path)
    assert "TensorBoard misses something: ValueError: no\n" in caplog.text
    assert set(shown(folder.tensorboard)) == set(METRICS)


def test_nothing_of_it_is_imported_when_it_is_off():
    code = "import src.commands, src.training.trainer, sys; print({'tensorboardX', 'src.visuals'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_by_default_there_is_neither_board_nor_report(tmp_path):
    (tmp_path / "empty.yaml").write_text("{}")
    train = load(tmp_path / "empty.yaml").train
    assert (train.tensorboard, train.report) == (False, False)


@pytest.mark.slow
def test_train_and_resume_by_command(tmp_path, photos):
    """A run with neither; then gone on with both, though its epochs are done but one."""

    def train(*arguments):
        command = [sys.executable, ROOT / "train.py", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = ["model.embed_dim=16", "model.num_heads=2", "model.depth=4", "model.tokens=2(50%)+4", "data.workers=1",
             "runtime.fused_kernels=off", "data.batch_size=6", f"data.root={photos}"]  # fmt: skip
    quick = ["--config", ROOT / "configs/quickstart.yaml", "train.epochs=1", "run.dir=run", "train.report=false"]
    assert "report" not in train(*quick, *small)
    folder = tmp_path / "run"
    assert not {"report.html", "tensorboard"} & {path.name for path in folder.iterdir()}
    more = ["train.epochs=2", "train.report=true", "train.tensorboard=true"]
    assert "report: run/report.html\n" in train("--resume", "run", *more)
    text = (folder / "report.html").read_text(encoding="utf-8")
    last = (folder / "metrics.csv").read_text().splitlines()[-1].split(",")
    for cell in last:
        assert f"<td>{cell}</td>" in text
    assert set(shown(folder / "tensorboard")["loss"]) == {1, 2}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
