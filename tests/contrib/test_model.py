"""The model file for MindCV, loaded into the MindCV that is installed, against the project's own network."""

import functools

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, amp, nn
from mindspore.nn.utils import no_init_parameters

from src.ascend.check import problems_of
from src.ascend.graphs import forward_graph
from src.config import ModelConfig
from src.models import build, tokens
from src.schedules import Geometry, parse, resolve
from tests.contrib.loading import MODEL_FILE, loaded

SIZES = {"image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 12, "num_heads": 4, "num_classes": 5}
SCHEDULES = {
    "none": {"drop_blocks": (), "drop_ratios": (), "rejoin_block": 0},
    "6(55%)+11": {},  # the default of skipvit_small
    "4,7(30%,30%)+10": {"drop_blocks": (4, 7), "drop_ratios": (0.3, 0.3), "rejoin_block": 10},
    "6(55%)": {"rejoin_block": 0},
    "4,7,10(30%,30%,30%)+fused": {
        "drop_blocks": (4, 7, 10), "drop_ratios": (0.3, 0.3, 0.3), "rejoin_block": 0, "fuse": True,
    },
}  # fmt: skip
DEFAULT = ["none", "6(55%)+11", "4,7,10(30%,30%,30%)+fused"]
COMPILED = DEFAULT[1:]  # a return, and fusion in stages: what differs between graphs
SIZED_AS = {
    "skipvit_tiny": "skipvit_ti_16_224", "skipvit_small": "skipvit_s_16_224", "skipvit_small_fused": "skipvit_s_16_224",
    "skipvit_base": "skipvit_b_16_224",
}  # fmt: skip


@pytest.fixture(scope="module")
def contributed():
    with loaded(MODEL_FILE, "mindcv.models.skipvit") as module:
        yield module


@pytest.fixture(scope="module")
def weights():
    """Weights of the project's network by name, large enough for scores to differ clearly."""
    random = np.random.RandomState(0)
    shapes = {weight.name: weight.shape for weight in build("none", **SIZES).get_parameters()}
    return {name: (random.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}


def images():
    return Tensor(np.random.RandomState(1).standard_normal((3, 3, 16, 16)).astype(np.float32))


def with_weights(network, weights):
    """Set a network's weights; the kernel of the patch embedding is a convolution's in MindCV."""
    for weight in network.get_parameters():
        weight.set_data(Tensor(weights[weight.name].reshape(weight.shape)))
    return network.set_train(False)


def theirs_of(spec, weights):
    return with_weights(mindcv.create_model("skipvit_small", **SIZES, **SCHEDULES[spec]), weights)


@pytest.fixture(scope="module")
def ours_of(weights):
    """The tokens after the last norm, which [CLS] need not show, and the logits of the project's network."""

    @functools.cache
    def run(spec):
        network = with_weights(build(spec, **SIZES), weights)
        last = network.encode(network.embed(images()))[0]
        return last.asnumpy(), network.classify(last, ()).asnumpy()

    return run


def difference(network, expected):
    """Return the largest difference of a contributed network's tokens and logits from the project's."""
    last = network.forward_features(images())
    found = last.asnumpy(), network.forward_head(last).asnumpy()
    assert [one.shape for one in found] == [one.shape for one in expected]
    return max(np.abs(one - other).max() for one, other in zip(found, expected))


def test_its_models_are_registered_beside_the_projects(contributed):
    models = set(contributed.default_cfgs)
    assert models == set(SIZED_AS) == set(contributed.__all__) - {"SkipViT"}
    assert models == set(mindcv.list_models(module="skipvit"))
    assert models | {"skipvit_s_16_224"} <= set(mindcv.list_models())
    assert not models & set(mindcv.list_models(module="registry"))


def test_parameters_are_named_and_shaped_as_the_projects(contributed):
    ours, theirs = build("none", **SIZES), mindcv.create_model("skipvit_small", **SIZES)
    expected = {weight.name: weight.shape for weight in ours.get_parameters()}
    expected["patch_embed.proj.weight"] = (24, 3, 4, 4)
    assert {weight.name: weight.shape for weight in theirs.get_parameters()} == expected


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
@pytest.mark.parametrize("spec", DEFAULT)
def test_tokens_and_logits_are_the_projects(contributed, weights, ours_of, spec, mode):
    assert difference(theirs_of(spec, weights), ours_of(spec)) < 1e-5


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
def test_tokens_are_ranked_as_the_projects_whatever_the_scores(contributed, mode):
    scores = np.random.RandomState(0).randint(0, 4, (6, 33)).astype(np.float32)  # many ties
    scores[1, ::3], scores[2, ::2], scores[3], scores[4, 5:] = np.nan, np.inf, 0, 1e-40
    for keep in (1, 7, 31):
        for ours, theirs in zip(tokens.rank(Tensor(scores), keep), contributed.rank(Tensor(scores), keep)):
            assert (ours.asnumpy() == theirs.asnumpy()).all()


@pytest.mark.slow
@pytest.mark.parametrize("spec", COMPILED)
def test_logits_in_graph_mode_are_the_projects(contributed, weights, spec):
    ours, theirs = with_weights(build(spec, **SIZES), weights), theirs_of(spec, weights)
    assert np.abs(ours(images()).asnumpy() - theirs(images()).asnumpy()).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("spec", COMPILED)
def test_its_operators_have_a_route(contributed, weights, spec):
    """As `python -m src.tools.ascend_check` knows them for a 910A, in float16 and with static shapes."""
    network = theirs_of(spec, weights)
    amp.auto_mixed_precision(network, "O2")
    nodes = forward_graph(network, images())
    assert any(node.primitive == "Conv2D" for node in nodes)  # of its patch embedding; ours is a product
    assert problems_of(nodes, training=False) == []


WRONG = {
    "one token more stays": ("rank(scores, keep)", "rank(scores, keep + 1)"),
    "the split cuts elsewhere": ("x[:, : keep + 1], x[:, keep + 1 :]", "x[:, : keep + 2], x[:, keep + 2 :]"),
    "the lowest scores stay": ("ops.greater(other, own)", "ops.less(other, own)"),
    "tokens return to other places": ("axis=1), restore, order)", "axis=1), order, restore)"),
}
PLAIN = ("one token more stays", "tokens return to other places")


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=() if fault in PLAIN else pytest.mark.slow) for fault in WRONG]
)
def test_a_fault_in_the_file_is_seen(tmp_path, weights, ours_of, fault, mode):
    source, (right, wrong) = MODEL_FILE.read_text(encoding="utf-8"), WRONG[fault]
    assert source.count(right) == 1
    path = tmp_path / "skipvit.py"
    path.write_text(source.replace(right, wrong), encoding="utf-8")
    with loaded(path, "mindcv.models.faulty_skipvit"):
        assert difference(theirs_of("6(55%)+11", weights), ours_of("6(55%)+11")) > 1e-3


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
@pytest.mark.parametrize(
    ("spec", "schedule"),
    [
        ("2(55%)+4", {"drop_blocks": (2,), "rejoin_block": 4}),
        pytest.param(
            "2(45%)+fused",
            {"drop_blocks": (2,), "drop_ratios": (0.45,), "rejoin_block": 0, "fuse": True},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_every_parameter_gets_the_projects_gradient(contributed, weights, spec, schedule, mode):
    sizes = {**SIZES, "depth": 4}
    networks = build(spec, **sizes), mindcv.create_model("skipvit_small", **sizes, **schedule)
    labels, loss = Tensor([0, 3, 4], ms.int32), nn.CrossEntropyLoss()
    gradients = []
    for network in networks:
        with_weights(network, weights).set_train(True)
        parameters = network.trainable_params()
        _, found = ms.value_and_grad(nn.WithLossCell(network, loss), None, parameters)(images(), labels)
        gradients.append({weight.name: gradient.asnumpy() for weight, gradient in zip(parameters, found)})
    ours, theirs = gradients
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, name
        np.testing.assert_allclose(gradient.reshape(ours[name].shape), ours[name], atol=1e-4 * np.abs(ours[name]).max())


@pytest.mark.parametrize("side", [16, 20, 40, 56])
def test_kept_tokens_are_the_plans(contributed, side):
    """For every percentage: the number in floating point is the one in exact arithmetic."""
    sizes = {**SIZES, "image_size": side}
    network = mindcv.create_model("skipvit_small", **sizes)
    geometry = Geometry.from_sizes(**sizes, mlp_ratio=4)
    for percent in range(1, 100):
        for fused in (False, True):
            network.fuse = fused
            kept = network._resolve((3, 6), (percent / 100, 0.29), 0)
            spec = f"3,6({percent}%,29%)" + "+fused" * fused
            assert kept == resolve(parse(spec), geometry).kept, spec


@pytest.mark.parametrize("name", SIZED_AS)
def test_parameter_counts_are_the_projects(contributed, name):
    geometry = Geometry.from_config(ModelConfig(name=SIZED_AS[name]))
    with no_init_parameters():
        network = mindcv.create_model(name)
    assert sum(weight.size for weight in network.get_parameters()) == geometry.parameters


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ({"drop_blocks": (6, 4), "drop_ratios": (0.3, 0.3)}, "must ascend"),
        ({"drop_ratios": (0.3, 0.3)}, "a ratio each"),
        ({"drop_blocks": (13,), "rejoin_block": 0}, "blocks 1 to 12"),
        ({"rejoin_block": 6}, "must follow"),
        ({"fuse": True}, "without fuse"),
        ({"drop_blocks": (), "drop_ratios": (), "rejoin_block": 0, "fuse": True}, "fuse needs drop_blocks"),
        ({"drop_ratios": (1.0,)}, "keeps 0 of 16 tokens in block 6"),
        ({"drop_ratios": (-0.1,)}, "keeps 18 of 16"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(contributed, schedule, why):
    with pytest.raises(ValueError, match=why):
        mindcv.create_model("skipvit_small", **SIZES, **schedule)
