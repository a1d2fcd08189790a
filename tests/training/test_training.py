"""Training: phases, one step, the optimiser, averages, resume."""

import logging
import os
import resource
import signal
from collections import Counter
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from src import commands
from src.config import Config, ModelConfig, TrainConfig
from src.data.datasets import open_dataset
from src.errors import Interrupted, RunError, UserError
from src.models import from_config
from src.progress import Progress
from src.runs import RunFolder
from src.runtime.signals import STOP
from src.schedules import Phase, plan_phases
from src.training.ema import Ema
from src.training.loss import Loss
from src.training.objectives import Classification
from src.training.optimizer import learning_rates, make_optimizer, make_scaler
from src.training.state import create_train_state, make_train_step
from src.training.step import TrainStep
from src.training.trainer import Trainer
from src.weights.files import CONFIG, read_arrays
from tests.helpers.configs import load


def make_config(tmp_path, *overrides):
    path = tmp_path / "config.yaml"
    path.write_text(
        """
        model: {name: skipvit_ti_16_224, tokens: 2(50%)+4, image_size: 16, patch_size: 4, embed_dim: 16, depth: 4,
                num_heads: 2, num_classes: 3}
        data: {batch_size: 6, workers: 1, hflip: 0.0}
        train: {epochs: 3, warmup_dense_epochs: 1}
        optimizer: {lr: 1e-2, lr_batch_size: null, warmup_epochs: 1}
        """
    )
    return load(path, overrides)


def run(config, tmp_path, name="run", resume=False):
    folder = RunFolder(tmp_path / name)
    if not resume:
        folder = RunFolder.create(
            replace(config, run=replace(config.run, dir=str(folder.path))), "test", ["a", "b", "c"]
        )
    build = lambda: from_config(config.model, config.train.amp_level)  # noqa: E731
    dataset = open_dataset(config.data)
    callbacks = commands._callbacks(config, dataset, folder)
    Trainer(config, dataset, build, folder, callbacks=callbacks, should_stop=lambda: STOP.requested).train(resume)
    return folder


@pytest.mark.parametrize(
    ("tokens", "epochs", "warmup", "phases"),
    [
        ("6(55%)+11", 300, 15, [("none", 1, 15), ("6(55%)+11", 16, 300)]),
        ("6(55%)+11", 300, 0, [("6(55%)+11", 1, 300)]),
        ("6(55%)+11", 10, 15, [("none", 1, 10)]),
        ("none", 300, 15, [("none", 1, 300)]),
    ],
)
def test_phases(tokens, epochs, warmup, phases):
    train = TrainConfig(epochs=epochs, warmup_dense_epochs=warmup)
    config = Config(model=ModelConfig(tokens=tokens), train=train)
    assert plan_phases(config) == [Phase(i, *phase, 224) for i, phase in enumerate(phases, 1)]


def test_a_run_with_warm_up_compiles_two_training_graphs(tmp_path, photos, compiled, caplog):
    """Counted where MindSpore compiles."""
    with caplog.at_level(logging.INFO, logger="skipvit"):
        folder = run(make_config(tmp_path, f"data.root={photos}", "train.epochs=4"), tmp_path)
    assert sum(name == "TrainStep" and new for name, new in compiled) == 2
    assert "2 training graphs will be compiled" in caplog.text
    assert "2 training graphs compiled" in caplog.text
    rows = folder.read_metrics()
    assert [(row.epoch, row.phase, row.tokens) for row in rows] == [
        (1, 1, "none"), (2, 2, "2(50%)+4"), (3, 2, "2(50%)+4"), (4, 2, "2(50%)+4")]  # fmt: skip
    for row in rows:
        assert 0 <= row.top1 <= row.top5 == 100.0
        assert row.img_s > 0
        assert row.loss is not None


def test_a_random_ranking_compiles_no_more_graphs_than_another(tmp_path, photos, compiled):
    """Its numbers are new in each step and each batch of an evaluation, and its graphs are not."""
    given = [f"data.root={photos}", "train.epochs=1", "train.warmup_dense_epochs=0", "model.tokens=2(50%,random)+4"]
    folder = run(make_config(tmp_path, *given), tmp_path)
    assert Counter(name for name, new in compiled if new) == {"TrainStep": 1, "SkipViT": 1}
    assert sum(name == "TrainStep" for name, _ in compiled) >= 3
    assert len(folder.read_metrics()) == 1


def test_training_learns_colours(tmp_path, photos):
    rows = run(make_config(tmp_path, f"data.root={photos}", "train.epochs=8"), tmp_path).read_metrics()
    assert rows[-1].loss < 0.7 * rows[0].loss
    assert rows[-1].top1 > 60


MIXED = ["data.mixup=0.8", "data.cutmix=1.0", "data.auto_augment=randaug-m9-mstd0.5", "data.random_erasing=0.25"]


def check_same(resumed, whole):
    expected, reached = read_arrays(whole.last), read_arrays(resumed.last)
    assert expected.keys() == reached.keys()
    for name in expected.keys() - {CONFIG}:  # it names the folder
        assert np.array_equal(expected[name], reached[name]), name
    timeless = [[replace(row, img_s=None, seconds=None) for row in run.read_metrics()] for run in (resumed, whole)]
    assert timeless[0] == timeless[1]
    assert not list(resumed.path.glob("**/*.partial*"))


@pytest.mark.slow
def test_a_run_that_is_stopped_and_resumed_ends_as_one_that_is_not(tmp_path, photos):
    """Stopped by a signal in each place that has one, killed between steps, and its last checkpoint damaged."""
    recipe = ["train.ema_decay=0.9", "run.keep_best=3", "run.save_every_steps=2", "model.drop_path_rate=0.2", *MIXED]
    config = make_config(tmp_path, f"data.root={photos}", "train.epochs=4", *recipe)
    whole = run(config, tmp_path, "whole")
    advance, calls = Progress.advance, []

    def stop_at(number, how):
        def advancing(self, units, note=""):
            advance(self, units, note)
            calls.append(units)
            if len(calls) == number:
                how()

        calls.clear()
        return advancing

    class KilledError(Exception):
        pass

    def kill():
        raise KilledError

    def interrupt():
        STOP.requested = signal.SIGINT

    def terminate():
        STOP.requested = signal.SIGTERM

    def stop(resume, number, how, error):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(error) as raised:
            patch.setattr(Progress, "advance", stop_at(number, how))
            run(config, tmp_path, "stopped", resume)
        STOP.requested = None
        return raised.value

    stopped = stop(False, 2, interrupt, Interrupted)  # in a step of epoch 1
    assert stopped.code == 130
    assert f"python train.py --resume {tmp_path / 'stopped'}" in str(stopped)
    stopped = stop(True, 2, terminate, Interrupted)  # in the evaluation of epoch 1
    assert stopped.code == 143
    stop(True, 5, kill, KilledError)  # after that, in epoch 2
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    last.unlink()
    last.write_bytes(damaged)
    check_same(run(config, tmp_path, "stopped", resume=True), whole)


def test_a_process_without_a_run_folder_writes_nothing_and_says_that_it_stopped(tmp_path, photos):
    """As those after the first of a job do."""
    config = make_config(tmp_path, f"data.root={photos}", "train.warmup_dense_epochs=0")

    def build():
        return from_config(config.model)

    trainer = Trainer(config, open_dataset(config.data), build, None, should_stop=lambda: signal.SIGTERM)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Interrupted) as stopped:
        trainer.train(resume=False)
    assert (stopped.value.code, str(stopped.value)) == (143, "SIGTERM: stopped")
    assert sorted(tmp_path.rglob("*")) == before


def test_without_any_whole_checkpoint_a_resume_is_refused(tmp_path, photos):
    short = [f"data.root={photos}", "train.warmup_dense_epochs=0"]
    folder = run(make_config(tmp_path, *short, "train.epochs=1"), tmp_path)
    folder.last.unlink()
    for path in (folder.last, folder.previous):
        path.write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"previous\.ckpt is damaged, or no checkpoint: .*; start a new run"):
        run(make_config(tmp_path, *short, "train.epochs=2"), tmp_path, resume=True)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, photos):
    folder = run(
        make_config(tmp_path, f"data.root={photos}", "train.epochs=1", "train.warmup_dense_epochs=0"), tmp_path
    )
    before = folder.last.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(RunError, match=r"last\.ckpt cannot be written: .*; what was saved before is whole"):
            run(make_config(tmp_path, f"data.root={photos}", "train.epochs=2"), tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert folder.last.read_bytes() == before
    assert not list(folder.path.glob("**/*.partial*"))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, photos):
    wild = ["optimizer.name=momentum", "optimizer.lr=1e30", "optimizer.warmup_epochs=0"]
    config = make_config(tmp_path, f"data.root={photos}", "train.warmup_dense_epochs=0", *wild)
    with pytest.raises(
        RunError, match=r"epoch 1, step \d: the loss is (nan|inf); learning rate 9\.7e\+29, loss scale 1;"
    ):
        run(config, tmp_path)


def test_too_many_steps_that_are_skipped_stop_the_run(tmp_path, photos):
    wild = ["optimizer.name=momentum", "optimizer.lr=1e30", "optimizer.warmup_epochs=0"]
    skip = ["train.on_nan=skip", "train.max_skips=1", "data.batch_size=4"]
    config = make_config(tmp_path, f"data.root={photos}", "train.warmup_dense_epochs=0", *wild, *skip)
    with pytest.raises(RunError, match=r"epoch 1, step \d: .*; 1 such steps were skipped; learning rate"):
        run(config, tmp_path)


def test_steps_that_are_not_finite_are_skipped_up_to_a_limit(tmp_path):
    config = make_config(tmp_path, "train.on_nan=skip")
    net = from_config(config.model)
    state = create_train_state(config, lambda: net, [1e-2] * 10)
    before = {p.name: p.asnumpy().copy() for p in net.get_parameters()}
    step = make_train_step(state, config, "none")
    images = Tensor(np.full((6, 3, 16, 16), np.nan, np.float32))
    _, finite = step(images, Tensor(LABELS))
    assert not finite.asnumpy()
    assert all((before[p.name] == p.asnumpy()).all() for p in net.get_parameters())
    step(Tensor(np.ones((6, 3, 16, 16), np.float32)), Tensor(LABELS))
    assert any((before[p.name] != p.asnumpy()).any() for p in net.get_parameters())


def test_a_folder_in_use_is_refused(tmp_path, photos):
    folder = run(make_config(tmp_path, f"data.root={photos}", "train.epochs=1"), tmp_path)
    in_use = pytest.raises(UserError, match=rf"is in use by process {os.getpid()} on .+; wait for it")
    with folder.lock(), in_use, folder.lock():
        pass
    with folder.lock():
        pass  # free again


class Quadratic(nn.Cell):
    """A parameter that decays and one that does not, with gradients that are easy to know."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(np.linspace(-1, 1, 12).reshape(3, 4), ms.float32), name="weight")
        self.bias = Parameter(Tensor(np.linspace(0.5, 1, 3), ms.float32), name="bias")

    def no_weight_decay(self):
        return set()

    def construct(self, x):
        return (self.weight * self.weight * x).sum() + (self.bias * self.bias).sum()


def test_adamw_is_adamw():
    """Against the formulas of the paper (arXiv 1711.05101, algorithm 2) in float64."""
    config = Config()
    net, rates, decay = Quadratic(), [0.01 * (1 + i % 3) for i in range(30)], config.optimizer.weight_decay
    optimizer = make_optimizer(config, net, rates)
    gradient = ms.value_and_grad(net, None, optimizer.parameters)
    x = Tensor(np.linspace(0.1, 2, 12).reshape(3, 4), ms.float32)
    values = {p.name: p.asnumpy().astype(np.float64) for p in net.get_parameters()}
    m, v = ({name: np.zeros_like(value) for name, value in values.items()} for _ in range(2))
    for t, rate in enumerate(rates, 1):
        optimizer(gradient(x)[1])
        for name, value in values.items():
            g = 2 * value * (x.asnumpy() if name == "weight" else 1)
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            step = m[name] / (1 - 0.9**t) / (np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8)
            values[name] = value - rate * (step + (decay * value if name == "weight" else 0))
    for parameter in net.get_parameters():
        assert np.abs(parameter.asnumpy() - values[parameter.name]).max() < 1e-4


def test_learning_rate_warms_up_and_falls_as_a_cosine(tmp_path):
    config = make_config(tmp_path, "train.epochs=10", "optimizer.warmup_epochs=2", "optimizer.min_lr=1e-4")
    rates = np.array(learning_rates(config, 5))
    assert len(rates) == 50
    assert (np.diff(rates[:11]) > 0).all()
    assert rates[0] == pytest.approx(1e-4)
    assert rates[10] == rates.max() == pytest.approx(1e-2)
    assert (np.diff(rates[10:]) < 0).all()
    middle = 1e-4 + (1e-2 - 1e-4) / 2
    assert rates[30] == pytest.approx(middle, rel=1e-6)
    assert rates[-1] < 2e-4
    short = make_config(tmp_path, "train.epochs=1", "optimizer.warmup_epochs=5")
    assert len(learning_rates(short, 5)) == 5


def test_the_average_follows_the_weights():
    net, average = Quadratic(), Quadratic()
    ema = Ema(net, average, decay=0.9)
    expected = net.weight.asnumpy().copy()
    for step in range(1, 6):
        net.weight.set_data(net.weight + 1)
        ema()
        kept = 0.9 * (1 - np.exp(-step / 2000))
        expected = kept * expected + (1 - kept) * net.weight.asnumpy()
        assert np.allclose(average.weight.asnumpy(), expected, atol=1e-5)


def one_step(config, labels, steps=1):
    ms.set_seed(0)
    net = from_config(config.model, config.train.amp_level)
    optimizer = make_optimizer(config, net, [1e-2] * 10)
    scaler = make_scaler(config)
    loss = Loss(3, config.train.label_smoothing)
    dynamic = config.train.loss_scale_type == "dynamic"
    network = net.with_tokens(config.model.tokens)
    objective = Classification(network, loss)
    step = TrainStep(objective, optimizer, scaler, None, config.train.clip_norm, dynamic).set_train()
    images = Tensor(np.random.RandomState(0).standard_normal((6, 3, 16, 16)).astype(np.float32))
    before = {p.name: p.asnumpy().copy() for p in net.get_parameters()}
    results = [step(images, Tensor(labels)) for _ in range(steps)]
    after = {p.name: p.asnumpy() for p in net.get_parameters()}
    return before, after, [float(loss.asnumpy()) for loss, _ in results], scaler, results


LABELS = np.array([0, 1, 2, 0, 1, 2], np.int32)


def test_one_real_step_changes_every_weight_and_lowers_the_loss(tmp_path):
    before, after, losses, _, _ = one_step(make_config(tmp_path), LABELS, steps=4)
    for name in before:
        assert np.isfinite(after[name]).all()
        assert (before[name] != after[name]).any(), name
    assert losses[-1] < losses[0]


def test_one_hot_labels_are_the_same_as_indices(tmp_path):
    config = make_config(tmp_path, "train.label_smoothing=0.1")
    _, by_index, first, _, _ = one_step(config, LABELS)
    _, by_row, second, _, _ = one_step(config, np.eye(3, dtype=np.float32)[LABELS])
    assert first == second
    assert all((by_index[name] == by_row[name]).all() for name in by_index)


def test_mixed_precision_with_dynamic_loss_scale(tmp_path):
    config = make_config(tmp_path, "train.amp_level=O2", "train.loss_scale_type=dynamic", "train.loss_scale=1024")
    _, after, losses, scaler, results = one_step(config, LABELS, steps=4)
    assert all(bool(finite.asnumpy()) for _, finite in results)
    assert losses[-1] < losses[0]
    assert all(array.dtype == np.float32 for array in after.values())
    assert float(scaler.scale_value.asnumpy()) == 1024
    plain = one_step(make_config(tmp_path), LABELS, steps=1)[2]
    assert losses[0] == pytest.approx(plain[0], abs=2e-2)


def test_an_overflow_changes_nothing_but_the_loss_scale(tmp_path):
    config = make_config(tmp_path, "train.amp_level=O2", "train.loss_scale_type=dynamic", "train.loss_scale=1e30")
    before, after, _, scaler, results = one_step(config, LABELS)
    assert not bool(results[0][1].asnumpy())
    assert all((before[name] == after[name]).all() for name in before)
    assert float(scaler.scale_value.asnumpy()) == pytest.approx(5e29)
