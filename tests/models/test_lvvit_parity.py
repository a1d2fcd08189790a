"""LV-ViT against the float64 reference, and against what its authors' own code computed."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.models import build, trace_tokens
from src.training.token_labels import TokenLabelling
from src.weights.load import assign
from tests.helpers import originals, reference_lvvit

SIZES = {
    "backbone": "lvvit", "image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 4,
    "mlp_ratio": 3.0, "residual_divisor": 2.0, "act": "gelu_erf",
}  # fmt: skip
MASK = originals.BOX.reshape(-1).astype(np.float32)
LABELS = np.array([3, 0, 4, 3], np.int32)
SPECS = ["2,3(40%,40%)+fused", *(pytest.param(s, marks=pytest.mark.slow) for s in ("none", "2(50%)+4", "2(50%)"))]


def network(tokens, weights, classes, target="cpu"):
    net = build(tokens, num_classes=classes, target=target, **SIZES)
    assign(net, {name: weight.astype(np.float32) for name, weight in weights.items()}, "reference")
    return net.set_train(False)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("target", ["cpu", pytest.param("ascend", marks=pytest.mark.slow)])
def test_logits_and_kept_tokens(spec, target):
    weights = reference_lvvit.random_weights(1)
    expected = reference_lvvit.forward(weights, originals.IMAGES, spec)
    net = network(spec, weights, 5, target)
    assert np.abs(net(Tensor(originals.IMAGES)).asnumpy() - expected.logits).max() < 2e-4
    kept = trace_tokens(net, Tensor(originals.IMAGES))
    assert kept.keys() == expected.kept.keys()
    assert all((kept[block] == expected.kept[block]).all() for block in kept)


@pytest.mark.parametrize("mask", [None, MASK], ids=["own", "mixed"])
@pytest.mark.parametrize("spec", SPECS)
def test_the_loss_of_tokens_that_are_left(spec, mask):
    """Every token meets the label of its place, a fused one none, and the stem normalises by the batch."""
    weights = reference_lvvit.random_weights(2)
    given = None if mask is None else mask.astype(np.float64)
    out = reference_lvvit.forward(weights, originals.IMAGES, spec, training=True, mask=given)
    targets = reference_lvvit.image_targets(LABELS, 16, 5)
    expected = reference_lvvit.token_label_loss(
        out, *(targets if mask is None else reference_lvvit.mixed_targets(*targets, mask)), 1.0, 0.7
    )
    objective = TokenLabelling(network(spec, weights, 5), 0.1, 0.7, 0.0, False).set_train()
    mixed = None if mask is None else Tensor(mask)
    found = objective(Tensor(LABELS), Tensor(originals.IMAGES), None, None, mixed).asnumpy()
    assert abs(found - expected) < 2e-4


def test_what_the_authors_code_computed():
    """Logits, the loss with label maps and MixToken, its gradient by every weight, and the stem's moving averages."""
    weights, stored = originals.weights_of("lvvit"), originals.results_of("lvvit")
    net = network("none", weights, originals.CLASSES)
    images = Tensor(originals.IMAGES)
    assert np.abs(net(images).asnumpy() - stored["eval/logits"]).max() < 2e-4
    objective = TokenLabelling(net, 0.1, 0.5, 0.0, True).set_train()
    maps, _ = originals.label_maps()
    given = [Tensor(array.astype(np.float32)) for array in (maps, *originals.label_matrices())]

    def loss():
        return objective(Tensor(originals.LABELS.astype(np.int32)), images, *given, None, None, Tensor(MASK))

    trained = net.trainable_params()
    found, gradients = ms.value_and_grad(loss, None, trained)()
    assert abs(found.asnumpy() - stored["train/loss"]) < 2e-4
    probed = originals.probe({p.name: gradient.asnumpy() for p, gradient in zip(trained, gradients)})
    assert np.abs(probed - stored["train/gradients"]).max() < 1e-3 * np.abs(stored["train/gradients"]).max()
    for name, moved in stored.items():
        if name.startswith("train/moved/"):
            own = {p.name: p for p in net.get_parameters()}[name.removeprefix("train/moved/")].asnumpy()
            assert np.abs(own - moved).max() < 1e-4
