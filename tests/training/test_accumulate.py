"""Accumulated gradients: several batches make the update of one large batch."""

import signal

import numpy as np
import pytest
from mindspore import Tensor

from src.errors import Interrupted
from src.models import from_config
from src.progress import Progress
from src.runtime.signals import STOP
from src.training.optimizer import learning_rates, peak_lr
from src.training.state import create_train_state, make_train_step
from src.weights.files import read_arrays
from tests.training.test_training import LABELS, check_same, make_config, run

RECIPE = ["train.ema_decay=0.9", "train.loss_scale_type=dynamic", "train.loss_scale=1024", "train.clip_norm=0.5"]

SMALL = [*RECIPE, "model.depth=1", "model.tokens=none"]


def updates(config, parts, images, weights=None):
    """Return the weights before, and weights, averages, loss scale and result after each update by the parts."""
    state = create_train_state(config, lambda: from_config(config.model), [1e-2] * 10)
    parameters = state.parameters()
    for name, array in (weights or {}).items():
        parameters[name].set_data(Tensor(array))
    before = {name: weight.asnumpy().copy() for name, weight in parameters.items()}
    step = make_train_step(state, config, "none")
    results = []
    for _ in range(2):
        for part in np.split(np.arange(len(images)), parts):
            result = step(Tensor(images[part]), Tensor(LABELS[part]))
            results += [] if result is None else [(float(result[0].asnumpy()), bool(result[1].asnumpy()))]
    return before, {name: weight.asnumpy() for name, weight in parameters.items()}, results


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(0).standard_normal((6, 3, 16, 16)).astype(np.float32)


def test_two_batches_of_three_are_one_of_six(tmp_path, images):
    before, whole, expected = updates(make_config(tmp_path, *SMALL), 1, images)
    config = make_config(tmp_path, *SMALL, "train.accumulate=2", "data.batch_size=3")
    _, parts, results = updates(config, 2, images, before)
    assert len(results) == len(expected) == 2
    assert np.allclose(results, expected, atol=1e-5)
    for name, array in whole.items():
        assert np.allclose(parts[name], array, atol=2e-5), name
    moved = max(np.abs(whole[name] - before[name]).max() for name in whole if name.startswith("network."))
    assert moved > 1e-2


@pytest.mark.slow
def test_a_part_that_overflows_leaves_out_its_update_and_no_other(tmp_path, images):
    config = make_config(tmp_path, *SMALL, "train.accumulate=2", "data.batch_size=3")
    spoilt = images.copy()
    spoilt[0] = np.nan  # of the first part
    before, after, results = updates(config, 2, spoilt)
    assert [finite for _, finite in results] == [False, False]
    assert all(np.array_equal(before[name], after[name]) for name in before if name.startswith("network."))
    assert float(after["scaler.scale_value"]) == 256
    state = create_train_state(config, lambda: from_config(config.model), [1e-2] * 10)
    step = make_train_step(state, config, "none")
    finite = []
    for batch in (spoilt[:3], images[3:], images[:3], images[3:]):
        result = step(Tensor(batch), Tensor(LABELS[:3]))
        finite += [] if result is None else [bool(result[1].asnumpy())]
    assert finite == [False, True]
    assert all(np.isfinite(weight.asnumpy()).all() for weight in state.network.get_parameters())


def test_learning_rate_and_steps_are_those_of_the_large_batch(tmp_path):
    small = make_config(tmp_path, "data.batch_size=8", "train.accumulate=4", "optimizer.lr_batch_size=64")
    large = make_config(tmp_path, "data.batch_size=32", "optimizer.lr_batch_size=64")
    assert peak_lr(small) == peak_lr(large) == pytest.approx(0.5e-2)
    assert learning_rates(small, 5) == learning_rates(large, 5)


@pytest.mark.long
def test_a_run_has_the_steps_and_images_of_the_large_batch_and_resumes_exactly(tmp_path, photos):
    """18 images: three updates of two batches of three an epoch; stopped after the second update of the last epoch."""
    common = [f"data.root={photos}", "train.epochs=2", "model.tokens=none", "run.save_every_steps=1", *RECIPE]
    parts = make_config(tmp_path, *common, "data.batch_size=3", "train.accumulate=2", "model.drop_path_rate=0.2")
    whole = run(parts, tmp_path, "whole")
    assert int(read_arrays(whole.last)["optimizer.global_step"]) == 6
    advance, calls = Progress.advance, []

    def advancing(self, units, note=""):
        advance(self, units, note)
        calls.append(units)
        if self.title == "training" and sum(calls[0] == units for units in calls) == 5:
            STOP.requested = signal.SIGINT

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Progress, "advance", advancing)
        run(parts, tmp_path, "stopped")
    STOP.requested = None
    check_same(run(parts, tmp_path, "stopped", resume=True), whole)


@pytest.mark.long
def test_a_run_of_small_batches_ends_as_that_of_the_large_one(tmp_path, photos):
    common = [f"data.root={photos}", "train.epochs=2", "model.tokens=2(50%)+4", *RECIPE]
    one = run(make_config(tmp_path, *common, "data.batch_size=6"), tmp_path, "one")
    two = run(make_config(tmp_path, *common, "data.batch_size=3", "train.accumulate=2"), tmp_path, "two")
    expected, found = read_arrays(one.last), read_arrays(two.last)
    for name in expected:
        if name.startswith(("network.", "ema.")):
            assert np.allclose(expected[name], found[name], atol=1e-3), name
    assert np.allclose([row.loss for row in one.read_metrics()], [row.loss for row in two.read_metrics()], atol=1e-3)
