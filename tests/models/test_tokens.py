"""Token operations: valid permutations for any scores, and moves that lose no bit."""

import mindspore as ms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mindspore import Tensor, nn

from src.models.tokens import Rejoin, Split, cls_scores, fuse, rank


class Rank(nn.Cell):
    def __init__(self, keep, prefix=1):
        super().__init__()
        self.keep = keep
        self.prefix = prefix

    def construct(self, scores):
        return rank(scores, self.keep, self.prefix)


def ranked(scores, keep, prefix=1):
    return [places.asnumpy() for places in Rank(keep, prefix)(Tensor(scores))]


def expected_order(scores, keep, prefix=1):
    """Lowest place first among equals, NaN as -65504, subnormal as 0; kept, then dropped, each in original order."""
    orders = []
    for row in scores[:, prefix:]:
        row = np.where(np.isnan(row), -65504.0, np.where(np.abs(row) < np.finfo(np.float32).tiny, 0, row))
        best = sorted(range(len(row)), key=lambda j: (-row[j], j))
        orders.append([*range(prefix), *(prefix + j for j in sorted(best[:keep]) + sorted(best[keep:]))])
    return np.array(orders)


RANK7 = Rank(7)
SPECIAL = np.float32([0.0, 0.5, 1.0, np.nan, np.inf, -np.inf, 1e-39, -1e-39, 3e-45, 2.0**-126]).tolist()


@settings(deadline=None, max_examples=200)
@given(hnp.arrays(np.float32, (3, 20), elements=st.one_of(st.floats(width=32), st.sampled_from(SPECIAL))))
def test_rank_is_a_permutation_for_any_scores(scores):
    order, inverse = (places.asnumpy() for places in RANK7(Tensor(scores)))
    assert (np.sort(order, 1) == np.arange(20)).all()
    assert (np.take_along_axis(order, inverse, 1) == np.arange(20)).all()
    assert (order == expected_order(scores, 7)).all()


@pytest.mark.parametrize("prefix", [0, 2])
def test_another_number_of_tokens_before_the_patches(prefix):
    """They stay in front whatever their scores are; 2 in a distilled model, 0 in one without [CLS]."""
    scores = np.random.RandomState(0).standard_normal((50, 12)).astype(np.float32)
    order, inverse = ranked(scores, 4, prefix)
    assert (order == expected_order(scores, 4, prefix)).all()
    assert (np.take_along_axis(order, inverse, 1) == np.arange(12)).all()


def check_subnormal_scores():
    """Attention so sharp that softmax falls below the least normal float32, which some threads take for 0."""
    network, random = Rank(7), np.random.RandomState(0)
    for scores in random.randint(0, 9, (30, 3, 20)).astype(np.float32) * np.float32(1e-40):
        order, inverse = (places.asnumpy() for places in network(Tensor(scores)))
        assert (order == np.arange(20)).all()
        assert (inverse == np.arange(20)).all()
    order, _ = ranked(np.linspace(2.0**-126, 2.0**-125, 40, dtype=np.float32).reshape(2, 20), 7)
    assert (order == [0, *range(13, 20), *range(1, 13)]).all()


def test_subnormal_scores_are_zero(mode):
    check_subnormal_scores()


def test_subnormal_scores_are_zero_with_fused_kernels(fused):
    check_subnormal_scores()


@pytest.mark.parametrize("keep", [1, 5, 18])
def test_ties_keep_the_lowest_places(mode, keep):
    scores = np.zeros((2, 20), np.float32)
    scores[1, 4:9] = 0.5
    order, _ = ranked(scores, keep)
    assert order.dtype == np.int32
    assert (order == expected_order(scores, keep)).all()


@pytest.mark.parametrize("tokens", [2049, 4097])
def test_places_are_exact_on_large_grids(tokens):
    scores = np.random.RandomState(0).standard_normal((2, tokens)).astype(np.float32)
    order, inverse = ranked(scores, tokens // 2)
    assert (order == expected_order(scores, tokens // 2)).all()
    assert (np.take_along_axis(order, inverse, 1) == np.arange(tokens)).all()


class SplitAndRejoin(nn.Cell):
    def __init__(self, keep):
        super().__init__()
        self.keep, self.split, self.rejoin = keep, Split(keep), Rejoin(keep)

    def construct(self, tokens, scores):
        order, inverse = rank(scores, self.keep)
        kept, dropped = self.split(tokens, order, inverse)
        return self.rejoin(kept, dropped, order, inverse), kept, dropped


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_split_then_rejoin_is_the_identity_to_the_last_bit(mode, dtype):
    random = np.random.RandomState(1)
    tokens = random.standard_normal((4, 50, 8)).astype(dtype)
    scores = random.random_sample((4, 50)).astype(np.float32)
    back, kept, dropped = (t.asnumpy() for t in SplitAndRejoin(20)(Tensor(tokens), Tensor(scores)))
    assert back.dtype == dtype
    assert back.tobytes() == tokens.tobytes()
    order = expected_order(scores, 20)
    assert (kept == np.take_along_axis(tokens, order[:, :21, None], 1)).all()
    assert (dropped == np.take_along_axis(tokens, order[:, 21:, None], 1)).all()


def test_gradients_of_split_and_rejoin_are_the_inverse_moves(mode):
    random = np.random.RandomState(2)
    tokens = Tensor(random.standard_normal((2, 10, 3)).astype(np.float32))
    scores = Tensor(random.random_sample((2, 10)).astype(np.float32))
    weight = Tensor(random.standard_normal((2, 10, 3)).astype(np.float32))
    net = SplitAndRejoin(4)

    def through_both(x):
        return (net(x, scores)[0] * weight).sum()

    def kept_only(x):
        return net(x, scores)[1].sum()

    assert (ms.grad(through_both)(tokens).asnumpy() == weight.asnumpy()).all()
    order = expected_order(scores.asnumpy(), 4)
    ones = np.zeros((2, 10, 3), np.float32)
    np.put_along_axis(ones, order[:, :5, None], 1.0, 1)
    assert (ms.grad(kept_only)(tokens).asnumpy() == ones).all()


def test_fuse_appends_the_weighted_sum():
    random = np.random.RandomState(3)
    kept, dropped = random.standard_normal((2, 4, 5)), random.standard_normal((2, 6, 5))
    scores = random.random_sample((2, 6, 1))
    out = fuse(*(Tensor(x.astype(np.float32)) for x in (kept, dropped, scores))).asnumpy()
    assert out.shape == (2, 5, 5)
    assert np.allclose(out[:, :4], kept, atol=1e-6)
    assert np.allclose(out[:, 4], (scores * dropped).sum(1), atol=1e-5)


def test_scores_are_the_mean_over_heads_of_the_cls_row():
    attention = np.random.RandomState(4).random_sample((2, 3, 7, 7)).astype(np.float32)
    assert np.allclose(cls_scores(Tensor(attention)).asnumpy(), attention[:, :, 0].mean(1), atol=1e-6)
