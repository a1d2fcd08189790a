"""Token skipping as nodes of an ONNX graph: what src/models/tokens.py and router.py are in MindSpore, by their names.

Shape letters: B images, H heads, T tokens with the prefix first, N patches, K of them kept, C channels. Indices are
int64, as ONNX's operators take them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from src.schedules import Drop, Plan

if TYPE_CHECKING:
    from onnx_ir import Value
    from onnxscript._internal.builder import OpBuilder

INFINITY = float("inf")
LOWEST_FLOAT16 = -65504.0
LEAST_NORMAL_FLOAT32 = 2.0**-126
FLOAT = 1  # in onnx.TensorProto.DataType


def cls_scores(op: "OpBuilder", attention: "Value", rows: int) -> "Value":
    """Average the [CLS] token's attention over heads, of the first `rows` tokens: [B, H, T, T] → [B, T]."""
    return op.ReduceMean(op.Slice(attention, [0], [rows], [2]), [1, 2], keepdims=0)


def received_scores(op: "OpBuilder", attention: "Value") -> "Value":
    """Average the attention that each token receives over heads and queries: [B, H, T, T] → [B, T]."""
    return op.ReduceMean(attention, [1, 2], keepdims=0)


def rank(op: "OpBuilder", scores: "Value", drop: Drop, prefix: int) -> "tuple[Value, Value]":
    """Return the permutation that brings prefix and best patch tokens to the front, and its inverse: [B, T] each.

    Kept and dropped tokens stay in their order. Of equal scores the lowest index is kept, NaN counts as -65504, and a
    subnormal number as 0. Every pair is compared: ONNX promises that its TopK takes the lowest index first, but
    OpenVINO does not hold to it.

    Args:
        scores: float32 [B, T]; entries of the prefix are ignored: it is always kept.
    """
    tokens = prefix + drop.present
    patches = op.Slice(scores, [prefix], [tokens], [1])
    patches = op.Where(op.IsNaN(patches), LOWEST_FLOAT16, patches)
    patches = op.Where(op.Less(op.Abs(patches), LEAST_NORMAL_FLOAT32), 0.0, patches)
    worth = op.Pad(patches, [0, prefix, 0, 0], INFINITY) if prefix else patches
    kept = op.Less(_count_better(op, worth, tokens), float(prefix + drop.keep))
    goal = op.Where(kept, list(range(tokens)), list(range(tokens, 2 * tokens)))
    ids_shuffle = _order(op, goal, tokens)
    return ids_shuffle, _order(op, ids_shuffle, tokens)


def _count_better(op: "OpBuilder", worth: "Value", tokens: int) -> "Value":
    """Count the others that beat each token, of equal ones those at lower indices: [B, T] → float32 [B, T]."""
    own, other, index = op.Unsqueeze(worth, [2]), op.Unsqueeze(worth, [1]), list(range(tokens))
    earlier = op.Less(op.Unsqueeze(index, [0]), op.Unsqueeze(index, [1]))
    better = op.Or(op.Greater(other, own), op.And(op.Equal(other, own), earlier))
    return op.ReduceSum(op.Cast(better, to=FLOAT), [2], keepdims=0)


def _order(op: "OpBuilder", numbers: "Value", count: int) -> "Value":
    """Return the indices that sort each row of different numbers [B, T]; of a permutation they are the inverse."""
    _, indices = op.TopK(numbers, [count], largest=0, _outputs=2)
    return indices


def take(op: "OpBuilder", tokens: "Value", ids: "Value") -> "Value":
    """Gather tokens[b, ids[b]]: [B, T, C] and [B, K] → [B, K, C]."""
    return op.GatherND(tokens, op.Unsqueeze(ids, [2]), batch_dims=1)


def split(op: "OpBuilder", tokens: "Value", ids_shuffle: "Value", count: int, total: int) -> "tuple[Value, Value]":
    """Split tokens [B, T, C] as ranked into the first `count` of them and the rest of `total`."""
    kept, dropped = op.Split(ids_shuffle, [count, total - count], axis=1, _outputs=2)
    return take(op, tokens, kept), take(op, tokens, dropped)


def fuse(op: "OpBuilder", kept: "Value", dropped: "Value", scores: "Value") -> "Value":
    """Append one more token to kept [B, K, C]: Σ score·token over dropped [B, D, C], by scores [B, D, 1]."""
    return op.Concat(kept, op.ReduceSum(op.Mul(dropped, scores), [1], keepdims=1), axis=1)


class TokenRouter:
    """Drop and rejoin tokens as a plan says, by nodes; a pass is that of `src.models.router.TokenRouter`.

    Args:
        images: The graph's input, of as many images as the tokens.
        score_rows: As of `Geometry`.
    """

    def __init__(self, op: "OpBuilder", images: "Value", plan: Plan, score_rows: int) -> None:
        self.op = op
        self.images = images
        self.plan = plan
        self.score_rows = score_rows

    def rejoin(self, block: int, x: "Value", skipped: tuple) -> "tuple[Value, tuple]":
        """Put the skipped tokens back at their original indices where the plan says so, the last drop's first."""
        if self.plan.rejoins[block]:
            for dropped, ids_restore in skipped:
                x = take(self.op, self.op.Concat(x, dropped, axis=1), ids_restore)
            skipped = ()
        return x, skipped

    def drop_before(
        self, block: int, x: "Value", predicted: "Optional[Value]", skipped: tuple
    ) -> "tuple[Value, tuple, tuple]":
        """Take tokens out where the plan says that they leave before the block; result as of `drop`.

        Args:
            predicted: What a predictor ranks by [B, T], where the plan asks one.
        """
        drop = self.plan.drops[block]
        return self.take_out(drop, x, None, skipped, predicted) if drop and drop.before else (x, skipped, ())

    def drop(self, block: int, x: "Value", attention: "Value", skipped: tuple) -> "tuple[Value, tuple, tuple]":
        """Take the lowest ranked tokens out of x [B, T, C] where the plan says so, and fuse them if it says that.

        Returns:
            The tokens that stay, `skipped` with those that left, and (ids_shuffle [B, T],), or () without a drop.
        """
        drop = self.plan.drops[block]
        return self.take_out(drop, x, attention, skipped) if drop and not drop.before else (x, skipped, ())

    def take_out(
        self, drop: Drop, x: "Value", attention: Any, skipped: tuple, predicted: "Optional[Value]" = None
    ) -> "tuple[Value, tuple, tuple]":
        """Take tokens out of the sequence; arguments and result as of `drop`."""
        op, count, total = self.op, self.plan.prefix + drop.keep, self.plan.prefix + drop.present
        worth = self.rank_by(drop, x, attention) if predicted is None else predicted
        ids_shuffle, ids_restore = rank(op, worth, drop, self.plan.prefix)
        kept, dropped = split(op, x, ids_shuffle, count, total)
        if drop.fused:
            scores = op.Unsqueeze(cls_scores(op, attention, self.score_rows), [2])
            _, dropped_scores = split(op, scores, ids_shuffle, count, total)
            kept = fuse(op, kept, dropped, dropped_scores)
        return kept, ((dropped, ids_restore), *skipped), (ids_shuffle,)

    def rank_by(self, drop: Drop, x: "Value", attention: Any) -> "Value":
        """Return what a drop ranks the tokens by: float32 [B, T], the highest stay."""
        op = self.op
        if drop.ranking == "lowest":
            return op.Neg(cls_scores(op, attention, self.score_rows))
        if drop.ranking == "norm":
            return op.ReduceSumSquare(x, [2], keepdims=0)
        if drop.ranking == "received":
            return received_scores(op, attention)
        if drop.ranking == "cls":
            return cls_scores(op, attention, self.score_rows)
        ones = [0.0] * self.plan.prefix + [float(i in drop.fixed) for i in range(drop.present)]
        return for_each(op, self.images, ones, len(ones))


def for_each(op: "OpBuilder", images: "Value", row: Any, *shape: int) -> "Value":
    """Repeat a row of a shape for each image: [B, *shape]."""
    batch, *_ = images.shape
    static = isinstance(batch, int)
    whole = [batch, *shape] if static else op.Concat(op.Shape(images, start=0, end=1), list(shape), axis=0)
    return op.Expand(row, whole)


def follow(op: "OpBuilder", plan: Plan, all_ids: "Sequence[Value]") -> "tuple[dict[str, Value], Optional[Value]]":
    """Return the patches that each drop keeps, and those that are there at the end, by each drop's ids_shuffle.

    Returns:
        For each drop `kept.BLOCK`, counted from 1, and the patches it keeps, ascending: int64 [B, K]; and int64 [B, K]
        of the last tokens, None where all are at their places. They are counted by their original places; a fused token
        made in stage s (counted from 0) is N+s.
    """
    all_kept: dict[str, Value] = {}
    present: Optional[Value] = None
    for block, (drop, rejoins) in enumerate(zip(plan.drops, plan.rejoins), 1):
        present = None if rejoins else present
        if drop is None:
            continue
        stage = len(all_kept)
        kept = op.Slice(all_ids[stage], [plan.prefix], [plan.prefix + drop.keep], [1])
        kept = op.Sub(kept, plan.prefix)
        kept = kept if present is None else op.GatherElements(present, kept, axis=1)
        all_kept[f"kept.{block}"] = kept
        present = op.Pad(kept, [0, 0, 0, 1], plan.num_patches + stage) if drop.fused else kept
    return all_kept, present
