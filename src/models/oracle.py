"""A frozen dense network ranks the tokens of another's training ("oracle ranks", after EViT, arXiv 2202.07800).

Shape letters: B images, T tokens with [CLS] first, D drops of the plan.
"""

from typing import Any, Optional

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.models.router import TokenRouter
from src.models.vit import RandomInputs, SkipViT
from src.weights.oracle import block_of

ALWAYS_KEPT = 2.0  # scores are attention, at most 1


class OracleRanked(nn.Cell):
    """A network in training whose drops keep the tokens to which an oracle's [CLS] token attends most.

    Images → logits, as `SkipViT`, with the same random inputs. The oracle sees all tokens, in the same graph, and no
    gradient flows into it. A drop in block i of the network asks the oracle's block that is as far through it, and
    ranks by its scores those tokens that are still there; a fused token always stays. What is fused is weighted by the
    network's own scores. In evaluation the network ranks for itself.

    Args:
        network: Its schedule ranks by `oracle`.
        oracle: Dense, for images of the same size and the same patches.
    """

    def __init__(self, network: SkipViT, oracle: SkipViT) -> None:
        super().__init__(auto_prefix=False)
        self.network: Any = network
        self.oracle = oracle
        self.geometry = network.geometry
        kept = network.plan.kept
        self.depth = network.depth
        self.asked = tuple(block_of(block, self.depth, oracle.depth) for block, keep in enumerate(kept) if keep)
        self.prefix = network.plan.prefix
        self.oracle_prefix = oracle.plan.prefix
        self.router = TokenRouter(network.plan)

    def construct(
        self, images: Tensor, drop_path_scale: Optional[Tensor] = None, random_scores: Optional[tuple] = None
    ) -> Tensor:
        return self.network(images, drop_path_scale, self.ranks(images))

    def label_logits(
        self,
        images: Tensor,
        drop_path_scale: Optional[Tensor] = None,
        random_scores: Optional[tuple] = None,
        mixed: Optional[Tensor] = None,
    ) -> tuple[Tensor, Tensor, Optional[Tensor]]:
        """Return what an LV-ViT's `label_logits` does."""
        return self.network.label_logits(images, drop_path_scale, self.ranks(images), mixed)

    def ranks(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what each drop ranks by, for each the oracle's scores of the tokens that are there: float32 [B, T]."""
        x = self.scores(images)
        skipped: tuple = ()
        ranks: tuple = ()
        for i in range(self.depth):
            x, skipped = self.router.rejoin(i, x, skipped)
            if self.router.given[i]:
                worth = x[:, :, self.router.given_before[i]]
                ranks += (worth,)
                x, dropped, ids_shuffle, ids_restore = self.router.split(i, x, worth)
                if self.router.fused[i]:
                    x = ops.concat((x, ops.full_like(x[:, :1], ALWAYS_KEPT)), 1)
                skipped = ((i, dropped, ids_shuffle, ids_restore),) + skipped
        return ranks

    def scores(self, images: Tensor) -> Tensor:
        """Return the oracle's scores of all the network's tokens for each drop, float32 [B, T, D]."""
        x = self.oracle.embed(images)
        scores: tuple = ()
        for i in range(self.asked[-1] + 1):
            x, own, _ = self.oracle.blocks[i].attn_half(x)
            x = self.oracle.blocks[i].mlp_half(x)
            scores += (own,)
        asked: tuple = ()
        for i in self.asked:
            asked += (scores[i],)
        patches = ops.stop_gradient(ops.cast(ops.stack(asked, 2), mstype.float32))[:, self.oracle_prefix :]
        return ops.concat((ops.zeros_like(patches[:, : self.prefix]), patches), 1)

    def sample(self, images: int, *seed: int) -> RandomInputs:
        """Draw the network's random numbers; the oracle has none."""
        return self.network.sample(images, *seed)
