"""The token operations of a schedule without the blocks between them, forward and backward, to be timed."""

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src import runtime
from src.models.tokens import fuse, rank
from src.models.vit import SkipViT


class TokenMoves(nn.Cell):
    """Rank, split, rejoin and fuse as the network's plan says: tokens [B, T, C] and scores [B, T] → tokens."""

    def __init__(self, network: SkipViT) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, tokens: Tensor, scores: Tensor) -> Tensor:
        net, x, skipped = self.network, tokens, ()
        for i in range(net.depth):
            if net.rejoins[i]:
                x = net.return_tokens(x, skipped)
            if net.kept[i] > 0:
                present = scores[:, : x.shape[1]]
                order, inverse = rank(present, net.kept[i])
                x, dropped = net.splits[i](x, order, inverse)
                if net.fused:
                    _, weights = net.splits[i](ops.expand_dims(present, -1), order, inverse)
                    x = fuse(x, dropped, weights)
                else:
                    skipped = ((i, dropped, order, inverse),) + skipped
        return x


class TokenMovesGradient(nn.Cell):
    """`TokenMoves` forward, and backward from a given gradient of its result."""

    def __init__(self, moves: TokenMoves) -> None:
        super().__init__(auto_prefix=False)
        self.moves = moves
        self.gradient = ops.GradOperation(get_all=True, sens_param=True)

    def construct(self, tokens: Tensor, scores: Tensor, result: Tensor) -> tuple[Tensor, ...]:
        return self.gradient(self.moves)(tokens, scores, result)


def runner(network: SkipViT, batch_size: int) -> Callable[[], None]:
    """A call that runs a network's token moves once, forward and backward, on random tokens and scores."""
    random = np.random.RandomState(0)
    tokens, channels = network.plan.tokens_in[0], network.geometry.embed_dim
    result = (batch_size, network.plan.tokens_out[-1], channels)
    inputs = [
        Tensor(random.random_sample(shape), ms.float32)
        for shape in ((batch_size, tokens, channels), (batch_size, tokens), result)
    ]
    cell = TokenMovesGradient(TokenMoves(network))
    runtime.compile_ahead(cell, *inputs)

    def run() -> None:
        cell(*inputs)[0].asnumpy()

    return run
