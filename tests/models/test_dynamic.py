"""DynamicViT's predictors: agreement with the reference, masks, decisions, gradients."""

import math
from functools import partial

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from src.config import PredictorConfig
from src.models import build
from src.models.dynamic import MaskedViT, decide
from src.models.layers import Attention
from src.models.ops import hold_statistics
from src.models.predictor import Predictor
from src.schedules import Geometry, parse, resolve
from src.training.distillation import Distillation, ratio_loss
from src.training.loss import Loss
from src.weights.load import assign
from src.weights.timm import from_timm
from tests.helpers import reference, reference_lvvit
from tests.helpers import reference_dynamicvit as told
from tests.helpers.modes import pynative

SPEC = "2,3(30%,40%,predictor)"
SIZES = {"image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 4, "num_classes": 5,
         "act": "gelu_erf"}  # fmt: skip
BACKBONES = {"vit": {}, "lvvit": {"backbone": "lvvit", "mlp_ratio": 3.0, "residual_divisor": 2.0}}
DIVISOR = {"vit": 1, "lvvit": 2}
IMAGES = np.random.RandomState(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
NOISE = np.random.RandomState(2).gumbel(size=(2, 3, 16, 2)).astype(np.float32)


def weights_of(backbone, seed, stages=2):
    """Random weights by our names, rounded to float32, in float64 for the reference."""
    vit = partial(reference.random_weights, depth=4)
    drawn = reference_lvvit.random_weights(seed) if backbone == "lvvit" else from_timm(vit(seed))
    drawn = {**drawn, **told.random_predictors(seed, 24, stages)}
    return {name: weight.astype(np.float32).astype(np.float64) for name, weight in drawn.items()}


def network_of(backbone, weights, spec=SPEC):
    network = build(spec, **SIZES, **BACKBONES[backbone])
    assign(network, {name: weight.astype(np.float32) for name, weight in weights.items()}, "reference")
    return network.set_train(False)


def noise(drawn=NOISE):
    return tuple(map(Tensor, drawn))


@pytest.fixture(scope="module", params=["vit", "lvvit"])
def case(request):
    """A backbone, its weights, and a network of them."""
    weights = weights_of(request.param, 1)
    return request.param, weights, network_of(request.param, weights)


@pytest.fixture(autouse=True)
def eager():
    with pynative():
        yield


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def test_the_masked_pass_is_the_references(case, mode):
    backbone, weights, network = case
    expected = told.masked_pass(weights, IMAGES, SPEC, NOISE, divisor=DIVISOR[backbone])
    ms.set_context(mode=mode)
    logits, tokens, decisions = MaskedViT(network)(Tensor(IMAGES), None, noise())
    assert np.abs(logits.asnumpy() - expected.cls).max() < 1e-5
    assert np.abs(tokens.asnumpy() - expected.features).max() < 1e-5
    for decision, own in zip(decisions, expected.decisions.values()):
        assert np.array_equal(decision.asnumpy()[:, :, 0], own)
    assert {0, 1} == {*expected.decisions[2].ravel()} == {*expected.decisions[3].ravel(), 1}


def test_evaluation_keeps_the_likeliest_as_the_reference_does(case):
    backbone, weights, network = case
    expected = told.topk_pass(weights, IMAGES, SPEC, divisor=DIVISOR[backbone])
    logits, _, ids = network.forward_with_scores(Tensor(IMAGES))
    assert np.abs(logits.asnumpy() - expected.logits).max() < 1e-5
    kept, _ = network.router.follow(ids)
    assert [own.shape[1] for own in kept] == [11, 6]
    for own, places in zip(kept, expected.kept.values()):
        assert np.array_equal(own.asnumpy(), places)


def test_a_token_that_has_left_moves_nothing_and_never_returns(case):
    """Another embedding of it changes the logits by less than 1e-5; one of a token that stays by far more."""
    backbone, weights, _ = case
    network = network_of(backbone, weights, "1,3(30%,40%,predictor)")
    masked = MaskedViT(network)
    drawn = np.zeros((2, 3, 16, 2), np.float32)
    drawn[..., 0] = 50
    drawn[0, :, 5] = 0, 50  # leaves in the first stage, and the second would have it back
    drawn[1, :, 7] = 0, 50
    given = None, noise(drawn)
    tokens = network.embed(Tensor(IMAGES)).asnumpy()
    outputs, decisions = masked.encode(Tensor(tokens), *given)
    left = [np.flatnonzero(decision.asnumpy()[0, :, 0] == 0).tolist() for decision in decisions]
    assert left == [[5], [5, 7]]
    moved = {}
    for place in (5, 6):
        other = tokens.copy()
        other[:, 1 + place] *= -2
        changed, _ = masked.encode(Tensor(other), *given)
        moved[place] = np.abs(network.class_logits(changed).asnumpy() - network.class_logits(outputs).asnumpy()).max()
    assert moved[5] < 1e-5
    assert moved[6] > 1e-3


def attention():
    ms.set_seed(0)
    return Attention(24, 4, 0.0, "cpu").set_train(False)


def test_under_a_mask_of_ones_attention_is_softmax_and_who_has_left_sees_itself():
    attn, x = attention(), Tensor(np.random.RandomState(0).standard_normal((2, 17, 24)).astype(np.float32))
    for weight in attn.get_parameters():
        weight.set_data(Tensor(np.random.RandomState(1).standard_normal(weight.shape).astype(np.float32)))
    plain, _, _ = attn(x)
    ones, own = Tensor(np.ones((2, 1, 17, 17), np.float32)), Tensor(np.tile(np.eye(17, dtype=np.float32), (2, 1, 1, 1)))
    scale = np.abs(plain.asnumpy()).max()
    assert np.abs(attn.masked(x, ones).asnumpy() - plain.asnumpy()).max() < 1e-5 * scale
    _, values = attn.products(x)
    alone = attn.proj(values.transpose(0, 2, 1, 3).reshape(2, 17, 24))
    assert np.abs(attn.masked(x, own).asnumpy() - alone.asnumpy()).max() < 1e-5 * scale


@pytest.mark.parametrize(("below", "authors"), [(5, 0.9999), (10, 0.979), (20, 0.0071), (40, 0.0051)])
def test_a_key_that_is_not_seen_takes_nothing_from_those_that_are(below, authors):
    """As the authors have it, the one key that is seen would lose what `authors` says; its gradient is finite too."""
    products = np.zeros((1, 1, 1, 197), np.float32)
    products[..., 0] = -below
    seen = np.zeros_like(products)
    seen[..., 0] = 1
    exact = np.exp(products - products.max()) * seen
    assert ((exact + 1e-6 / 197) / (exact.sum() + 1e-6))[..., 0] == pytest.approx(authors, rel=0.01)
    attn = attention()
    attn.products = lambda x: (x, None)
    attn.mix = lambda weights, values: weights
    weigh = lambda given, visible: attn.masked(given, visible)[0, 0, 0, 0]  # noqa: E731
    weight, slopes = ops.value_and_grad(weigh, (0, 1))(Tensor(products), Tensor(seen))
    _, far = ops.value_and_grad(weigh, (0, 1))(Tensor(products * 100), Tensor(seen))
    assert float(weight.asnumpy()) > 0.99999
    assert slopes[1].asnumpy()[0, 0, 0, 1:] == pytest.approx(-math.e, rel=1e-4)
    assert all(np.isfinite(slope.asnumpy()).all() for slope in far)


def test_a_predictor_of_vit_s():
    predictor = Predictor(384, "gelu_erf", "cpu")
    assert sum(weight.size for weight in predictor.get_parameters()) == 241_250
    x = np.random.RandomState(0).standard_normal((2, 196, 384)).astype(np.float32)
    present = np.ones((2, 196, 1), np.float32)
    present[:, 3] = 0
    other = x.copy()
    other[:, 3] *= -1
    first, second = (predictor(Tensor(given), Tensor(present)).asnumpy() for given in (x, other))
    assert first.shape == (2, 196, 2)
    assert np.exp(first).sum(2) == pytest.approx(1, abs=3e-6)
    assert np.array_equal(np.delete(first, 3, 1), np.delete(second, 3, 1))  # all alike know nothing of who has left
    assert (first[:, 3] != second[:, 3]).any()
    everyone = predictor(Tensor(other)).asnumpy() - predictor(Tensor(x)).asnumpy()
    assert np.abs(np.delete(everyone, 3, 1)).max() > 0


def test_decisions_are_drawn_by_their_probabilities_and_stay_taken():
    told_logits = Tensor(np.log(np.tile(np.float32([0.7, 0.3]), (1, 20_000, 1))))
    drawn = Tensor(np.random.RandomState(0).gumbel(size=(1, 20_000, 2)).astype(np.float32))
    decision = decide(told_logits, drawn, None).asnumpy()
    assert set(decision.ravel()) == {0, 1}
    assert decision.mean() == pytest.approx(0.7, abs=0.01)
    before = Tensor((np.arange(20_000) % 2).astype(np.float32).reshape(1, -1, 1))
    assert not decide(told_logits, drawn, before).asnumpy()[:, ::2].any()


def test_a_stage_that_drops_nothing_leaves_the_others_their_predictors():
    """As under a curve, or another schedule of evaluation."""
    weights = weights_of("vit", 1)
    network = network_of("vit", weights, "2,3(0%,30%,predictor)")
    assert network.predictor_of == (None, None, 1, None)
    assert MaskedViT(network).shares == (0.7,)
    drawn = NOISE[:1]
    _, _, decisions = MaskedViT(network)(Tensor(IMAGES), None, noise(drawn))
    x = network.blocks[1](network.blocks[0](network.embed(Tensor(IMAGES))))
    expected = decide(network.predictors[1](x[:, 1:]), Tensor(drawn[0]), None)
    assert np.array_equal(decisions[0].asnumpy(), expected.asnumpy())


def test_random_inputs_are_those_of_their_seed():
    network = build(SPEC, **SIZES, drop_path_rate=0.2).set_train()
    first, same, other = (MaskedViT(network).sample(3, 0, 1, seed) for seed in (5, 5, 6))
    assert [part.shape for part in first.random_scores] == [(3, 16, 2)] * 2
    assert first.drop_path_scale.shape == (3, 4, 2)
    assert np.array_equal(first.random_scores[1].asnumpy(), same.random_scores[1].asnumpy())
    assert (first.random_scores[1].asnumpy() != other.random_scores[1].asnumpy()).all()
    assert (first.random_scores[0].asnumpy() != first.random_scores[1].asnumpy()).all()


def test_the_loss_of_shares():
    plan = resolve(
        parse("4,7,10(30%,30%,30%,predictor)"), Geometry.from_sizes(224, 16, 384, 12, 6, 4.0, 1000, predictors=3)
    )
    assert plan.shares == pytest.approx((0.7, 0.49, 0.343))

    def loss(shares):
        kept = [(np.arange(1000) < 1000 * share).astype(np.float32).reshape(1, -1, 1) for share in shares]
        return 2 * np.mean([float(ratio_loss(Tensor(own), aim).asnumpy()) for own, aim in zip(kept, plan.shares)])

    assert loss((1, 1, 1)) == pytest.approx(0.521166, abs=1e-6)
    assert loss((0.5, 0.25, 0.125)) == pytest.approx(0.096749, abs=1e-6)
    assert loss((0.7, 0.49, 0.343)) == pytest.approx(0, abs=1e-9)


def objective_of(backbone, network, **weights):
    teacher = network_of(backbone, weights_of(backbone, 3, stages=0), "none")
    return Distillation(MaskedViT(network, teacher), Loss(5, 0.0), PredictorConfig(**weights))


def test_the_loss_is_the_references(case):
    """With each of its terms; labels of mixed images."""
    backbone, weights, network = case
    divisor, targets = DIVISOR[backbone], np.random.RandomState(0).dirichlet(np.ones(5), 3)
    drawn = NOISE + np.float32([1, 0])  # some stay to the end
    outcome = told.masked_pass(weights, IMAGES, SPEC, drawn, divisor=divisor)
    taught = told.masked_pass(weights_of(backbone, 3, stages=0), IMAGES, "none", (), divisor=divisor)
    assert 0 < list(outcome.decisions.values())[-1].mean() < 0.5
    shares, terms, given = (0.7, 0.42), (2.0, 0.5, 0.7), (Tensor(IMAGES), None, noise(drawn))
    labels = Tensor(targets.astype(np.float32))
    names = ("ratio_weight", "logits_weight", "tokens_weight")
    found = objective_of(backbone, network, **dict(zip(names, terms)))(labels, *given)
    assert float(found.asnumpy()) == pytest.approx(told.loss(outcome, taught, targets, shares, *terms), rel=2e-5)
    logits_alone = told.loss(outcome, taught, targets, shares, 2.0, 0.5, 0.0)
    assert abs(logits_alone - told.loss(outcome, taught, targets, shares, *terms)) > 1e-2


def test_every_parameter_gets_a_gradient(case):
    """Of the predictors through hard decisions; none flows into the teacher."""
    backbone, weights, _ = case
    network = network_of(backbone, weights).set_train()
    objective = objective_of(backbone, network)
    trained = ms.ParameterTuple(network.trainable_params())
    labels = Tensor(np.array([0, 1, 2], np.int32))
    slopes = ops.grad(objective, None, trained)(labels, Tensor(IMAGES), None, noise(NOISE + np.float32([1, 0])))
    assert len(slopes) == len(trained) > 50 + 2 * 10
    silent = [weight.name for weight, slope in zip(trained, slopes) if not np.abs(slope.asnumpy()).max() > 0]
    assert silent == []
    assert all(np.isfinite(slope.asnumpy()).all() for slope in slopes)


@pytest.mark.parametrize("target", ["cpu", "ascend"])
def test_a_teacher_says_in_training_what_it_says_in_evaluation(target):
    """Its BatchNorms do neither normalise by the batch nor move."""
    weights = weights_of("lvvit", 3, stages=0)
    teacher = build("none", **{**SIZES, **BACKBONES["lvvit"], "num_classes": 5}, target=target)
    assign(teacher, {name: weight.astype(np.float32) for name, weight in weights.items()}, "reference")
    expected = teacher.set_train(False)(Tensor(IMAGES)).asnumpy()
    own = teacher.set_train()(Tensor(IMAGES)).asnumpy()
    assert np.abs(own - expected).max() > 1e-3
    assign(teacher, {name: weight.astype(np.float32) for name, weight in weights.items()}, "reference")
    hold_statistics(teacher)
    assert np.abs(teacher.set_train()(Tensor(IMAGES)).asnumpy() - expected).max() < 1e-5
    assert np.array_equal(
        teacher.patch_embed.bn1.moving_mean.asnumpy(), weights["patch_embed.bn1.moving_mean"].astype(np.float32)
    )
