"""The network: sizes, gradients, equivalences, refusals."""

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from mindspore.nn.utils import no_init_parameters

from src.config import ModelConfig
from src.errors import UserError
from src.models import SkipViT, build, from_config, trace, trace_tokens
from src.schedules import Geometry
from src.training.loss import Loss
from tests.helpers.modes import pynative
from tests.schedules.test_notation import TABLE1

PARAMETERS = {
    "skipvit_ti_16_224": 5_717_416, "skipvit_s_16_224": 22_050_664, "skipvit_b_16_224": 86_567_656,
    "skipvit_l_16_224": 304_326_632, "skipvit_b_32_224": 88_224_232, "skipvit_l_32_224": 306_535_400,
    "skipvit_ti_distilled_16_224": 5_910_800, "skipvit_s_distilled_16_224": 22_436_432,
    "skipvit_b_distilled_16_224": 87_338_192,
}  # fmt: skip
AT_SIZES = {  # parameters at other image sizes
    ("ti", 288): 5_741_992, ("ti", 304): 5_749_096, ("ti", 384): 5_790_376,
    ("ti_distilled", 288): 5_935_376, ("ti_distilled", 304): 5_942_480, ("ti_distilled", 384): 5_983_760,
    ("s", 256): 22_073_704, ("s", 272): 22_086_376, ("s", 288): 22_099_816, ("s", 304): 22_114_024,
    ("s", 384): 22_196_584, ("s_distilled", 288): 22_485_584, ("s_distilled", 304): 22_499_792,
    ("s_distilled", 384): 22_582_352, ("b", 288): 86_665_960, ("b", 304): 86_694_376, ("b", 384): 86_859_496,
    ("b_distilled", 288): 87_436_496, ("b_distilled", 304): 87_464_912, ("b_distilled", 384): 87_630_032,
    ("l", 288): 304_457_704, ("l", 384): 304_715_752,
}  # fmt: skip
SMALL = {"image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 12, "num_heads": 4, "num_classes": 5}
SPECS = ["none", "6(55%)+11", "4,7(30%,30%)+10", "6(45%)+fused", "4,7,10(30%,30%,30%)+fused", "6(55%)"]


def small(tokens="none", seed=0, **sizes):
    ms.set_seed(seed)
    return build(tokens, **{**SMALL, **sizes}).set_train(False)


def images(batch=3, size=(16, 16), seed=0):
    return Tensor(np.random.RandomState(seed).standard_normal((batch, 3, *size)).astype(np.float32))


def test_every_registered_variant_is_pinned():
    assert set(mindcv.list_models("skipvit_*")) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    with no_init_parameters():
        net = mindcv.create_model(name)
    assert sum(p.size for p in net.get_parameters()) == PARAMETERS[name]


def test_parameter_counts_at_other_image_sizes():
    for (size, side), expected in AT_SIZES.items():
        model = ModelConfig(name=f"skipvit_{size}_16_224", image_size=side)
        assert Geometry.from_config(model).parameters == expected, (size, side)
    for side, expected in ((288, 306_568_168), (384, 306_632_680)):
        assert Geometry.from_config(ModelConfig(name="skipvit_l_32_224", image_size=side)).parameters == expected


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_geometry_counts_parameters_without_a_network(name):
    assert Geometry.from_config(ModelConfig(name=name)).parameters == PARAMETERS[name]
    net = small("6(45%)+fused", image_size=(16, 24), mlp_ratio=2.5)
    assert net.geometry.parameters == sum(p.size for p in net.get_parameters())


def test_no_schedule_adds_a_parameter():
    net = mindcv.create_model("skipvit_s_16_224")
    names = {p.name: p.shape for p in net.get_parameters()}
    created = mindcv.create_model("skipvit_s_16_224", tokens="6(55%)+11")
    assert {p.name: p.shape for p in created.get_parameters()} == names
    for spec in [*TABLE1, "4,7,10(30%,30%,30%)+fused", "6(55%)"]:
        assert {p.name: p.shape for p in net.with_tokens(spec).get_parameters()} == names


@pytest.mark.parametrize(
    ("spec", "pool"),
    [
        ("4,7,10(30%,30%,30%)+fused", "cls"),
        pytest.param("<2..4(50%,random)+next;6(50%)+11", "cls", marks=pytest.mark.slow),
        pytest.param("<2(50%,centre)+4;6(50%,received)", "avg", marks=pytest.mark.slow),
        pytest.param("4,7(30%,30%)+10", "distilled", marks=pytest.mark.slow),
    ],
)
def test_every_parameter_gets_a_gradient(spec, pool):
    options = {"distilled": True, "distilled_score": "mean"} if pool == "distilled" else {"pool": pool}
    net = small(spec, **options).set_train()
    loss = Loss(5, 0.1)
    labels = Tensor(np.array([0, 3, 4], np.int32))
    inputs = net.sample(3, 0)

    def objective(x):
        return loss(net(x, *inputs), labels)

    _, gradients = ms.value_and_grad(objective, None, net.trainable_params())(images())
    for parameter, gradient in zip(net.trainable_params(), gradients):
        assert np.isfinite(gradient.asnumpy()).all(), parameter.name
        assert np.abs(gradient.asnumpy()).max() > 0, parameter.name


@pytest.mark.parametrize("spec", ["6(0%)+fused"])
def test_dropping_nothing_is_dense(mode, spec):
    net = small()
    assert (net(images()).asnumpy() == net.with_tokens(spec)(images()).asnumpy()).all()


@pytest.mark.parametrize("spec", ["4,7,10(30%,30%,30%)+fused", "<2..4(50%,random)+next;6(50%)+11"])
def test_graph_equals_pynative(spec):
    net = small(spec)
    inputs = net.sample(3, 0)
    graph = net(images(), *inputs).asnumpy()
    with pynative():
        eager = net(images(), *inputs).asnumpy()
    assert np.abs(graph - eager).max() < 1e-5


@pytest.mark.parametrize("size", [(16, 24), (8, 32)])
def test_images_need_not_be_square(size):
    net = small("6(55%)+11", image_size=size)
    assert net(images(2, size)).shape == (2, 5)
    assert net.plan.tokens_out[0] == 1 + size[0] * size[1] // 16


def test_a_scheduled_network_shares_the_weights():
    net = small()
    sparse = net.with_tokens("6(55%)+11")
    before = sparse(images()).asnumpy()
    net.head.bias.set_data(net.head.bias + 1)
    assert np.allclose(sparse(images()).asnumpy(), before + 1, atol=1e-5)
    assert isinstance(sparse, SkipViT)


def test_output_has_one_type_in_training_and_evaluation():
    net = small("6(55%)+11", drop_rate=0.1, drop_path_rate=0.2)
    for training in (True, False):
        logits = net.set_train(training)(images())
        assert logits.shape == (3, 5)
        assert logits.dtype == ms.float32


@pytest.mark.slow
def test_stochastic_depth_and_dropout_act_in_training_only():
    for option in ({"drop_rate": 0.5}, {"drop_path_rate": 0.9}):
        net = small(**option)
        assert (net(images()).asnumpy() == net(images()).asnumpy()).all()
        net.set_train()
        assert (net(images()).asnumpy() != net(images()).asnumpy()).any()


def test_traced_places_are_what_the_schedule_says():
    net = small("4,7(30%,30%)+10")
    kept = trace_tokens(net, images())
    assert {block: places.shape for block, places in kept.items()} == {4: (3, 12), 7: (3, 9)}
    for first, second in zip(kept[4], kept[7]):
        assert (np.diff(first) > 0).all()
        assert set(second) <= set(first) <= set(range(16))
    assert trace_tokens(small(), images()) == {}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"image_size": 17}, "nearest is 16x16"),
        ({"image_size": (16, 18)}, "nearest is 16x16"),
        ({"image_size": 2}, "not a multiple"),
        ({"num_heads": 5}, "num_heads"),
        ({"act": "relu"}, "gelu_tanh"),
        ({"distilled_score": "mean"}, "no distillation token"),
        ({"distilled": True, "pool": "avg"}, "leave it at cls"),
        ({"tokens": "6(99%)+13"}, "out of range"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, why):
    with pytest.raises(UserError, match=why):
        build(**{**SMALL, **options})


def test_unknown_names_and_downloads_are_refused():
    with pytest.raises(UserError, match="did you mean skipvit_s_16_224"):
        from_config(ModelConfig(name="skipvit_s_16"))
    with pytest.raises(UserError, match="from_checkpoint"):
        mindcv.create_model("skipvit_s_16_224", pretrained=True)


def test_stochastic_depth_takes_the_factors_it_is_given():
    sizes = {"image_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "drop_path_rate": 0.5}
    net = build("2(50%)+3", **sizes).set_train()
    images = Tensor(np.random.RandomState(0).standard_normal((4, 3, 16, 16)), ms.float32)
    ones = np.ones((4, 3, 2), np.float32)
    expected = net.set_train(False)(images).asnumpy()
    net.set_train()
    assert np.allclose(net(images, Tensor(ones)).asnumpy(), expected, atol=1e-6)
    without = ones.copy()
    without[1, 1] = 0  # the second image is without both halves of block 2
    got = net(images, Tensor(without)).asnumpy()
    changed = np.abs(got - expected).max(axis=1) > 1e-4
    assert changed.tolist() == [False, True, False, False]
    scale = net.sample(2000, 1, 2).drop_path_scale.asnumpy()
    assert (scale.dtype, scale.shape) == (np.float32, (2000, 3, 2))
    assert (scale == net.sample(2000, 1, 2).drop_path_scale.asnumpy()).all()
    assert (scale != net.sample(2000, 1, 3).drop_path_scale.asnumpy()).any()
    for half in range(2):
        for block, rate in enumerate([0, 0.25, 0.5]):
            values = scale[:, block, half]
            assert set(values) == {0.0, np.float32(1 / (1 - rate))} - ({0.0} if not rate else set())
            assert abs(values.mean() - 1) < 0.1
    assert build("none", **{**sizes, "drop_path_rate": 0.0}).sample(4, 0) == (None, None)


def test_a_random_ranking_keeps_other_tokens_for_each_image_and_seed_at_the_same_shapes(mode):
    sizes = {"image_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
    net = build("2,3(50%,50%,random)+4", **sizes)
    ranked = build("2,3(50%,50%)+4", **sizes)
    images = Tensor(np.random.RandomState(0).standard_normal((40, 3, 16, 16)), ms.float32)
    assert net.plan.schedule.rankings == ("random",)
    assert (net.plan.macs, net.plan.tokens_out) == (ranked.plan.macs, ranked.plan.tokens_out)
    first, again, other = trace(net, images, 1), trace(net, images, 1), trace(net, images, 2)
    assert (first.kept[2] == again.kept[2]).all()
    assert (first.logits == again.logits).all()
    assert len({tuple(places) for places in first.kept[2]}) > 30
    assert (first.kept[2] != other.kept[2]).any(axis=1).sum() > 30
    counts = np.bincount(first.kept[3].ravel(), minlength=16)  # every place has its chance: 10 of 40 expected
    assert counts.min() > 0
    assert all(set(late) <= set(early) for early, late in zip(first.kept[2], first.kept[3]))
    with pytest.raises((ValueError, RuntimeError), match=r"random_scores of the network's `sample`"):
        net(images)


def test_random_ranking_and_stochastic_depth_are_inputs_of_their_own():
    sizes = {"image_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2, "drop_path_rate": 0.5}
    net = build("1,2(50%,50%,random)+3", **sizes)
    evaluating, training = net.sample(5, 0), net.set_train().sample(5, 0)
    assert [scores.shape for scores in evaluating.random_scores] == [(5, 17), (5, 9)]
    assert evaluating.drop_path_scale is None
    assert training.drop_path_scale.shape == (5, 3, 2)
    images = Tensor(np.random.RandomState(0).standard_normal((5, 3, 16, 16)), ms.float32)
    assert np.isfinite(net(images, *training).asnumpy()).all()


def test_a_trace_tells_attention_by_original_place():
    sizes = {"image_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
    images = Tensor(np.random.RandomState(0).standard_normal((3, 3, 16, 16)), ms.float32)
    net = build("2(50%)+4", **sizes)
    traced = trace(net, images)
    assert np.allclose(traced.logits, net(images).asnumpy(), atol=1e-6)
    present = [~np.isnan(attention) for attention in traced.attention]
    assert [int(there.sum(axis=1)[0]) for there in present] == [16, 16, 8, 16]
    assert (np.argwhere(present[2])[:, 1].reshape(3, 8) == traced.kept[2]).all()
    kept_least = np.take_along_axis(traced.attention[1], traced.kept[2], axis=1).min(axis=1)
    dropped_most = np.where(present[2], -1, traced.attention[1]).max(axis=1)
    assert (kept_least >= dropped_most).all()
    fused = trace(build("2,3(50%,50%)+fused", **sizes), images)
    patches = [(~np.isnan(attention)).sum(axis=1) for attention in fused.attention]
    assert [set(count) for count in patches[:3]] == [{16}, {16}, {8}]
    assert (patches[3] == (fused.kept[3] < 16).sum(axis=1)).all()


class Encode(ms.nn.Cell):
    """The tokens after the last norm."""

    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, x):
        return self.net.encode(self.net.embed(x))[0]


def test_features_stand_on_the_grid():
    dense = small(image_size=(16, 24), depth=4)
    pixels = images(2, (16, 24))
    features = dense.features(pixels).asnumpy()
    assert (features.shape, features.dtype) == ((2, 4, 6, 24), np.float32)
    tokens = Encode(dense)(pixels).asnumpy()
    assert (features.reshape(2, 24, 24) == tokens[:, 1:]).all()
    assert (dense.with_tokens("2(0%)+4").features(pixels).asnumpy() == features).all()
    skipping, mask = dense.with_tokens("2(50%)+4").features_and_mask(pixels)
    assert np.abs(skipping.asnumpy() - features).max() > 0
    assert (mask.asnumpy() == 1).all()


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
@pytest.mark.parametrize("spec", ["2,4(50%,34%)+fused", "<2(50%,norm)+3;4(50%)"])
def test_features_that_do_not_return_are_missing(mode, spec):
    """Each token that is left stands where its patch was; a fused token has no place."""
    net = small(spec, depth=4)
    features, mask = (array.asnumpy() for array in net.features_and_mask(images(2)))
    kept = trace_tokens(net, images(2))[4]
    tokens = Encode(net)(images(2)).asnumpy()
    for image in range(2):
        places = [place for place in kept[image] if place < 16]
        assert np.flatnonzero(mask[image]).tolist() == places
        there = features[image].reshape(16, 24)
        assert (there[places] == tokens[image, 1 : 1 + len(places)]).all()
        assert (np.delete(there, places, axis=0) == 0).all()
