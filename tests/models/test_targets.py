"""The same network written for CPU's kernels and for Ascend's, both run on CPU: what they compute agrees."""

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.errors import UserError
from src.models import trace_tokens
from src.models.ops import Gelu, OneOperatorGelu, gelu

SIZES = {
    "tokens": "2,3(40%,40%)+5", "image_size": 64, "patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 4,
    "num_classes": 10,
}  # fmt: skip
FLOAT16_DISTANCE = 0.02  # of logits in float16 by either kind of kernel, relative to the largest


@pytest.fixture(scope="module")
def pair():
    """Two networks of the same random weights, for CPU and for Ascend, and images."""
    networks = [mindcv.create_model("skipvit_ti_16_224", target=target, **SIZES) for target in ("cpu", "ascend")]
    random = np.random.RandomState(0)
    for parameters in zip(*(network.get_parameters() for network in networks)):
        value = Tensor(0.15 * random.standard_normal(parameters[0].shape) + (parameters[0].name.endswith("gamma")))
        for parameter in parameters:
            parameter.set_data(ops.cast(value, ms.float32))
    images = Tensor(np.random.RandomState(1).standard_normal((16, 3, 64, 64)).astype(np.float32))
    return [network.set_train(False) for network in networks], images


def kept_share(first, second):
    """The share of the tokens that `first` keeps which `second` keeps too, over all drops."""
    same = [np.mean([np.isin(a, b).mean() for a, b in zip(first[block], second[block])]) for block in first]
    return np.mean(same)


def test_parameters_are_the_same(pair):
    (for_cpu, for_ascend), _ = pair
    listed = [[(p.name, p.shape, p.dtype) for p in network.get_parameters()] for network in (for_cpu, for_ascend)]
    assert listed[0] == listed[1]


def test_logits_and_kept_tokens_agree(pair):
    networks, images = pair
    for_cpu, for_ascend = (network(images).asnumpy() for network in networks)
    assert np.abs(for_cpu - for_ascend).max() < 1e-4 * np.abs(for_cpu).max()
    kept = [trace_tokens(network, images) for network in networks]
    assert all((kept[0][block] == kept[1][block]).all() for block in (2, 3))


class Squares(nn.Cell):
    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, images):
        return ops.reduce_mean(ops.square(self.network(images)))


def test_gradients_agree(pair):
    networks, images = pair
    gradients = []
    for network in networks:
        weights = network.trainable_params()
        _, found = ops.value_and_grad(Squares(network), None, weights)(images)
        gradients.append([gradient.asnumpy() for gradient in found])
    for parameter, first, second in zip(weights, *gradients):
        assert np.abs(first).max() > 0, parameter.name
        assert np.abs(first - second).max() < 1e-3 * np.abs(first).max(), parameter.name


@pytest.mark.slow
def test_float16_by_one_operator_agrees_with_float16_by_products(pair):
    networks, images = pair
    exact = networks[0](images).asnumpy()
    halves = [mindcv.create_model("skipvit_ti_16_224", target=target, **SIZES) for target in ("cpu", "ascend")]
    for half, network in zip(halves, networks):
        for own, given in zip(half.get_parameters(), network.get_parameters()):
            own.set_data(given.value())
        ms.amp.auto_mixed_precision(half, "O2")
        half.set_train(False)
    for_cpu, for_ascend = (half(images).asnumpy() for half in halves)
    bound = FLOAT16_DISTANCE * np.abs(exact).max()
    assert np.abs(for_cpu - for_ascend).max() < bound
    assert np.abs(for_cpu - exact).max() < bound
    assert 0 < np.abs(for_ascend - exact).max() < bound
    kept = [trace_tokens(network, images) for network in (networks[0], *halves)]
    assert min(kept_share(kept[1], kept[2]), kept_share(kept[0], kept[2])) >= 0.99


def test_erf_has_no_operator_of_its_own():
    assert isinstance(gelu("gelu_erf", "ascend"), Gelu)


@pytest.mark.parametrize(("cell", "error"), [(Gelu("gelu_tanh"), 1e-3), (OneOperatorGelu(), 1e-6)])
def test_both_ways_to_compute_gelu_are_the_tanh_formula(cell, error):
    """The products' error is that of MindSpore's Tanh on CPU; fused kernels' and the one operator's is rounding."""
    x = np.concatenate([np.linspace(-12, 12, 20001), [-50, 0, 1e-30, 50]]).astype(np.float32)
    exact, wide = x.astype(np.float64), np.clip(x.astype(np.float64), -1e3, 1e3)
    inner = np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)
    tanh = np.tanh(inner)
    out = cell(Tensor(x)).asnumpy()
    assert (np.abs(out - 0.5 * exact * (1 + tanh)) <= error * np.maximum(1, np.abs(exact))).all()
    slope = 0.5 * (1 + tanh) + 0.5 * wide * (1 - tanh**2) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * wide**2)
    x, slope = x[np.abs(x) < 40], slope[np.abs(x) < 40]
    assert np.abs(ops.grad(cell)(Tensor(x)).asnumpy() - slope).max() < error


def test_on_ascend_a_large_float16_does_not_overflow_in_gelu():
    """Beyond 256 its square is no float16, nor is the formula's slope; both targets run on CPU here."""
    x = Tensor(np.array([-300, 300], np.float16))
    slopes = [ops.grad(gelu("gelu_tanh", target))(x).asnumpy().tolist() for target in ("ascend", "cpu")]
    assert slopes[0] == [0, 1]
    assert gelu("gelu_tanh", "ascend")(x).asnumpy().tolist() == [0, 300]
    assert np.isnan(slopes[1]).all(), "the products would do on Ascend too"


def test_an_unknown_target_is_refused():
    with pytest.raises(UserError, match="target 'gpu' is unknown; choose one of cpu, ascend"):
        mindcv.create_model("skipvit_ti_16_224", target="gpu", **SIZES)
