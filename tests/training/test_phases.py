"""Runs over several phases: graphs, metrics, evaluation, and resuming at and around a border."""

import logging

import pytest

from src.progress import Progress
from src.training import trainer
from src.training.evaluate import Accuracy
from tests.training.test_training import check_same, make_config, run

SMALL = ["model.depth=2", "model.tokens=none", "data.auto_augment=randaug-m9-mstd0.5"]
FOUR = (
    "train.phases=[{epochs: 1, image_size: 8, auto_augment: none}, {epochs: 1, auto_augment: randaug-m1},"
    " {epochs: 1, tokens: 1(50%)+2}, {epochs: 1, tokens: none}]"
)


def four(tmp_path, photos, *overrides):
    return make_config(tmp_path, f"data.root={photos}", *SMALL, FOUR, *overrides)


@pytest.mark.slow
def test_four_phases_compile_four_graphs_and_say_what_they_were(tmp_path, photos, compiled, caplog):
    """Counted where MindSpore compiles. Evaluation needs two more: dense, and with skipping."""
    with caplog.at_level(logging.INFO, logger="skipvit"):
        folder = run(four(tmp_path, photos), tmp_path)
    assert sum(name == "TrainStep" and new for name, new in compiled) == 4
    assert sum(name == "SkipViT" and new for name, new in compiled) == 3
    assert "phase 1, epochs 1-1: none on images of 8, tokens leaving each block (5, 5)" in caplog.text
    assert "4 training graphs will be compiled" in caplog.text
    assert "done: 4 training graphs compiled" in caplog.text
    rows = folder.read_metrics()
    assert [(row.epoch, row.phase, row.tokens, row.image_size) for row in rows] == [
        (1, 1, "none", "8"), (2, 2, "none", "16"), (3, 3, "1(50%)+2", "16"), (4, 4, "none", "16")]  # fmt: skip
    assert all(row.top5 == 100.0 and row.loss is not None for row in rows)


class KilledError(Exception):
    pass


def stopped_after(steps, config, tmp_path, name, resume=False):
    """Run until so many steps are done, and end as a run that is killed."""
    advance, done = Progress.advance, []

    def advancing(self, units, note=""):
        if self.title == "training":
            done.append(units)
            if len(done) > steps:
                raise KilledError
        advance(self, units, note)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Progress, "advance", advancing)
        run(config, tmp_path, name, resume)


@pytest.mark.slow
def test_a_run_that_is_killed_at_a_border_or_beside_it_ends_as_one_that_is_not(tmp_path, photos):
    """Three steps an epoch: killed in the first step of phase 2, and in the second of phase 4."""
    config = four(tmp_path, photos, "train.ema_decay=0.9", "run.save_every_steps=1", "model.drop_path_rate=0.2")
    whole = run(config, tmp_path, "whole")
    stopped_after(3, config, tmp_path, "killed")
    stopped_after(7, config, tmp_path, "killed", resume=True)
    check_same(run(config, tmp_path, "killed", resume=True), whole)


@pytest.mark.long
def test_a_list_of_two_trains_as_a_dense_warm_up(tmp_path, photos):
    sugar = make_config(tmp_path, f"data.root={photos}", *SMALL, "model.tokens=1(50%)+2")
    listed = make_config(
        tmp_path, f"data.root={photos}", *SMALL, "model.tokens=1(50%)+2", "train.phases=[{epochs: 1, tokens: none},"
        " {epochs: 2}]"
    )  # fmt: skip
    check_same(run(listed, tmp_path, "listed"), run(sugar, tmp_path, "sugar"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokens", "evaluated"), [(["model.tokens=1(90%)"], ["none", "1(90%)"]), (["train.tokens=1(90%)"], ["none"] * 2)]
)
def test_a_phase_is_evaluated_under_its_schedule_or_under_the_models(tmp_path, photos, monkeypatch, tokens, evaluated):
    """Under the model's where `train.tokens` is set; whichever it is, at the final size."""
    seen = []

    def evaluate(network, *_):
        seen.append((str(network.plan.schedule), network.grid))
        return Accuracy(1, 1, 1)

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    phases = "train.phases=[{epochs: 1, tokens: none, image_size: 8}, {epochs: 1}]"
    rows = run(make_config(tmp_path, f"data.root={photos}", *SMALL, *tokens, phases), tmp_path).read_metrics()
    assert [row.tokens for row in rows] == ["none", "1(90%)"]
    assert seen == [(spec, (4, 4)) for spec in evaluated]
