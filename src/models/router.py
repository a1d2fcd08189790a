"""The token router: where a plan says so, tokens leave the sequence and come back.

Every backbone, and the benchmark of the token operations alone, moves its tokens by this one router.

Shape letters: B images, T tokens with [CLS] first, C channels.
"""

from typing import Optional

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.models.ops import multiply
from src.models.tokens import Rejoin, Split, fuse, rank, squared_norms
from src.schedules import Drop, Plan
from src.schedules.rankings import GIVEN


class TokenRouter(nn.Cell):
    """Drop and rejoin tokens as a static plan says. It has no parameters.

    A forward pass starts with `skipped = ()` and passes it on: for each block in turn `rejoin` and `drop_before` before
    its attention, `drop` between its attention and its MLP. Blocks are counted from 0.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        none = Drop(0, 0, before=False, fused=False, ranking="")
        drops = [drop or none for drop in plan.drops]
        self.prefix = plan.prefix
        self.num_patches = plan.num_patches
        self.kept = plan.kept
        self.rejoins = plan.rejoins
        self.before = tuple(drop.before for drop in drops)
        self.fused = tuple(drop.fused for drop in drops)
        self.ranking = tuple(drop.ranking for drop in drops)
        self.fixed_scores = tuple(_ones_at(drop, plan.prefix) for drop in drops)
        self.given = tuple(ranking in GIVEN for ranking in self.ranking)
        self.given_before = tuple(sum(self.given[:block]) for block in range(len(drops)))
        self.split_cells = nn.CellList([Split(drop.keep, plan.prefix) for drop in drops])
        self.rejoin_cells = nn.CellList([Rejoin(drop.keep, plan.prefix) for drop in drops])

    def rejoin(self, block: int, x: Tensor, skipped: tuple) -> tuple[Tensor, tuple]:
        """Put the skipped tokens back at their original indices where the plan says so, the last drop's first."""
        if self.rejoins[block]:
            for i, dropped, ids_shuffle, ids_restore in skipped:
                x = self.rejoin_cells[i](x, dropped, ids_shuffle, ids_restore)
            skipped = ()
        return x, skipped

    def drop_before(
        self, block: int, x: Tensor, predicted: Optional[Tensor], skipped: tuple, random_scores: Optional[tuple] = None
    ) -> tuple[Tensor, tuple, tuple]:
        """Take tokens out where the plan says that they leave before the block; arguments and result as of `drop`.

        Args:
            predicted: What a predictor ranks by [B, T], where the plan asks one.
        """
        if not self.before[block]:
            return x, skipped, ()
        return self.take_out(block, x, predicted, None, skipped, random_scores)

    def drop(
        self,
        block: int,
        x: Tensor,
        scores: Tensor,
        received: Tensor,
        skipped: tuple,
        random_scores: Optional[tuple] = None,
    ) -> tuple[Tensor, tuple, tuple]:
        """Take the lowest ranked tokens out of the sequence where the plan says so, and fuse them if it says that.

        Args:
            x: [B, T, C].
            scores: The [CLS] scores [B, T].
            received: The attention that tokens receive [B, T].
            skipped: What earlier drops of this pass took out.
            random_scores: For each drop with a random ranking, or an oracle's, float [B, T], which it ranks by.

        Returns:
            The tokens that stay, `skipped` with those that left, and (ids_shuffle [B, T],), or () without a drop.
        """
        if self.kept[block] == 0 or self.before[block]:
            return x, skipped, ()
        return self.take_out(block, x, scores, received, skipped, random_scores)

    def take_out(
        self,
        block: int,
        x: Tensor,
        scores: Optional[Tensor],
        received: Optional[Tensor],
        skipped: tuple,
        random_scores: Optional[tuple],
    ) -> tuple[Tensor, tuple, tuple]:
        """Take tokens out of the sequence in a block; arguments and result as of `drop`."""
        worth = self.rank_by(block, x, scores, received, random_scores)
        kept, dropped, ids_shuffle, ids_restore = self.split(block, x, worth)
        if self.fused[block]:
            _, dropped_scores = self.split_cells[block](ops.expand_dims(scores, -1), ids_shuffle, ids_restore)
            kept = fuse(kept, dropped, dropped_scores)
        return kept, ((block, dropped, ids_shuffle, ids_restore),) + skipped, (ids_shuffle,)

    def split(self, block: int, x: Tensor, worth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Split tokens [B, T, C] by their worth [B, T]: those that stay and leave, ids_shuffle, ids_restore."""
        ids_shuffle, ids_restore = rank(worth, self.kept[block], self.prefix)
        kept, dropped = self.split_cells[block](x, ids_shuffle, ids_restore)
        return kept, dropped, ids_shuffle, ids_restore

    def spread(self, x: Tensor, skipped: tuple) -> Tensor:
        """Put the tokens [B, T, C] of a pass's end at their original indices, zeros where tokens have not returned.

        Fused tokens are left out.
        """
        for i, dropped, ids_shuffle, ids_restore in skipped:
            if self.fused[i]:
                x = x[:, :-1]
            x = self.rejoin_cells[i](x, ops.zeros_like(dropped[:, :, : x.shape[2]]), ids_shuffle, ids_restore)
        return x

    def follow(self, all_ids: tuple) -> tuple[tuple, Optional[Tensor]]:
        """Return the patches that each drop keeps, and those that are there at the end, by each drop's ids_shuffle.

        Returns:
            For each drop int32 [B, K], ascending, and int32 [B, K] of the last tokens; None: all are at their places. A
            fused token made in stage s (counted from 0) is N+s.
        """
        all_kept: tuple = ()
        present = None
        for i in range(len(self.kept)):
            if self.rejoins[i]:
                present = None
            if self.kept[i]:
                stage = len(all_kept)
                kept = all_ids[stage][:, self.prefix : self.prefix + self.kept[i]] - self.prefix
                if present is not None:
                    kept = ops.gather(present, kept, 1, 1)  # Ascend has no kernel for GatherD
                all_kept += (kept,)
                present = kept
                if self.fused[i]:
                    present = ops.concat((kept, ops.zeros_like(kept[:, :1]) + (self.num_patches + stage)), 1)
        return all_kept, present

    def rank_by(
        self,
        block: int,
        x: Tensor,
        scores: Optional[Tensor],
        received: Optional[Tensor],
        random_scores: Optional[tuple],
    ) -> Tensor:
        """Return what the drop in a block ranks the tokens by: float [B, T], the highest stay."""
        if self.given[block]:
            if random_scores is None:
                raise ValueError(
                    "a random ranking needs the random_scores of the network's `sample` as an input, an oracle's those"
                    " of src.models.oracle"
                )
            return random_scores[self.given_before[block]]
        if self.ranking[block] == "lowest":
            return multiply(scores, -1.0)
        if self.ranking[block] == "norm":
            return squared_norms(x)
        if self.ranking[block] == "received":
            return received
        if self.ranking[block] in ("cls", "predictor"):
            return scores
        return ops.cast(ops.zeros_like(x[:, :, 0]), mstype.float32) + self.fixed_scores[block]


def _ones_at(drop: Drop, prefix: int) -> Tensor:
    """Return float32 [1, T]: 1 for the patch tokens that a fixed ranking keeps, and 0 for the others."""
    scores = np.zeros((1, prefix + drop.present if drop.fixed else 1), np.float32)
    scores[0, prefix + np.array(drop.fixed, int)] = 1
    return Tensor(scores, mstype.float32)
