"""Token skipping: score → split → rejoin, or fuse (SkipViT, arXiv 2401.15293, section 3; EViT, arXiv 2202.07800).

Tokens move by gathers alone. `rank` computes a permutation and its inverse once; a split gathers with the one, a
rejoin with the other, and each is the other's gradient. Only int32 indices are scattered. `ids_shuffle` and
`ids_restore` are named as in MAE's random masking (arXiv 2111.06377).

Shape letters: B images, H heads, T tokens with [CLS] at index 0, K of them kept ([CLS] included), C channels. In a
distilled model the distillation token follows [CLS], and stays as it does.
"""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.models.ops import less, multiply, sum_kept

_LOWEST_FLOAT16 = -65504.0
_LEAST_NORMAL_FLOAT32 = 2.0**-126


def cls_scores(attention: Tensor, rows: int = 1) -> Tensor:
    """Average the [CLS] token's attention over heads: [B, H, T, T] → [B, T] (its own, at index 0, included).

    With `rows` 2 it is averaged with the distillation token's. Of the rows only these need be there.
    """
    return ops.reduce_mean(attention[:, :, 0, :], 1) if rows == 1 else ops.reduce_mean(attention[:, :, :rows], (1, 2))


def received_scores(attention: Tensor) -> Tensor:
    """Average the attention that each token receives over heads and queries: [B, H, T, T] → float32 [B, T]."""
    return ops.reduce_mean(ops.cast(attention, mstype.float32), (1, 2))


def squared_norms(tokens: Tensor) -> Tensor:
    """Return the squared L2 norm of each token, which ranks as the norm does: [B, T, C] → float32 [B, T]."""
    tokens = ops.cast(tokens, mstype.float32)
    return ops.reduce_sum(tokens * tokens, 2)


def rank(scores: Tensor, keep: int, prefix: int = 1) -> tuple[Tensor, Tensor]:
    """Return the permutation that brings the `keep` best patch tokens to the front, and its inverse.

    Kept and dropped tokens each stay in their original order. Of equal scores the lowest index is kept; NaN
    counts as -65504, and a subnormal number as 0: some of MindSpore's threads take it for 0 and some do not, and
    then comparisons contradict each other. So the result is a valid permutation whatever the scores are.

    Args:
        scores: float [B, T]; entries of the prefix are ignored: it is always kept.
        keep: Patch tokens to keep, 0 < keep < T - prefix.
        prefix: Tokens before the patches: 1 for [CLS], 2 with a distillation token, 0 in a model without either.

    Returns:
        ids_shuffle: int32 [B, T], the index that each token of the permuted sequence comes from; the prefix stays.
        ids_restore: int32 [B, T], the index that each token goes to.
    """
    patches = ops.cast(ops.stop_gradient(scores), mstype.float32)[:, prefix:]
    patches = ops.select(ops.equal(patches, patches), patches, ops.full_like(patches, _LOWEST_FLOAT16))
    patches = ops.select(less(ops.abs(patches), _LEAST_NORMAL_FLOAT32), ops.zeros_like(patches), patches)
    number = _count(ops.equal(patches, patches))  # 1, 2, 3, ...
    kept = less(_count_better(patches, number), float(keep))
    kept_so_far = _count(kept)
    ids_restore = ops.select(kept, kept_so_far, keep + number - kept_so_far)  # the patches' places from 1 on
    if prefix == 1:
        ids_restore = ops.concat((ops.zeros_like(ids_restore[:, :1]), ids_restore), 1)
    elif prefix == 0:
        ids_restore = ids_restore - 1
    else:
        first = ops.zeros_like(ids_restore[:, :1])
        ids_restore = ops.concat((first, first + 1, ids_restore + 1), 1)
    return _invert(ids_restore), ids_restore


def _count_better(scores: Tensor, number: Tensor) -> Tensor:
    """Count the others that beat each score, of equal ones those at lower indices: [B, N] → float32 [B, N].

    Every pair is compared, which costs less than one attention head, and is exact in any type. TopK would be exact
    in float16 only on Ascend 910A, and on CPU it breaks ties in no fixed order.
    """
    own, other = ops.expand_dims(scores, 2), ops.expand_dims(scores, 1)
    earlier = ops.less(ops.expand_dims(number, 1), ops.expand_dims(number, 2))
    better = ops.logical_or(ops.greater(other, own), ops.logical_and(ops.equal(other, own), earlier))
    return ops.reduce_sum(ops.cast(better, mstype.float32), 2)


def _count(mask: Tensor) -> Tensor:
    """Count the true entries of each row up to each, in int32 and so exactly."""
    return ops.cumsum(ops.cast(mask, mstype.int32), 1)


def _invert(permutation: Tensor) -> Tensor:
    """Invert each row's permutation, int32 [B, T], by one scatter into the flattened batch."""
    batch, length = permutation.shape
    ones = ops.ones_like(permutation)
    row = ops.cumsum(ones, 0) - 1
    index = ops.cumsum(ones, 1) - 1
    flat = ops.reshape(multiply(row, length) + permutation, (-1, 1))
    return ops.reshape(ops.scatter_nd(flat, ops.reshape(index, (-1,)), (batch * length,)), (batch, length))


def _take(tokens: Tensor, ids: Tensor) -> Tensor:
    """Gather tokens[b, ids[b]]: [B, T, C] and int32 [B, K] → [B, K, C]."""
    return ops.gather(tokens, ids, 1, 1)


def _split(tokens: Tensor, ids_shuffle: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return _take(tokens, ids_shuffle[:, :count]), _take(tokens, ids_shuffle[:, count:])


def _rejoin(kept: Tensor, dropped: Tensor, ids_restore: Tensor) -> Tensor:
    return _take(ops.concat((kept, dropped), 1), ids_restore)


class Split(nn.Cell):
    """Split tokens [B, T, C] as ranked into kept [B, K, C] and dropped [B, T-K, C]; its gradient is a rejoin."""

    def __init__(self, keep: int, prefix: int = 1) -> None:
        super().__init__()
        self.count = prefix + keep

    def construct(self, tokens: Tensor, ids_shuffle: Tensor, ids_restore: Tensor) -> tuple[Tensor, Tensor]:
        return _split(tokens, ids_shuffle, self.count)

    def bprop(self, tokens: Tensor, ids_shuffle: Tensor, ids_restore: Tensor, out: tuple, dout: tuple) -> tuple:
        return _rejoin(dout[0], dout[1], ids_restore), ops.zeros_like(ids_shuffle), ops.zeros_like(ids_restore)


class Rejoin(nn.Cell):
    """Put kept [B, K, C] and dropped [B, T-K, C] back at their original indices: [B, T, C]; its gradient is a split."""

    def __init__(self, keep: int, prefix: int = 1) -> None:
        super().__init__()
        self.count = prefix + keep

    def construct(self, kept: Tensor, dropped: Tensor, ids_shuffle: Tensor, ids_restore: Tensor) -> Tensor:
        return _rejoin(kept, dropped, ids_restore)

    def bprop(
        self, kept: Tensor, dropped: Tensor, ids_shuffle: Tensor, ids_restore: Tensor, out: Tensor, dout: Tensor
    ) -> tuple:
        dkept, ddropped = _split(dout, ids_shuffle, self.count)
        return dkept, ddropped, ops.zeros_like(ids_shuffle), ops.zeros_like(ids_restore)


def fuse(kept: Tensor, dropped: Tensor, scores: Tensor) -> Tensor:
    """Append one more token, Σ score·token over the dropped tokens (EViT, section 3.2; not normalised).

    Args:
        kept: [B, K, C].
        dropped: [B, D, C].
        scores: [B, D, 1]; the gradient flows through them.

    Returns:
        [B, K+1, C].
    """
    fused = sum_kept(ops.cast(dropped, mstype.float32) * ops.cast(scores, mstype.float32), 1)
    return ops.concat((kept, ops.cast(fused, kept.dtype)), 1)
