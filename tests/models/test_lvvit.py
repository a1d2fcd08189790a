"""LV-ViT: sizes, costs, gradients, equivalences, and the labels of its patch tokens."""

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore.nn.utils import no_init_parameters

from src.config import ModelConfig
from src.data.mixing import draw_box
from src.errors import UserError
from src.models import build, trace_tokens
from src.models.convolution import convolution
from src.models.ops import mix_reversed
from src.schedules import Geometry, parse, resolve
from src.training.token_labels import TokenLabelling
from tests.helpers.modes import pynative

PARAMETERS = {"lvvit_ti_16_224": 8_534_720, "lvvit_s_16_224": 26_151_824, "lvvit_m_16_224": 55_830_544}
AT_SIZES = {("s", 288): 26_200_976, ("s", 384): 26_297_744, ("m", 384): 56_025_104, ("m", 448): 56_131_600}
MACS = {"ti": 2_868_017_664, "s": 6_551_485_440, "m": 12_678_045_696}
EVIT = {  # EViT on LV-ViT-S: multiplications, and tokens leaving the blocks, four of each
    "5,9,13(30%,30%,30%)+fused": (4_706_621_184, (197, 140, 100, 72)),
    "5,9,13(50%,50%,50%)+fused": (3_875_067_648, (197, 100, 52, 28)),
}
SMALL = {
    "backbone": "lvvit", "image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 6, "num_heads": 4,
    "mlp_ratio": 3.0, "num_classes": 5, "residual_divisor": 2.0,
}  # fmt: skip
FUSED = "2,4(30%,30%)+fused"
SPECS = [FUSED, *(pytest.param(spec, marks=pytest.mark.slow) for spec in ("none", "2(50%)+4", "3(50%)"))]


def small(tokens="none", seed=0, **sizes):
    ms.set_seed(seed)
    return build(tokens, **{**SMALL, **sizes}).set_train(False)


def images(batch=4, seed=0):
    return Tensor(np.random.RandomState(seed).standard_normal((batch, 3, 16, 16)).astype(np.float32))


def labelling(net, mix_alpha=0.0, has_maps=False):
    return TokenLabelling(net, 0.1, 1.0, mix_alpha, has_maps)


def test_every_registered_variant_is_pinned():
    assert set(mindcv.list_models("lvvit_*")) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    with no_init_parameters():
        weights = list(mindcv.create_model(name).get_parameters())
    assert sum(p.size for p in weights if p.requires_grad) == PARAMETERS[name]
    if name == "lvvit_s_16_224":  # and six moving averages; PyTorch counts three numbers of batches too
        assert [sum(p.requires_grad for p in weights), len(weights)] == [195, 201]


def test_the_geometry_counts_parameters_and_multiplications_without_a_network():
    for name, expected in PARAMETERS.items():
        geometry = Geometry.from_config(ModelConfig(name=name))
        assert geometry.parameters == expected
        assert resolve(parse("none"), geometry).macs == MACS[name.split("_")[1]]
    for (size, side), expected in AT_SIZES.items():
        assert Geometry.from_config(ModelConfig(name=f"lvvit_{size}_16_224", image_size=side)).parameters == expected
    at_384 = Geometry.from_config(ModelConfig(name="lvvit_s_16_224", image_size=384))
    assert round(resolve(parse("none"), at_384).macs / 1e9, 3) == 21.896


@pytest.mark.parametrize("spec", EVIT)
def test_evit_on_lvvit_costs_what_was_published(spec):
    plan = resolve(parse(spec), Geometry.from_config(ModelConfig(name="lvvit_s_16_224")))
    macs, tokens = EVIT[spec]
    assert (plan.macs, plan.tokens_out) == (macs, tuple(count for count in tokens for _ in range(4)))
    assert plan.trained_macs == macs


@pytest.mark.parametrize(("spec", "mix_alpha"), [(FUSED, 1.0), pytest.param("2(50%)+4", 0.0, marks=pytest.mark.slow)])
def test_every_parameter_gets_a_gradient(spec, mix_alpha):
    net = small(spec, drop_path_rate=0.1).set_train()
    objective = labelling(net, mix_alpha)
    labels, inputs = Tensor(np.array([0, 3, 4, 1], np.int32)), objective.sample(4, 0)

    def loss(x):
        return objective(labels, x, *inputs)

    _, gradients = ms.value_and_grad(loss, None, net.trainable_params())(images())
    for parameter, gradient in zip(net.trainable_params(), gradients):
        assert np.isfinite(gradient.asnumpy()).all(), parameter.name
        assert np.abs(gradient.asnumpy()).max() > 0, parameter.name


@pytest.mark.parametrize("spec", ["4(0%)+fused"])
def test_dropping_nothing_is_dense(spec):
    net = small()
    assert (net(images()).asnumpy() == net.with_tokens(spec)(images()).asnumpy()).all()


@pytest.mark.parametrize("spec", SPECS)
def test_graph_equals_pynative(spec):
    net = small(spec)
    graph = net(images()).asnumpy()
    with pynative():
        eager = net(images()).asnumpy()
    assert np.abs(graph - eager).max() < 1e-5


@pytest.mark.slow
def test_kernels_for_cpu_and_for_ascend_agree():
    for_cpu, for_ascend = (small(FUSED, target=target) for target in ("cpu", "ascend"))
    random = np.random.RandomState(0)
    for own, other in zip(for_cpu.get_parameters(), for_ascend.get_parameters()):
        assert (own.name, own.shape) == (other.name, other.shape)
        value = 0.2 * random.standard_normal(own.shape) + own.name.endswith(("gamma", "moving_variance"))
        for parameter in (own, other):
            parameter.set_data(Tensor(np.abs(value) if own.name.endswith("variance") else value, ms.float32))
    logits = [net(images()).asnumpy() for net in (for_cpu, for_ascend)]
    assert np.abs(logits[0] - logits[1]).max() < 1e-4 * np.abs(logits[0]).max()
    kept = [trace_tokens(net, images()) for net in (for_cpu, for_ascend)]
    assert all((kept[0][block] == kept[1][block]).all() for block in kept[0])


@pytest.mark.parametrize(("size", "stride"), [(7, 2), (3, 1)])
def test_a_convolution_by_products_is_that_of_the_library(size, stride):
    product, library = (convolution(3, 8, size, stride, target) for target in ("cpu", "ascend"))
    library.weight.set_data(product.weight)
    x = Tensor(np.random.RandomState(0).standard_normal((2, 3, 8, 12)).astype(np.float32))
    assert np.abs(product(x).asnumpy() - library(x).asnumpy()).max() < 1e-5

    def squares(net):
        def total(x):
            return ops.reduce_sum(ops.square(net(x)))

        _, (of_images, (of_weights,)) = ms.value_and_grad(total, 0, net.trainable_params())(x)
        return of_images.asnumpy(), of_weights.asnumpy()

    for own, other in zip(squares(product), squares(library)):
        assert np.abs(own - other).max() < 1e-3


class Heads(nn.Cell):
    """The logits of [CLS] and of the patch tokens apart, in evaluation."""

    def __init__(self, net):
        super().__init__(auto_prefix=False)
        self.net = net

    def construct(self, x):
        own, of_tokens, places = self.net.label_logits(x)
        return (own, of_tokens) if places is None else (own, of_tokens, places)


@pytest.mark.parametrize("spec", SPECS)
def test_logits_are_those_of_cls_and_half_of_the_largest_of_patches(spec):
    net = small(spec)
    own, of_tokens, *places = Heads(net)(images())
    own, of_tokens = own.asnumpy(), of_tokens.asnumpy()
    if places:
        of_tokens = np.where(places[0].asnumpy()[:, :, None] < 16, of_tokens, -np.inf)
    assert np.abs(net(images()).asnumpy() - (own + 0.5 * of_tokens.max(1))).max() < 1e-5


def test_a_fused_token_is_not_asked():
    """Of two fused tokens, one of which an earlier drop made, neither counts; patches that come back all do."""
    net = small("2,4(60%,60%)+fused")
    net.aux_head.weight.set_data(Tensor(np.full((5, 24), 0.1), ms.float32))
    own, of_tokens, places = Heads(net)(images(32))
    places, largest = places.asnumpy(), of_tokens.asnumpy()[:, :, 0].argmax(1)
    assert (places[:, -1] == 17).all()
    assert (np.sort(places[:, :-1], axis=1) == places[:, :-1]).all()
    won = (places == 16).any(1)
    assert won.any(), "an earlier fused token wins in some image, or this shows less than it should"
    assert (places[np.arange(32), largest] > 15).any(), "a fused token would be the largest somewhere"
    without = np.where(places[:, :, None] < 16, of_tokens.asnumpy(), -np.inf).max(1)
    assert np.abs(net(images(32)).asnumpy() - own.asnumpy() - 0.5 * without).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pynative"], indirect=True)
def test_other_sizes_rankings_and_features(mode):
    """The same weights at another image size, under every ranking, and the tokens in the order of the grid."""
    net = small()
    pixels = Tensor(np.random.RandomState(0).standard_normal((2, 3, 24, 16)).astype(np.float32))
    larger = net.with_tokens("2(50%)+4", (24, 16))
    assert larger(pixels).shape == (2, 5)
    assert larger.features(pixels).shape == (2, 6, 4, 24)
    for ranking in ("random", "received", "stride"):
        ranked = net.with_tokens(f"2(50%,{ranking})")
        assert np.isfinite(ranked(images(), *ranked.sample(4, 0)).asnumpy()).all()
        features, mask = ranked.features_and_mask(images(), *ranked.sample(4, 0))
        assert (mask.asnumpy().reshape(4, -1).sum(1) == 8).all()
        assert (features.asnumpy()[mask.asnumpy() == 0] == 0).all()


def test_moving_averages_move_in_training_alone():
    net = small()
    before = net.patch_embed.bn1.moving_mean.asnumpy().copy()
    net(images())
    assert (net.patch_embed.bn1.moving_mean.asnumpy() == before).all()
    net.set_train()
    net(images())
    assert (net.patch_embed.bn1.moving_mean.asnumpy() != before).any()
    assert np.abs(net.patch_embed.bn1.moving_mean.asnumpy()).max() < 1


@pytest.mark.parametrize(
    ("share", "centre", "box", "stays"),
    [(0.75, (7, 7), (4, 10, 4, 10), 0.816327), (0.75, (0, 13), (0, 3, 10, 14), 0.938776)],
)
def test_the_box_of_mixed_tokens(share, centre, box, stays):
    """The numbers of the authors' code: an odd side loses one, and a box ends at the border."""

    class Centre:
        def __init__(self):
            self.left = list(centre)

        def integers(self, _):
            return self.left.pop(0)

    top, bottom, left, right = draw_box(14, 14, share, Centre())
    assert (top, bottom, left, right) == box
    assert round(1 - (bottom - top) * (right - left) / 196, 6) == stays


def test_mixed_targets_equal_logits_that_are_mixed_back():
    """The authors paste the partner's logits back where tokens were mixed; here targets are mixed like the tokens."""
    random = np.random.RandomState(0)
    mixed = Tensor((random.rand(16) < 0.3).astype(np.float32))
    logits, targets = (Tensor(random.rand(4, 16, 5).astype(np.float32)) for _ in range(2))
    objective = labelling(small())
    share = mixed.reshape(1, 16, 1)
    ours = objective.loss_of_tokens(logits, mix_reversed(targets, share), None).asnumpy()
    theirs = objective.loss_of_tokens(mix_reversed(logits, share), targets, None).asnumpy()
    assert abs(ours - theirs) < 1e-6
    assert abs(ours - objective.loss_of_tokens(logits, targets, None).asnumpy()) > 2e-5


def test_targets_of_constant_maps_are_the_published_numbers():
    """Five classes of scores 10 to 6 at every place, and 0 for the others: softmax, then smoothing."""
    net = small(num_classes=1000)
    scores = np.broadcast_to(np.arange(10, 5, -1.0).reshape(1, 5, 1, 1), (1, 5, 7, 7))
    classes = np.broadcast_to(np.array([3, 999, 0, 17, 500.0]).reshape(1, 5, 1, 1), (1, 5, 7, 7))
    maps = Tensor(np.stack([scores, classes], 1).astype(np.float32))
    cut = Tensor(np.full((1, 5, 7), 1 / 7, np.float32))
    whole, patches = (found.asnumpy() for found in labelling(net, has_maps=True).targets_of_maps(maps, cut, cut))
    assert (whole.shape, patches.shape) == ((1, 1000), (1, 16, 1000))
    five = [3, 999, 0, 17, 500]
    odds = np.ones(1000)
    odds[five] = np.exp(np.arange(10, 5, -1.0))
    expected = (0.9 + 0.1 / 1000) * odds / odds.sum() + 0.1 / 1000  # on and off value of smoothing by 0.1
    assert np.round(expected[five], 6).tolist() == [0.556924, 0.204944, 0.075458, 0.027823, 0.010299]  # published
    assert np.abs(whole - expected).max() < 1e-6
    assert np.abs(patches - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"patch_size": 1}, "patch_size 1"),
        ({"pool": "avg"}, "not model.pool avg"),
        ({"distilled": True}, "not a distillation token"),
        ({"backbone": "resnet"}, "choose one of vit, lvvit"),
    ],
)
def test_what_cannot_be_built_is_refused(sizes, said):
    with pytest.raises(UserError, match=said):
        small(**sizes)
