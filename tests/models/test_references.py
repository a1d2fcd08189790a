"""The NumPy references of LV-ViT, token labelling and DynamicViT: against published numbers and against each other."""

import math

import numpy as np
import pytest

from tests.helpers import originals, reference
from tests.helpers import reference_dynamicvit as dynamicvit
from tests.helpers import reference_lvvit as lvvit

SHARES = [0.7, 0.49, 0.343]
STAGES = "2,3(30%,50%,predictor)"


@pytest.fixture(scope="module")
def weights():
    return {**lvvit.random_weights(0), **dynamicvit.random_predictors(1, 24, stages=2)}


@pytest.fixture(scope="module")
def vit():
    weights = reference.random_weights(0, depth=4)
    return {**weights, **dynamicvit.random_predictors(1, 24, stages=2)}


@pytest.fixture(scope="module")
def images():
    return np.random.RandomState(2).standard_normal((3, 3, 16, 16))


def test_parameters_of_lvvit_s_and_of_predictors():
    shapes = lvvit.shapes_of(384, 16, 16, 196, 1000, 1152)
    trained = [math.prod(shape) for name, shape in shapes.items() if "moving" not in name]
    assert (len(trained), sum(trained)) == (195, 26_151_824)
    for dim, count in ((192, 60_722), (256, 107_586), (384, 241_250), (512, 428_162), (768, 961_730)):
        assert sum(map(math.prod, dynamicvit.predictor_shapes(dim, 1).values())) == count


def test_the_stem_is_a_convolution_and_normalises(weights, images):
    kernel = np.random.RandomState(0).standard_normal((2, 3, 3, 3))
    out, padded = lvvit.convolve(images, kernel, 2, 1), np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert out.shape == (3, 2, 8, 8)
    assert out[1, 1, 3, 5] == pytest.approx((padded[1, :, 6:9, 10:13] * kernel[1]).sum())
    plain = {"bn.weight": np.ones(3), "bn.bias": np.zeros(3), "bn.moving_mean": np.full(3, 2.0),
             "bn.moving_variance": np.full(3, 4.0)}  # fmt: skip
    by_batch = lvvit.batch_norm(plain, "bn", images, training=True)
    assert np.abs(by_batch.mean((0, 2, 3))).max() < 1e-12
    assert np.abs(by_batch.std((0, 2, 3)) - 1).max() < 1e-4
    assert np.abs(lvvit.batch_norm(plain, "bn", images, training=False) - (images - 2) / 2).max() < 1e-5
    assert lvvit.stem(lvvit.timm_names(weights), images, 4, False).shape == (3, 16, 24)


@pytest.mark.parametrize(
    ("spec", "remain"),
    [("none", 16), ("2(50%)+fused", 8), ("2(50%)+4", 16), ("2(50%)", 8)],
)
def test_evaluation_adds_half_the_largest_of_what_remains(weights, images, spec, remain):
    out = lvvit.forward(weights, images, spec)
    assert out.aux.shape == (3, remain, 5)
    assert (np.diff(out.places) > 0).all()
    assert out.places.max() < 16
    assert np.array_equal(out.logits, out.cls + 0.5 * out.aux.max(1))
    if spec != "none":
        assert np.abs(out.cls - lvvit.forward(weights, images).cls).max() > 1e-3


def test_a_fused_token_is_neither_labelled_nor_in_the_maximum(weights, images):
    """It takes a patch's place in a later drop where it wins."""
    out = lvvit.forward(weights, images, "2,3(80%,30%)+fused")
    places, kept = out.places, out.kept[3]
    assert kept.shape == (3, 4)  # ceil(0.7 * (4 + 1))
    assert (kept == 16).any()
    for image in range(3):
        assert set(places[image][places[image] >= 0]) == set(kept[image][kept[image] < 16])
        assert np.array_equal(out.logits[image], out.cls[image] + 0.5 * out.aux[image][places[image] >= 0].max(0))


def test_the_divisor_folds_into_the_last_layers(weights, images):
    folded = {name: w / 2 if "attn.proj" in name or "fc2" in name else w for name, w in weights.items()}
    expected = lvvit.forward(weights, images, "2(50%)+fused").logits
    assert np.abs(lvvit.forward(folded, images, "2(50%)+fused", divisor=1).logits - expected).max() < 1e-10
    assert np.abs(lvvit.forward(weights, images, "2(50%)+fused", divisor=1).logits - expected).max() > 1e-2


def test_mixtoken_takes_tokens_of_the_reversed_batch(weights, images):
    plain, swapped = (lvvit.forward(weights, images, mask=np.full(16, value)) for value in (0, 1))
    assert np.array_equal(plain.cls, lvvit.forward(weights, images).cls)
    assert np.abs(swapped.cls - plain.cls[::-1]).max() < 1e-12
    box = lvvit.mix_mask(0.75, (1, 1), (4, 4))
    mixed = lvvit.forward(weights, images, mask=box)
    assert np.abs(mixed.cls - plain.cls)[[0, 2]].min() > 1e-6  # the middle image meets itself
    assert np.abs(mixed.cls - plain.cls)[1].max() < 1e-12


@pytest.mark.parametrize(("centre", "shape", "own"), [((7, 7), (6, 6), 0.816327), ((0, 13), (3, 4), 0.938776)])
def test_boxes_of_mixtoken(centre, shape, own):
    mask = lvvit.mix_mask(0.75, centre, (14, 14))
    assert (mask.any(1).sum(), mask.any(0).sum()) == shape
    assert 1 - mask.mean() == pytest.approx(own, abs=1e-6)


def label_maps(batch=4, side=6, classes=20):
    random = np.random.RandomState(3)
    numbers = np.argsort(random.random_sample((batch, classes, side, side)), axis=1)[:, :5]
    scores = -np.sort(-random.uniform(2, 12, (batch, 5, side, side)), axis=1)
    return np.stack([scores, numbers], axis=1)


def test_targets_of_label_maps():
    maps = np.zeros((1, 2, 5, 18, 18))
    maps[0, 0], maps[0, 1] = (np.arange(10, 5, -1)[:, None, None], np.arange(5)[:, None, None])
    sides = [lvvit.roi_matrices(0.1, 0.8, 18, 14)[None], lvvit.roi_matrices(0.3, 0.55, 18, 14)[None]]
    tokens, whole = lvvit.map_targets(maps, *sides, 1000)
    expected = [0.556924, 0.204944, 0.075458, 0.027823, 0.010299, 0.000125]
    assert np.abs(tokens[:, :, :6] - expected).max() < 1e-5
    assert np.abs(whole[0, :6] - expected).max() < 1e-5
    assert tokens.sum(-1).ravel() == pytest.approx(1.0001)


def test_regions_of_a_map():
    assert np.allclose(lvvit.roi_matrix(0, 1, 18, 1), 1 / 18)  # the map's own mean
    matrix = lvvit.roi_matrices(0.25, 0.75, 8, 4)
    assert matrix.shape == (5, 8)
    assert np.allclose(matrix.sum(1), 1)
    assert np.allclose(matrix[:4], np.eye(8)[2:6])
    assert np.allclose(matrix[4], [0, 0, 0.25, 0.25, 0.25, 0.25, 0, 0])
    assert np.allclose(lvvit.roi_matrix(0.25, 0.75, 8, 8)[1], np.array([0, 0, 3, 1, 0, 0, 0, 0]) / 4)


def test_an_unmixed_loss_equals_mixed_targets():
    random = np.random.RandomState(4)
    sides = lvvit.roi_matrices(0.1, 0.9, 6, 4)[None].repeat(4, 0)
    tokens, whole = lvvit.map_targets(label_maps(), sides, sides[:, :, ::-1], 20)
    mask = lvvit.mix_mask(0.5, (1, 2), (4, 4)).ravel()
    cls, aux = random.standard_normal((4, 20)), random.standard_normal((4, 16, 20))
    mixed_tokens, mixed_whole = lvvit.mixed_targets(tokens, whole, mask)
    out = lvvit.Outcome(cls, cls, aux, np.arange(16)[None].repeat(4, 0), {})
    loss = lvvit.token_label_loss(out, mixed_tokens, mixed_whole, 1.0, 0.5)
    unmixed = np.where(mask[:, None] == 1, aux[::-1], aux)
    own = 1 - mask.mean()
    by_hand = lvvit.cross_entropy(cls, own * whole + (1 - own) * whole[::-1]) + 0.5 * lvvit.cross_entropy(
        unmixed, tokens
    )
    assert loss == pytest.approx(by_hand, abs=1e-12)
    assert abs(loss - lvvit.token_label_loss(out, tokens, whole, 1.0, 0.5)) > 1e-3


def test_remaining_tokens_meet_the_targets_of_their_places():
    tokens, whole = lvvit.image_targets([1, 0], 4, 3)
    assert tokens.shape == (2, 4, 3)
    assert np.allclose(whole, [[0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3], [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    targets = np.eye(4)[None].repeat(2, 0)  # token n is of class n
    places = np.array([[1, 3], [0, 2]])
    out = lvvit.Outcome(None, np.zeros((2, 3)), 50 * np.eye(4)[places], places, {})
    assert lvvit.token_label_loss(out, targets, whole, 0, 1) < 1e-12


def test_scores_of_a_predictor(weights):
    weights = lvvit.timm_names(weights)
    random, decision = np.random.RandomState(5), np.array([1.0, 0.0] * 8)
    tokens = random.standard_normal((16, 24))
    scores = dynamicvit.predict(weights, 0, tokens, decision)
    assert scores.shape == (16, 2)
    assert np.exp(scores).sum(1) == pytest.approx(1)
    tokens[1] = random.standard_normal(24)
    others = np.arange(16) != 1
    assert np.array_equal(dynamicvit.predict(weights, 0, tokens, decision)[others], scores[others])
    tokens[2] = random.standard_normal(24)
    assert not np.isclose(dynamicvit.predict(weights, 0, tokens, decision)[others], scores[others]).any()
    assert np.isfinite(dynamicvit.predict(weights, 0, tokens, 0 * decision)).all()


def test_masked_attention():
    products = np.random.RandomState(6).standard_normal((7, 7)) * 3
    assert np.abs(dynamicvit.softmax_of_kept(products, np.ones(7)) - reference.softmax(products)).max() < 1e-6
    masked = dynamicvit.softmax_of_kept(products, np.array([1.0, 0, 1, 1, 0, 1, 1]))
    assert masked[1, 1] > 1e-3  # a dropped one sees itself
    assert masked[[0, 2, 3, 5, 6]][:, [1, 4]].max() < 1e-6
    assert masked.sum(1) == pytest.approx(1)


@pytest.mark.parametrize(("below", "original"), [(5, 0.9999), (10, 0.979), (20, 0.0071), (40, 0.0051)])
def test_a_kept_key_far_below_a_dropped_one(below, original):
    products = np.zeros((197, 197))
    products[0, 0], products[0, 1] = -below, 0
    decision = np.array([1.0] + [0] * 196)
    exponents = np.exp(products - products.max(1, keepdims=True)) * np.maximum(decision, np.eye(197))
    by_all = (exponents + 1e-6 / 197) / (exponents.sum(1, keepdims=True) + 1e-6)
    assert by_all[0, 0] == pytest.approx(original, abs=5e-5 + 5e-4 * (below == 10))
    assert dynamicvit.softmax_of_kept(products, decision)[0, 0] > 0.99999


@pytest.mark.parametrize("backbone", ["vit", "lvvit"])
def test_dropped_tokens_never_return_and_move_nothing(request, weights, images, backbone):
    weights = weights if backbone == "lvvit" else request.getfixturevalue("vit")
    noise = np.random.RandomState(7).gumbel(size=(2, 3, 16, 2))
    noise[0, :, 5] = [-1000, 0]  # the first stage drops it
    noise[1, :, 5] = [1000, 0]  # and the second would have it back
    out = dynamicvit.masked_pass(weights, images, STAGES, noise, divisor=2)
    first, second = out.decisions.values()
    assert set(np.unique(first)) == {0, 1}
    assert (second <= first).all()
    assert (second < first).any()
    assert not first[:, 5].any()
    assert not second[:, 5].any()
    with_one = dynamicvit.masked_pass(weights, images, STAGES, np.abs(noise) * [1000, 0], divisor=2)
    assert np.abs(with_one.cls - dynamicvit.topk_pass(weights, images, "none", divisor=2).cls).max() < 1e-4
    weigh, steps = dynamicvit.softmax_of_kept, [0]

    def planted(products, decision):  # in the last block, the dropped token becomes what everybody seeks
        steps[0] += 1
        return weigh(products + 30 * (np.arange(17) == 6) * (steps[0] % 16 > 12), decision)

    moved = dynamicvit.masked_pass(weights, images, STAGES, noise, divisor=2, weigh=planted)
    assert np.abs(moved.cls - out.cls).max() < 1e-5


@pytest.mark.parametrize("backbone", ["vit", "lvvit"])
def test_a_masked_pass_equals_one_that_gathers_the_same_tokens(request, weights, images, backbone):
    weights = weights if backbone == "lvvit" else request.getfixturevalue("vit")
    short = dynamicvit.topk_pass(weights, images, STAGES, divisor=2)
    assert [short.kept[block].shape for block in (2, 3)] == [(3, 11), (3, 5)]
    noise = np.zeros((2, 3, 16, 2))
    for stage, places in enumerate(short.kept.values()):
        np.put_along_axis(noise[stage, :, :, 0], places, 1000, axis=1)
        noise[stage, :, :, 1] = 500
    full = dynamicvit.masked_pass(weights, images, STAGES, noise, divisor=2)
    assert np.array_equal(np.nonzero(full.decisions[3])[1].reshape(3, 5), short.kept[3])
    assert np.abs(full.cls - short.cls).max() < 1e-4
    at_places = np.take_along_axis(full.features, short.places[:, :, None], axis=1)
    assert np.abs(at_places - short.features).max() < 1e-4
    assert np.abs(short.cls - dynamicvit.topk_pass(weights, images, "none", divisor=2).cls).max() > 1e-3


def test_a_dense_pass_is_the_other_references(vit, weights, images):
    assert (
        np.abs(dynamicvit.topk_pass(vit, images, "none").logits - reference.forward(vit, images, "none")[0]).max()
        < 1e-12
    )
    dense = dynamicvit.topk_pass(weights, images, "none", divisor=2)
    assert np.abs(dense.logits - lvvit.forward(weights, images).logits).max() < 1e-12


@pytest.mark.parametrize(
    ("percent", "counts"),
    [(10, [176, 158, 142]), (20, [156, 125, 100]), (30, [137, 96, 67]), (40, [117, 70, 42]), (50, [98, 49, 24])],
)
def test_counts_of_what_is_kept(percent, counts):
    spec = f"4,7,10({percent}%,{percent}%,{percent}%,predictor)"
    assert list(dynamicvit.keep_counts(spec, 196).values()) == counts


def test_losses():
    kept = [np.arange(400)[None] < 400 * share for share in (0.5, 0.25, 0.125)]
    assert 2 * dynamicvit.ratio_loss([np.ones((2, 10))] * 3, SHARES) == pytest.approx(0.521166, abs=1e-6)
    assert 2 * dynamicvit.ratio_loss(kept, SHARES) == pytest.approx(0.096749, abs=1e-6)
    assert dynamicvit.ratio_loss(kept, [0.5, 0.25, 0.125]) == 0
    teacher, student = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.25, 0.75], [0.9, 0.1]])
    by_hand = (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2
    assert dynamicvit.divergence(teacher + 3, student) == pytest.approx(by_hand)
    features = np.zeros((2, 3, 4))
    features[0, 1], features[1, 2] = 2, 5
    decision = np.array([[1, 1, 0], [1, 0, 0]])
    assert dynamicvit.token_loss(features, np.zeros_like(features), decision) == pytest.approx(4 / 3)
    assert dynamicvit.token_loss(features, np.zeros_like(features), 0 * decision) == 0
    assert dynamicvit.token_loss(teacher[:, None], student[:, None], np.ones((2, 1)), True) == pytest.approx(by_hand)


@pytest.mark.parametrize("backbone", ["vit", "lvvit"])
def test_the_whole_loss_is_its_parts(request, weights, images, backbone):
    weights = weights if backbone == "lvvit" else request.getfixturevalue("vit")
    out = dynamicvit.masked_pass(weights, images, STAGES, np.random.RandomState(8).gumbel(size=(2, 3, 16, 2)))
    teacher = dynamicvit.topk_pass(weights, images, "none")
    _, targets = lvvit.image_targets([0, 1, 2], 1, 5)
    whole = dynamicvit.loss(out, teacher, targets, [0.7, 0.35])
    assert whole > dynamicvit.loss(out, teacher, targets, [0.7, 0.35], 2.0, 0, 0)
    assert dynamicvit.loss(
        teacher._replace(decisions=out.decisions), teacher, targets, [0.7, 0.35], 0
    ) == pytest.approx(lvvit.cross_entropy(teacher.cls, targets))


def in_float64(case):
    return {name: weight.astype(np.float64) for name, weight in originals.weights_of(case).items()}


def labelled_loss(weights):
    """LV-ViT's outcome in training, and the loss of its token labels; of the originals' case."""
    sizes = {"heads": originals.HEADS, "patch": originals.PATCH, "divisor": originals.DIVISOR}
    out = lvvit.forward(weights, originals.IMAGES, **sizes, training=True, mask=originals.BOX)
    targets = lvvit.map_targets(originals.label_maps()[0], *originals.label_matrices(), originals.CLASSES)
    return out, lvvit.token_label_loss(out, *lvvit.mixed_targets(*targets, originals.BOX), 1.0, 0.5)


def test_what_lvvits_own_code_computed():
    weights, stored = in_float64("lvvit"), originals.results_of("lvvit")
    logits = lvvit.forward(weights, originals.IMAGES, divisor=originals.DIVISOR).logits
    assert np.abs(logits - stored["eval/logits"]).max() < 1e-10
    out, loss = labelled_loss(weights)
    assert np.abs(out.cls - stored["train/cls"]).max() < 1e-10
    assert np.abs(out.aux - stored["train/aux"]).max() < 1e-10
    assert abs(loss - stored["train/loss"]) < 1e-5  # whose RoIAlign is in float32


def along_directions(loss, weights, probed, names):
    """Central differences of a loss by some parameters, and what the original's gradients say of the same."""
    along = originals.directions({name: w.shape for name, w in weights.items() if "moving" not in name})
    assert len(along) == len(probed)
    for name in names:
        ends = [loss({**weights, name: weights[name] + step * along[name]}) for step in (-1e-7, 1e-7)]
        product, size = probed[sorted(along).index(name)]
        assert abs((ends[1] - ends[0]) / 2e-7 - product) < 1e-5 * size, name


def test_gradients_of_lvvits_own_code():
    names = "patch_embed.conv1.weight", "patch_embed.bn2.gamma", "blocks.0.attn.qkv.weight", "aux_head.bias"
    probed = originals.results_of("lvvit")["train/gradients"]
    along_directions(lambda weights: labelled_loss(weights)[1], in_float64("lvvit"), probed, names)


@pytest.mark.parametrize("case", originals.CASES[1:])
def test_what_dynamicvits_own_code_computed(case):
    weights, stored = in_float64(case), originals.results_of(case)
    sizes = {"divisor": originals.DIVISOR if "lvvit" in case else 1}
    short = dynamicvit.topk_pass(weights, originals.IMAGES, originals.STAGES, **sizes)
    assert np.abs(short.logits - stored["eval/logits"]).max() < 1e-10
    assert all(np.array_equal(places, stored[f"eval/kept/{block}"]) for block, places in short.kept.items())
    teacher = dynamicvit.topk_pass(weights, originals.IMAGES, "none", **sizes)
    stem = {"training": True} if "lvvit" in case else {}
    noise = originals.NOISE.astype(np.float64)
    out = dynamicvit.masked_pass(weights, originals.IMAGES, originals.STAGES, noise, **sizes, **stem)
    for block, decision in out.decisions.items():
        assert np.array_equal(decision, stored[f"kept/decision/{block}"])
    assert np.abs(out.cls - stored["kept/cls"]).max() < 1e-5  # whose masked softmax is in float32
    tokens = out.features if out.aux is None else out.aux
    assert np.abs(tokens - stored["kept/tokens"]).max() < 2e-5
    loss = dynamicvit.loss(out, teacher, originals.TARGETS, originals.SHARES)
    assert abs(loss - stored["kept/loss"]) < 1e-5
    assert np.abs(out.cls - stored["all/cls"]).max() > 1e-2  # the largest over dropped keys too is another network


@pytest.mark.parametrize("case", originals.CASES[1:])
def test_gradients_through_hard_decisions_of_dynamicvits_own_code(case):
    weights, noise = in_float64(case), originals.NOISE.astype(np.float64)
    arguments = {"divisor": originals.DIVISOR, "training": True} if "lvvit" in case else {}
    teacher = dynamicvit.topk_pass(weights, originals.IMAGES, "none", divisor=arguments.get("divisor", 1))

    def masked(weights, around=None):
        images, spec = originals.IMAGES, originals.STAGES
        return dynamicvit.masked_pass(weights, images, spec, noise, around=around, **arguments)

    chosen = masked(weights)
    names = "predictors.0.out3.weight", "predictors.0.in_norm.gamma", "predictors.1.in_proj.bias", "pos_embed"
    probed = originals.results_of(case)["kept/gradients"]
    along_directions(
        lambda near: dynamicvit.loss(masked(near, chosen), teacher, originals.TARGETS, originals.SHARES),
        weights, probed, names,
    )  # fmt: skip
