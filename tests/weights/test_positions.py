"""Position embeddings at another image size: PyTorch's bicubic values, parity with the reference, gradients."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import save_file

from src.models import build
from src.weights import load_timm
from src.weights.positions import bicubic, resampling
from tests.helpers import reference

# rows of EViT's position embedding resampled from 14 places on, by (size, row): first column, values
ROWS = {
    (17, 0): (0, [1.055013, -0.055013]),
    (17, 8): (5, [-0.09375, 0.59375, 0.59375, -0.09375]),
    (18, 0): (0, [1.065844, -0.065844]),
    (18, 9): (5, [-0.00823, 0.100137, 0.973937, -0.065844]),
    (19, 0): (0, [1.074423, -0.074423]),
    (24, 0): (0, [1.097928, -0.097928]),
}
# torch.nn.functional.interpolate(sin(i²) in float64, mode="bicubic", align_corners=False): the first two values, the
# middle one, the last two, their sum, and their sum times cos(i)
PYTORCH = {
    ((14, 14), (17, 17)): [-0.10618416, 0.87997477, 0.027770639, -0.500807747, -0.839365954, 3.002447961, -9.024891308],
    ((14, 14), (18, 18)): [
        -0.129021196,
        0.825785899,
        -0.123943602,
        -0.546638142,
        -0.859490617,
        3.381300716,
        -1.235225744,
    ],
    ((14, 14), (19, 19)): [
        -0.147564056,
        0.760316815,
        0.027770639,
        -0.584380804,
        -0.875700782,
        3.803453715,
        -15.732848114,
    ],
    ((14, 14), (24, 24)): [
        -0.200407874,
        0.422115547,
        -0.086156739,
        -0.705341503,
        -0.921320949,
        6.037453702,
        20.370135111,
    ],
    ((14, 14), (14, 20)): [
        -0.068395813,
        0.631189376,
        -0.106400487,
        -0.589290533,
        -0.780884928,
        3.039170595,
        14.816141886,
    ],
    ((3, 4), (5, 2)): [0.637786099, -0.251989081, -1.053337044, 0.158741126, 0.38367465, -0.997511174, 0.244520342],
}


@pytest.mark.parametrize(("size", "row"), ROWS)
def test_rows_of_the_matrix(size, row):
    first, values = ROWS[size, row]
    expected = np.zeros(14)
    expected[first : first + len(values)] = values
    assert bicubic(14, size)[row] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("old", "new"), PYTORCH)
def test_values_are_those_of_pytorch(old, new):
    numbers = np.arange(old[0] * old[1], dtype=np.float64)
    grid = np.sin(numbers**2).reshape(old)
    values = (bicubic(old[0], new[0]) @ grid @ bicubic(old[1], new[1]).T).ravel()
    chosen = [*values[[0, 1, len(values) // 2, -2, -1]], values.sum(), values @ np.cos(np.arange(len(values)))]
    assert chosen == pytest.approx(PYTORCH[old, new], abs=1e-8)
    with_cls = np.concatenate([[7.0], grid.ravel()])
    assert resampling(old, new) @ with_cls == pytest.approx([7.0, *values], abs=1e-6)


def test_rows_sum_to_1_and_equal_sizes_are_the_identity():
    for size in (3, 6, 10, 12, 14, 17, 18, 19, 24):
        assert bicubic(14, size).sum(1) == pytest.approx(np.ones(size), abs=1e-12)
    assert (bicubic(14, 14) == np.eye(14)).all()


def test_at_equal_size_no_operator_is_added():
    net = small((16, 16))
    assert net.with_tokens("none").resampling is None
    assert net.with_tokens("none", (8, 24)).with_tokens("none", (16, 16)).resampling is None


SIZES = {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 4, "num_classes": 5, "act": "gelu_erf"}


def small(image_size):
    return build("none", image_size=image_size, **SIZES).set_train(False)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A network of 16x16 pixels with the weights of the reference."""
    weights = {name: weight.astype(np.float32) for name, weight in reference.random_weights(0, depth=3).items()}
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].reshape(24, 3, 4, 4)
    path = tmp_path_factory.mktemp("positions") / "weights.safetensors"
    save_file(weights, path)
    net = small(16)
    load_timm(net, path)
    return net, {name: weight.astype(np.float64) for name, weight in weights.items()}


def resampled(weights, rows, columns):
    """The weights of the reference with positions of another grid, by sums over the four places around."""
    cls, grid = weights["pos_embed"][:, :1], weights["pos_embed"][0, 1:].reshape(4, 4, 24)
    grid = np.einsum("ia,jb,abc->ijc", bicubic(4, rows), bicubic(4, columns), grid)
    return {**weights, "pos_embed": np.concatenate([cls, grid.reshape(1, -1, 24)], 1)}


@pytest.mark.parametrize(("size", "spec"), [((24, 24), "none"), ((8, 20), "1,2(30%,30%)+3")])
def test_a_network_at_another_size_is_the_reference_with_resampled_positions(case, size, spec):
    net, weights = case
    images = np.random.RandomState(1).standard_normal((2, 3, *size)).astype(np.float32)
    expected, _ = reference.forward(resampled(weights, size[0] // 4, size[1] // 4), images, spec)
    other = net.with_tokens(spec, size)
    assert np.abs(other(Tensor(images)).asnumpy() - expected).max() < 2e-4
    assert {p.name: p.shape for p in other.get_parameters()} == {p.name: p.shape for p in net.get_parameters()}


def test_the_gradient_reaches_the_stored_positions(case):
    """Against a central difference of the reference, along a random direction."""
    net, weights = case
    random = np.random.RandomState(2)
    images = random.standard_normal((1, 3, 8, 20)).astype(np.float32)
    cotangent = random.standard_normal((1, 5))
    other = net.with_tokens("none", (8, 20))

    def objective(x):
        return (other(x) * Tensor(cotangent, ms.float32)).sum()

    gradient = ms.value_and_grad(objective, None, [net.pos_embed])(Tensor(images))[1][0].asnumpy()
    direction, step = random.standard_normal(gradient.shape), 1e-6
    plus, minus = (
        reference.forward(
            resampled({**weights, "pos_embed": weights["pos_embed"] + sign * step * direction}, 2, 5), images, "none"
        )[0]
        for sign in (1, -1)
    )
    expected = ((plus - minus) * cotangent).sum() / (2 * step)
    assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-3)
    assert np.abs(gradient[0, 1:]).max() > 0
