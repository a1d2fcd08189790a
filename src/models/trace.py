"""Record the attention of every block and the indices of the patches that each drop keeps."""

from typing import Optional

import numpy as np
from mindspore import Tensor, nn

from src.models.vit import SkipViT
from src.runtime import device
from src.schedules.trace import Trace


class TokenTracer:
    """Trace one network in evaluation mode, by a graph that is compiled once for each number of images."""

    def __init__(self, network: SkipViT) -> None:
        self.network = network
        self.cell = _TraceCell(network)

    def __call__(self, images: Tensor, *seed: int) -> Trace:
        """Run the network with its present weights, as `trace` does."""
        inputs = (images, *self.network.sample(len(images), *seed))
        device.compile_ahead(self.cell, *inputs)
        return _by_patch(self.network, *self.cell(*inputs))


def trace(net: SkipViT, images: Tensor, *seed: int) -> Trace:
    """Run a network in evaluation mode and record its attention and its kept patches.

    Args:
        images: float32 [B, I, H, W].
        seed: Seed of a random ranking, if the schedule has one.
    """
    return TokenTracer(net)(images, *seed)


def trace_tokens(net: SkipViT, images: Tensor) -> dict[int, np.ndarray]:
    """Return `Trace.kept` of float32 images [B, I, H, W]: the indices of the patches that each drop keeps."""
    return trace(net, images).kept


def _by_patch(net: SkipViT, logits: Tensor, scores: tuple, shuffles: tuple) -> Trace:
    """Arrange scores and permutations by the patches' original indices."""
    images = len(logits)
    prefix, num_patches = net.plan.prefix, net.geometry.num_patches
    remaining = [ids_shuffle.asnumpy()[:, prefix:] - prefix for ids_shuffle in shuffles]
    all_patches = np.tile(np.arange(num_patches, dtype=np.int32), (images, 1))
    present, attention = all_patches, []
    kept: dict[int, np.ndarray] = {}
    for block, (drop, rejoins) in enumerate(zip(net.plan.drops, net.plan.rejoins), 1):
        before = all_patches if rejoins else present
        after = before
        if drop:
            after = np.take_along_axis(before, remaining[len(kept)][:, : drop.keep], axis=1)
            kept[block] = np.sort(after, axis=1)
            if drop.fused:
                fused = np.full((images, 1), num_patches + len(kept) - 1, np.int32)
                after = np.concatenate([after, fused], axis=1)
        attended = after if drop and drop.before else before
        attention.append(_spread(scores[block - 1].asnumpy()[:, prefix:], attended, num_patches))
        present = after
    return Trace(logits.asnumpy().astype(np.float32), tuple(attention), kept)


def _spread(scores: np.ndarray, indices: np.ndarray, num_patches: int) -> np.ndarray:
    """Put scores [B, T] at their patches' indices: [B, N], NaN elsewhere."""
    spread = np.full((len(scores), num_patches + indices.max(initial=0) + 1), np.nan, np.float32)
    np.put_along_axis(spread, indices, scores.astype(np.float32), axis=1)
    return spread[:, :num_patches]  # beyond are fused tokens


class _TraceCell(nn.Cell):
    """Compute logits, scores of every block and permutations of every drop as one graph."""

    def __init__(self, network: SkipViT) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(
        self, images: Tensor, drop_path_scale: Optional[Tensor] = None, random_scores: Optional[tuple] = None
    ) -> tuple[Tensor, tuple, tuple]:
        return self.network.forward_with_scores(images, drop_path_scale, random_scores)
