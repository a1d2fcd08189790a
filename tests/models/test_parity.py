"""Agreement with independent references: one in NumPy (tests/helpers/reference.py), and stored cases where present."""

import json
import re
from pathlib import Path

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import save_file

from src.errors import UserError
from src.models import trace, trace_tokens
from src.runtime import device
from src.weights import load_timm
from tests.helpers import reference
from tests.helpers.commands import SHARED

TWICE, FUSED = "4,7(30%,30%)+10", "4,7,10(30%,30%,30%)+fused"
SIZES = {"image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 12, "num_heads": 4, "num_classes": 5}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    weights = reference.random_weights(0)
    path = tmp_path_factory.mktemp("parity") / "weights.safetensors"
    stored = {name: weight.astype(np.float32) for name, weight in weights.items()}
    stored["patch_embed.proj.weight"] = stored["patch_embed.proj.weight"].reshape(24, 3, 4, 4)
    save_file(stored, path)
    images = np.random.RandomState(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    return {name: weight.astype(np.float64) for name, weight in stored.items()}, path, images


@pytest.mark.parametrize(
    ("spec", "score"),
    [
        (FUSED, "mean"),
        pytest.param(TWICE, "cls", marks=pytest.mark.slow),
        pytest.param(TWICE, "mean", marks=pytest.mark.slow),
        pytest.param("none", "cls", marks=pytest.mark.slow),
    ],
)
def test_a_distilled_model(tmp_path, spec, score):
    """Two tokens that never leave, two heads, and a ranking by one row of attention or by both."""
    weights, rows = reference.random_weights(0, distilled=True), {"cls": 1, "mean": 2}
    stored = {name: weight.astype(np.float32) for name, weight in weights.items()}
    save_file(stored, tmp_path / "distilled.safetensors")
    weights = {name: weight.astype(np.float64) for name, weight in stored.items()}
    images = np.random.RandomState(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    name = "skipvit_s_distilled_16_224"
    net = mindcv.create_model(name, tokens=spec, act="gelu_erf", distilled_score=score, **SIZES).set_train(False)
    load_timm(net, tmp_path / "distilled.safetensors")
    logits, kept = reference.forward(weights, images, spec, rows=rows[score])
    assert np.abs(net(Tensor(images)).asnumpy() - logits).max() < 2e-4
    traced = trace_tokens(net, Tensor(images))
    assert all((places == kept[block]).all() for block, places in traced.items())
    if spec != "none":
        _, by_other = reference.forward(weights, images, spec, rows=3 - rows[score])
        assert not all((places == by_other[block]).all() for block, places in traced.items())


def network(path, spec, act="gelu_erf"):
    net = mindcv.create_model("skipvit_s_16_224", tokens=spec, act=act, **SIZES)
    load_timm(net, path)
    return net.set_train(False)


@pytest.mark.parametrize(
    ("spec", "act"),
    [
        ("6(55%)+11", "erf"),
        (FUSED, "erf"),
        *(pytest.param(spec, "erf", marks=pytest.mark.slow) for spec in (TWICE, "6(45%)+fused", "6(55%)")),
        pytest.param("2(90%)+3", "tanh", marks=pytest.mark.slow),
    ],
)
def test_logits_and_kept_places(mode, case, spec, act):
    weights, path, images = case
    net = network(path, spec, f"gelu_{act}")
    logits, kept = reference.forward(weights, images, spec, act=act)
    assert np.abs(net(Tensor(images)).asnumpy() - logits).max() < 2e-4
    traced = trace_tokens(net, Tensor(images))
    assert traced.keys() == kept.keys()
    for block, places in traced.items():
        assert places.dtype == np.int32
        assert (places == kept[block]).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        "2,3(30%,30%,lowest)+5;6,7(30%,30%,received)+10",
        "2(30%,norm)+4;5(30%,stride)+7;8(30%,centre)+10",
        "6(45%,stride)+fused",  # fused by attention all the same
    ],
)
def test_every_ranking(case, spec):
    """Each ranking keeps other tokens than attention would, those of the reference."""
    weights, path, images = case
    logits, kept = reference.forward(weights, images, spec)
    _, by_attention = reference.forward(weights, images, re.sub(",[a-z]+", "", spec))
    net = network(path, spec)
    assert np.abs(net(Tensor(images)).asnumpy() - logits).max() < 2e-4
    traced = trace_tokens(net, Tensor(images))
    assert traced.keys() == kept.keys()
    assert all((places == kept[block]).all() for block, places in traced.items())
    assert not any((places == by_attention[block]).all() for block, places in traced.items())


ROUTES = [
    "2(50%)+6;7(50%)+11",  # in two goes
    "<3(50%,random)+10",  # TREAD
    "<2..5(50%,random)+next;6(50%)+11",  # random-LTD, and then SkipViT
    "3..4(50%,lowest)+next",
    "<1(50%,norm)",  # PatchDropout, by another ranking
    "<2,4(30%,30%,centre)+6;<6(50%,stride)+9;9(40%)+fused",
]


@pytest.mark.parametrize(
    "spec", [pytest.param(spec, marks=() if spec == ROUTES[2] else pytest.mark.slow) for spec in ROUTES]
)
def test_routes(case, spec):
    """Logits and kept tokens by the reference, given the same random numbers; another draw gives others."""
    weights, path, images = case
    net = network(path, spec)
    inputs = net.sample(2, 0)
    drawn = [scores.asnumpy() for scores in inputs.random_scores or ()]
    logits, kept = reference.forward(weights, images, spec, random_scores=drawn)
    assert np.abs(net(Tensor(images), *inputs).asnumpy() - logits).max() < 2e-4
    traced = trace(net, Tensor(images), 0)
    assert traced.kept.keys() == kept.keys()
    assert all((places == kept[block]).all() for block, places in traced.kept.items())
    if drawn:
        assert not np.allclose(net(Tensor(images), *net.sample(2, 1)).asnumpy(), logits, atol=1e-3)


@pytest.mark.parametrize("spec", ["none", pytest.param("4,7(30%,30%,received)+10", marks=pytest.mark.slow)])
def test_without_a_class_token_the_head_reads_the_mean(case, tmp_path, spec):
    weights, _, images = case
    rest = {name: weight for name, weight in weights.items() if name != "cls_token"}
    rest["pos_embed"] = rest["pos_embed"][:, 1:]
    stored = {name: weight.astype(np.float32) for name, weight in rest.items()}
    save_file(stored, tmp_path / "mean.safetensors")
    net = mindcv.create_model("skipvit_s_16_224", tokens=spec, act="gelu_erf", pool="avg", **SIZES).set_train(False)
    load_timm(net, tmp_path / "mean.safetensors")
    assert sum(weight.size for weight in net.get_parameters()) == net.geometry.parameters
    logits, kept = reference.forward(rest, images, spec)
    assert np.abs(net(Tensor(images)).asnumpy() - logits).max() < 2e-4
    traced = trace(net, Tensor(images))
    assert all((places == kept[block]).all() for block, places in traced.kept.items())
    assert traced.attention[0].shape == (2, 16)


@pytest.mark.parametrize(
    "spec",
    [
        FUSED,
        *(pytest.param(spec, marks=pytest.mark.slow) for spec in (TWICE, ROUTES[0], ROUTES[2], ROUTES[5])),
    ],
)
def test_gradients_along_random_directions(case, spec):
    """Each parameter's gradient, against a central difference of the float64 reference."""
    weights, path, images = case
    net = network(path, spec)
    random = np.random.RandomState(2)
    cotangent = random.standard_normal((2, 5))
    inputs = net.sample(2, 0)
    drawn = [scores.asnumpy() for scores in inputs.random_scores or ()]

    def objective(x):
        return (net(x, *inputs) * Tensor(cotangent, ms.float32)).sum()

    _, gradients = ms.value_and_grad(objective, None, net.trainable_params())(Tensor(images))
    for parameter, gradient in zip(net.trainable_params(), gradients):
        name = parameter.name.replace("gamma", "weight").replace("beta", "bias")
        direction = random.standard_normal(weights[name].shape)
        step = 1e-6
        plus, minus = (
            reference.forward(
                {**weights, name: weights[name] + sign * step * direction}, images, spec, random_scores=drawn
            )[0]
            * cotangent
            for sign in (1, -1)
        )
        expected = (plus.sum() - minus.sum()) / (2 * step)
        gradient = gradient.asnumpy().reshape(weights[name].shape).astype(np.float64)
        scale = np.abs(gradient).max() * np.sqrt(direction.size)
        assert abs((gradient * direction).sum() - expected) < 1e-3 * scale + 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("spec", [TWICE, "<2(50%,norm)+5;6..7(50%)+next"])
def test_logits_places_and_gradients_with_fused_kernels(fused, case, spec):
    weights, path, images = case
    net = network(path, spec)
    labels = Tensor(np.random.RandomState(3).standard_normal((2, 5)).astype(np.float32))

    def objective(x):
        logits = net(x)
        return (logits * labels).sum(), logits

    (_, logits), gradients = ms.value_and_grad(objective, None, net.trainable_params(), has_aux=True)(Tensor(images))
    expected, kept = reference.forward(weights, images, spec)
    assert np.abs(logits.asnumpy() - expected).max() < 2e-4
    assert all((places == kept[block]).all() for block, places in trace_tokens(net, Tensor(images)).items())
    device.set_up("CPU", fused_kernels="off")
    plain = network(path, spec)

    def plain_objective(x):
        return (plain(x) * labels).sum()

    _, plain_gradients = ms.value_and_grad(plain_objective, None, plain.trainable_params())(Tensor(images))
    for parameter, one, other in zip(net.trainable_params(), gradients, plain_gradients):
        error = np.abs(one.asnumpy() - other.asnumpy()).max()
        assert error < 1e-3 * np.abs(other.asnumpy()).max() + 1e-5, parameter.name


@pytest.mark.parametrize("spec", [FUSED, pytest.param("4,7,10(30%,30%,30%)", marks=pytest.mark.slow)])
def test_evits_own_class(case, spec):
    """What `EViT` of youweiliang/evit (5ca95a7) computed of these weights and 4 images, in PyTorch 2.14 and float32.

    Of its code only imports were changed, which timm 1.0.31 has elsewhere..
    """
    _, path, _ = case
    images = np.random.RandomState(1).standard_normal((4, 3, 16, 16)).astype(np.float32)
    stored = np.load(Path(__file__).with_name("evit.npz"))
    key = "30+fused" if spec.endswith("fused") else "30"
    traced = trace(network(path, spec), Tensor(images))
    assert np.abs(traced.logits - stored[f"{key}/logits"]).max() < 2e-4
    for block in (4, 7, 10):
        assert (traced.kept[block] == stored[f"{key}/kept/{block}"]).all()
    assert (max(places.max() for places in traced.kept.values()) > 15) == spec.endswith("fused")


def test_names_that_do_not_fit_are_all_listed(case, tmp_path):
    weights, _, _ = case
    stored = {name: weight.astype(np.float32) for name, weight in weights.items()}
    del stored["norm.bias"]
    stored["blocks.12.norm1.weight"] = np.zeros(24, np.float32)
    stored["head.weight"] = np.zeros((7, 24), np.float32)
    save_file(stored, tmp_path / "other.safetensors")
    net = mindcv.create_model("skipvit_s_16_224", **SIZES)
    before = net.head.weight.asnumpy()
    with pytest.raises(UserError) as refused:
        load_timm(net, tmp_path / "other.safetensors")
    for name in ("norm.beta", "blocks.12.norm1.gamma", "head.weight [7, 24] for [5, 24]"):
        assert name in str(refused.value)
    assert (net.head.weight.asnumpy() == before).all()


def test_mindspore_files_with_timm_names_load(case, tmp_path):
    weights, path, images = case
    arrays = [{"name": n, "data": Tensor(w.astype(np.float32))} for n, w in weights.items()]
    ms.save_checkpoint(arrays, str(tmp_path / "timm.ckpt"))
    net = mindcv.create_model("skipvit_s_16_224", act="gelu_erf", **SIZES).set_train(False)
    load_timm(net, tmp_path / "timm.ckpt")
    assert (net(Tensor(images)).asnumpy() == network(path, "none")(Tensor(images)).asnumpy()).all()


PARITY = SHARED / "parity"
needs_shared = pytest.mark.skipif(not PARITY.is_dir(), reason="no stored cases here")


@needs_shared
@pytest.mark.parametrize("number", [*(pytest.param(number, marks=pytest.mark.slow) for number in range(3)), 3])
def test_stored_cases(mode, number):
    check_stored_case(number)


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize("number", [3])
def test_stored_cases_with_fused_kernels(fused, number):
    check_stored_case(number)


def check_stored_case(number):
    shape = json.loads((PARITY / "cases.json").read_text())
    cases = np.load(PARITY / "cases.npz")
    net = mindcv.create_model(
        "skipvit_s_16_224", tokens=shape["specs"][number], image_size=shape["image_size"],
        patch_size=shape["patch_size"], embed_dim=shape["dim"], depth=shape["depth"], num_heads=shape["heads"],
        num_classes=shape["num_classes"], act="gelu_erf",
    ).set_train(False)  # fmt: skip
    load_timm(net, PARITY / "weights.safetensors")
    images, cotangent = Tensor(cases["images"]), Tensor(cases["cotangent"])
    assert np.abs(net(images).asnumpy() - cases[f"{number}/logits"]).max() < 2e-4
    kept = trace_tokens(net, images)
    stored = {int(key.split("/")[2]) for key in cases.files if key.startswith(f"{number}/kept/")}
    assert kept.keys() == stored
    for block in stored:
        assert (kept[block] == cases[f"{number}/kept/{block}"]).all()

    def objective(x):
        return (net(x) * cotangent).sum()

    _, gradients = ms.value_and_grad(objective, None, net.trainable_params())(images)
    compared = 0
    for parameter, gradient in zip(net.trainable_params(), gradients):
        key = f"{number}/grad/{parameter.name}"
        if key in cases.files:
            expected = cases[key]
            error = np.abs(gradient.asnumpy().reshape(expected.shape) - expected).max()
            assert error < 1e-3 * np.abs(expected).max(), parameter.name
            compared += 1
    assert compared == sum(key.startswith(f"{number}/grad/") for key in cases.files)
