"""Layer-wise learning rates and frozen blocks."""

import numpy as np
import pytest
from mindspore import Tensor

from src.models import from_config
from src.training.optimizer import make_optimizer
from src.training.state import create_train_state, make_train_step
from tests.training.test_training import LABELS, make_config

DEPTH = 4


def layer_of(name):
    """The layer as BEiT's code has it: the embedding 0, block i (from 0) i + 1, norm and head the last one."""
    if name.startswith(("cls_token", "pos_embed", "patch_embed")):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else DEPTH + 1


def step_of(config, weights=None):
    """Return the weights before and after one update by a gradient of ones, by name."""
    network = from_config(config.model)
    for weight in network.get_parameters():
        if weights is not None:
            weight.set_data(Tensor(weights[weight.name]))
    before = {weight.name: weight.asnumpy().copy() for weight in network.get_parameters()}
    optimizer = make_optimizer(config, network, [1e-2] * 10)
    optimizer(tuple(Tensor(np.ones(weight.shape, np.float32)) for weight in optimizer.parameters))
    return before, {weight.name: weight.asnumpy() for weight in network.get_parameters()}


@pytest.mark.parametrize("name", ["adamw", "momentum"])
def test_each_layer_has_its_share_of_the_learning_rate(tmp_path, name):
    common = [f"optimizer.name={name}", "optimizer.weight_decay=0.1"]
    before, full = step_of(make_config(tmp_path, *common))
    _, shared = step_of(make_config(tmp_path, *common, "optimizer.layer_decay=0.5"), before)
    for weight, start in before.items():
        share = 0.5 ** (DEPTH + 1 - layer_of(weight))
        assert np.allclose(shared[weight] - start, share * (full[weight] - start), atol=1e-7), weight
        assert np.abs(full[weight] - start).min() > 1e-3


def test_a_share_of_one_is_no_layer_decay(tmp_path):
    before, full = step_of(make_config(tmp_path))
    _, shared = step_of(make_config(tmp_path, "optimizer.layer_decay=1"), before)
    assert all(np.array_equal(full[name], shared[name]) for name in full)


@pytest.mark.parametrize("blocks", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_frozen_weights_stay_bit_for_bit_and_others_change(tmp_path, blocks):
    recipe = ["train.ema_decay=0.9", "optimizer.weight_decay=0.1", "optimizer.layer_decay=0.8", "model.tokens=1(50%)+4"]
    config = make_config(tmp_path, f"train.freeze_blocks={blocks}", *recipe)
    state = create_train_state(config, lambda: from_config(config.model), [1e-2] * 10)
    before = {name: weight.asnumpy().copy() for name, weight in state.parameters().items()}
    step = make_train_step(state, config, config.model.tokens)
    images = Tensor(np.random.RandomState(0).standard_normal((6, 3, 16, 16)).astype(np.float32))
    for _ in range(2):
        step(images, Tensor(LABELS))
    after = {name: weight.asnumpy() for name, weight in state.parameters().items()}
    frozen = {name for name in before if name.startswith("network.") and layer_of(name[len("network.") :]) <= blocks}
    assert len(frozen) == 4 + 12 * blocks
    for name in filter(lambda name: name.startswith("network."), before):
        assert np.array_equal(before[name], after[name]) == (name in frozen), name
    for name in frozen:
        assert np.array_equal(after[name], after[name.replace("network.", "ema.")])
    weights = {name for name in before if name.startswith("network.")}
    moments = [name for name in before if name.startswith("optimizer.adam_")]
    assert len(moments) == 2 * (len(weights) - len(frozen))
