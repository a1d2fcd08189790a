"""The token operations of a schedule without the blocks between them, forward and backward, to be timed."""

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.models.router import TokenRouter
from src.runtime import device
from src.schedules import Plan


class TokenOps(nn.Cell):
    """Rank, split, rejoin and fuse as a plan says: tokens [B, T, C] and scores [B, T] → tokens."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.router = TokenRouter(plan)
        self.depth = len(plan.kept)
        self.lengths = tuple(plan.prefix + drop.present for drop in plan.drops if drop and drop.ranking == "random")

    def construct(self, tokens: Tensor, scores: Tensor) -> Tensor:
        x, skipped = tokens, ()
        random_scores: tuple = ()
        for length in self.lengths:
            random_scores += (scores[:, :length],)
        for i in range(self.depth):
            x, skipped = self.router.rejoin(i, x, skipped)
            x, skipped, _ = self.router.drop_before(i, x, None, skipped, random_scores)
            present = scores[:, : x.shape[1]]
            x, skipped, _ = self.router.drop(i, x, present, present, skipped, random_scores)
        return x


class TokenOpsGradient(nn.Cell):
    """Run `TokenOps` forward, and backward from a given gradient of its result."""

    def __init__(self, token_ops: TokenOps) -> None:
        super().__init__(auto_prefix=False)
        self.token_ops = token_ops
        self.gradient = ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, tokens: Tensor, scores: Tensor, result: Tensor) -> tuple[Tensor, ...]:
        return self.gradient(self.token_ops)(tokens, scores, result)


def runner(plan: Plan, embed_dim: int, batch_size: int) -> Callable[[], None]:
    """Return a call that runs a plan's token operations once, forward and backward, on random tokens and scores."""
    random = np.random.RandomState(0)
    tokens = plan.prefix + plan.num_patches
    shapes = ((batch_size, tokens, embed_dim), (batch_size, tokens), (batch_size, plan.tokens_out[-1], embed_dim))
    inputs = [Tensor(random.random_sample(shape), ms.float32) for shape in shapes]
    cell = TokenOpsGradient(TokenOps(plan))
    device.compile_ahead(cell, *inputs)

    def run() -> None:
        cell(*inputs)[0].asnumpy()

    return run
