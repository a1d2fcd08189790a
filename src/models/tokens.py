"""Token skipping: score → split → rejoin, or fuse (SkipViT, arXiv 2401.15293, section 3; EViT, arXiv 2202.07800).

Tokens move by gathers alone. `rank` computes a permutation and its inverse once; a split gathers with the one, a
rejoin with the other, and each is the other's gradient. Only int32 places are scattered.

Shape letters: B images, H heads, T tokens with [CLS] at index 0, K of them kept ([CLS] included), C channels.
"""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

_LOWEST_FLOAT16 = -65504.0
_LEAST_NORMAL_FLOAT32 = 2.0**-126
_sum = ops.ReduceSum(keep_dims=True)
_multiply = ops.Mul()
_less = ops.Less()  # of a number too: ops.less would make it LessScalar, which Ascend lacks


def cls_scores(attention: Tensor) -> Tensor:
    """Mean over heads of the [CLS] token's attention: [B, H, T, T] → [B, T] (its own, at index 0, included)."""
    return ops.reduce_mean(attention[:, :, 0, :], 1)


def rank(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The permutation that brings the `keep` best patch tokens to the front, and its inverse.

    Kept and dropped tokens each stay in their original order. Of equal scores the lowest place is kept; NaN
    counts as -65504, and a subnormal number as 0: some of MindSpore's threads take it for 0 and some do not, and
    then comparisons contradict each other. So the result is a valid permutation whatever the scores are.

    Args:
        scores: float [B, T]; the entry of [CLS], at index 0, is not looked at: it is always kept.
        keep: Patch tokens to keep, 0 < keep < T - 1.

    Returns:
        order: int32 [B, T], the place that each token of the permuted sequence comes from; order[:, 0] is 0.
        inverse: int32 [B, T], the place that each token goes to.
    """
    patches = ops.cast(ops.stop_gradient(scores), mstype.float32)[:, 1:]
    patches = ops.select(ops.equal(patches, patches), patches, ops.full_like(patches, _LOWEST_FLOAT16))
    patches = ops.select(_less(ops.abs(patches), _LEAST_NORMAL_FLOAT32), ops.zeros_like(patches), patches)
    place = _count(ops.equal(patches, patches))  # 1, 2, 3, ...
    kept = _less(_beaten_by(patches, place), float(keep))
    kept_so_far = _count(kept)
    inverse = ops.select(kept, kept_so_far, keep + place - kept_so_far)
    inverse = ops.concat((ops.zeros_like(inverse[:, :1]), inverse), 1)
    return _invert(inverse), inverse


def _beaten_by(scores: Tensor, place: Tensor) -> Tensor:
    """By how many others each score is beaten, of equal ones by those at lower places: [B, N] → float32 [B, N].

    Every pair is compared, which costs less than one attention head, and is exact in any type. TopK would be exact
    in float16 only on Ascend 910A, and on CPU it breaks ties in no fixed order.
    """
    own, other = ops.expand_dims(scores, 2), ops.expand_dims(scores, 1)
    earlier = ops.less(ops.expand_dims(place, 1), ops.expand_dims(place, 2))
    beaten = ops.logical_or(ops.greater(other, own), ops.logical_and(ops.equal(other, own), earlier))
    return ops.reduce_sum(ops.cast(beaten, mstype.float32), 2)


def _count(mask: Tensor) -> Tensor:
    """Running count of the true entries of each row, int32 and so exact."""
    return ops.cumsum(ops.cast(mask, mstype.int32), 1)


def _invert(permutation: Tensor) -> Tensor:
    """The inverse of each row's permutation, int32 [B, T], by one scatter into the flattened batch."""
    batch, length = permutation.shape
    ones = ops.ones_like(permutation)
    row = ops.cumsum(ones, 0) - 1
    place = ops.cumsum(ones, 1) - 1
    flat = ops.reshape(_multiply(row, length) + permutation, (-1, 1))
    return ops.reshape(ops.scatter_nd(flat, ops.reshape(place, (-1,)), (batch * length,)), (batch, length))


def _take(tokens: Tensor, places: Tensor) -> Tensor:
    """tokens[b, places[b]]: [B, T, C] and int32 [B, K] → [B, K, C], gathered in float32."""
    return ops.cast(ops.gather(ops.cast(tokens, mstype.float32), places, 1, 1), tokens.dtype)


def _split(tokens: Tensor, order: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return _take(tokens, order[:, :count]), _take(tokens, order[:, count:])


def _rejoin(kept: Tensor, dropped: Tensor, inverse: Tensor) -> Tensor:
    return _take(ops.concat((kept, dropped), 1), inverse)


class Split(nn.Cell):
    """Tokens [B, T, C] → kept [B, K, C] and dropped [B, T-K, C], as `rank` ordered them; its gradient is a rejoin."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.count = 1 + keep

    def construct(self, tokens: Tensor, order: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        return _split(tokens, order, self.count)

    def bprop(self, tokens: Tensor, order: Tensor, inverse: Tensor, out: tuple, dout: tuple) -> tuple:
        return _rejoin(dout[0], dout[1], inverse), ops.zeros_like(order), ops.zeros_like(inverse)


class Rejoin(nn.Cell):
    """Kept [B, K, C] and dropped [B, T-K, C] → tokens [B, T, C] at their original places; its gradient is a split."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.count = 1 + keep

    def construct(self, kept: Tensor, dropped: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return _rejoin(kept, dropped, inverse)

    def bprop(self, kept: Tensor, dropped: Tensor, order: Tensor, inverse: Tensor, out: Tensor, dout: Tensor) -> tuple:
        dkept, ddropped = _split(dout, order, self.count)
        return dkept, ddropped, ops.zeros_like(order), ops.zeros_like(inverse)


def fuse(kept: Tensor, dropped: Tensor, scores: Tensor) -> Tensor:
    """Append Σ score·token over the dropped tokens as one more token (EViT, section 3.2; not normalised).

    Args:
        kept: [B, K, C].
        dropped: [B, D, C].
        scores: [B, D, 1]; the gradient flows through them.

    Returns:
        [B, K+1, C].
    """
    fused = _sum(ops.cast(dropped, mstype.float32) * ops.cast(scores, mstype.float32), 1)
    return ops.concat((kept, ops.cast(fused, kept.dtype)), 1)
