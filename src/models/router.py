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
from src.schedules import Plan


class TokenRouter(nn.Cell):
    """Drop and rejoin tokens as a static plan says. It has no parameters.

    A forward pass starts with `skipped = ()` and passes it on: for each block in turn `rejoin` before its attention,
    `drop` between its attention and its MLP. Blocks are counted from 0.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.kept = plan.kept
        self.rejoins = plan.rejoins
        self.fused = plan.schedule.fused
        self.ranking = plan.schedule.ranking
        self.fixed_scores = tuple(_ones_at(stay, tokens) for stay, tokens in zip(plan.fixed, plan.tokens_in))
        self.drops_before = tuple(sum(keep > 0 for keep in plan.kept[:block]) for block in range(len(plan.kept)))
        self.split_cells = nn.CellList([Split(keep) for keep in plan.kept])
        self.rejoin_cells = nn.CellList([Rejoin(keep) for keep in plan.kept])

    def rejoin(self, block: int, x: Tensor, skipped: tuple) -> tuple[Tensor, tuple]:
        """Put the skipped tokens back at their original indices where the plan says so, the last drop's first."""
        if self.rejoins[block]:
            for i, dropped, ids_shuffle, ids_restore in skipped:
                x = self.rejoin_cells[i](x, dropped, ids_shuffle, ids_restore)
            skipped = ()
        return x, skipped

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
            random_scores: For each drop float [B, T], which a random ranking ranks by.

        Returns:
            The tokens that stay, `skipped` with those that left, and (ids_shuffle [B, T],), or () without a drop.
        """
        if self.kept[block] == 0:
            return x, skipped, ()
        ids_shuffle, ids_restore = rank(self.rank_by(block, x, scores, received, random_scores), self.kept[block])
        kept, dropped = self.split_cells[block](x, ids_shuffle, ids_restore)
        if self.fused:
            _, dropped_scores = self.split_cells[block](ops.expand_dims(scores, -1), ids_shuffle, ids_restore)
            return fuse(kept, dropped, dropped_scores), skipped, (ids_shuffle,)
        return kept, ((block, dropped, ids_shuffle, ids_restore),) + skipped, (ids_shuffle,)

    def rank_by(
        self, block: int, x: Tensor, scores: Tensor, received: Tensor, random_scores: Optional[tuple]
    ) -> Tensor:
        """Return what the drop in a block ranks the tokens by: float [B, T], the highest stay."""
        if self.ranking == "random":
            if random_scores is None:
                raise ValueError("a random ranking needs the random_scores of the network's `sample` as an input")
            return random_scores[self.drops_before[block]]
        if self.ranking == "lowest":
            return multiply(scores, -1.0)
        if self.ranking == "norm":
            return squared_norms(x)
        if self.ranking == "received":
            return received
        if self.ranking == "cls":
            return scores
        return ops.zeros_like(scores) + self.fixed_scores[block]


def _ones_at(positions: tuple[int, ...], tokens: int) -> Tensor:
    """Return float32 [1, T]: 1 for the patch tokens at these positions, and 0 for the others."""
    scores = np.zeros((1, tokens), np.float32)
    scores[0, 1 + np.array(positions, int)] = 1
    return Tensor(scores, mstype.float32)
