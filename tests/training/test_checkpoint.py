"""What a training saves: the best ones once each, on any file system, with the names of the classes."""

import dataclasses
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor, nn

from src.config import Config, RunConfig
from src.errors import RunError, UserError
from src.models import from_config
from src.runs import RunFolder
from src.training import checkpoint, evaluate
from src.training.checkpoint import TrainingProgress, restore_state, save_best, save_state
from src.training.state import create_train_state
from src.weights import read_checkpoint
from src.weights.files import read_weights
from tests.helpers import hostile


@pytest.fixture
def run(tmp_path):
    config = dataclasses.replace(Config(), model=hostile.MODEL, run=RunConfig(dir=str(tmp_path / "run"), keep_best=3))
    return RunFolder.create(config, "test", ["ant", "bee", "cat"]), config, from_config(hostile.MODEL)


def kept(run):
    files = [run.best, run.best.with_stem("best-2"), run.best.with_stem("best-3"), run.best.with_stem("best-4")]
    return [read_weights(file).epoch for file in files if file.exists()]


def test_a_kill_at_any_moment_keeps_the_best_once_each(run, monkeypatch):
    folder, config, network = run
    for epoch in (1, 4, 5, 7):
        save_best(folder, config, network, epoch)
    assert kept(folder) == [7, 5, 4]
    save_best(folder, config, network, 7)  # as a run that was killed before it saved its state repeats it
    assert kept(folder) == [7, 5, 4]
    link, save = checkpoint.link, checkpoint.save_weights

    def kill(*given):
        raise KeyboardInterrupt

    for links in range(3):
        calls = []

        def link_so_often(*given, calls=calls, links=links):
            calls.append(given)
            return link(*given) if len(calls) <= links else kill()

        monkeypatch.setattr(checkpoint, "link", link_so_often)
        monkeypatch.setattr(checkpoint, "save_weights", kill)
        with pytest.raises(KeyboardInterrupt):
            save_best(folder, config, network, 9 + links)
        monkeypatch.setattr(checkpoint, "link", link)
        monkeypatch.setattr(checkpoint, "save_weights", save)
        before = [7, 5, 4] if not links else kept(folder)
        save_best(folder, config, network, 9 + links)
        assert kept(folder) == list(dict.fromkeys([9 + links, *before]))[:3]


def test_where_rights_cannot_be_set_everything_is_saved(run, monkeypatch, capfd):
    folder, config, network = run

    def fail(*given, **named):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", fail)
    monkeypatch.setattr(Path, "chmod", fail)
    save_best(folder, config, network, 1)
    assert kept(folder) == [1]
    monkeypatch.setattr("mindspore.train.serialization._exec_save", fail)
    with pytest.raises(RunError, match=r"best\.ckpt cannot be written: Operation not permitted"):
        save_best(folder, config, network, 2)
    assert set(kept(folder)) == {1}
    assert capfd.readouterr().err == ""


def test_class_names_are_in_every_checkpoint_and_compared(run):
    folder, config, network = run
    state = create_train_state(config, lambda: from_config(hostile.MODEL), [0.1])
    save_state(folder, config, state, TrainingProgress(2))
    save_best(folder, config, network, 2)
    for file in (folder.best, folder.last):
        assert read_checkpoint(file).classes == ("ant", "bee", "cat")
    assert restore_state(folder, state, 3) == TrainingProgress(2)
    folder.classes.write_text("ant\nbee\ndog\n")
    with pytest.raises(UserError, match="is of other classes than"):
        restore_state(folder, state, 3)


class Constant(nn.Cell):
    """A network whose logits are these."""

    def __init__(self, logits):
        super().__init__()
        self.logits = Tensor(logits)

    def sample(self, *given):
        return ()

    def construct(self, images):
        return self.logits


def test_logits_that_are_not_finite_count_as_wrong_and_are_said(monkeypatch, caplog):
    logits = np.zeros((4, 3), np.float32)
    logits[:, 0] = 1
    logits[1] = np.nan
    logits[2, 0] = np.inf

    class Loader:
        def get_dataset_size(self):
            return 1

    batch = (np.zeros((4, 3, 2, 2), np.float32), np.zeros(4, np.int32))
    monkeypatch.setattr(evaluate, "batches", lambda loader, output_numpy: [batch])
    accuracy = evaluate.evaluate(Constant(logits), Loader(), 4)
    assert (accuracy.top1, accuracy.top5, accuracy.not_finite) == (50, 50, 2)
    assert "2 of 4 images have logits that are not finite: counted as wrong" in caplog.text
