"""What a network does with its tokens: [CLS] attention and kept places, by the places that tokens come from."""

from dataclasses import dataclass
from typing import Optional

import numpy as np
from mindspore import Tensor, nn

from src import runtime
from src.models.vit import SkipViT


@dataclass(frozen=True)
class Trace:
    """One pass of B images of N patches, as NumPy arrays.

    Attributes:
        logits: float32 [B, classes].
        attention: For each block, float32 [B, N]: the mean over heads of the [CLS] token's attention to each patch, at
            its original place; NaN for patches that are not in the sequence there.
        kept: {block of a drop, counted from 1: int32 [B, keep]}, the original places kept, ascending. A fused token
            made in stage s (counted from 0) has place N+s.
    """

    logits: np.ndarray
    attention: tuple[np.ndarray, ...]
    kept: dict[int, np.ndarray]


class Tracer:
    """Traces of one network in evaluation mode, by a graph that is compiled once for each number of images."""

    def __init__(self, network: SkipViT) -> None:
        self.network = network
        self.cell = _Tracer(network)

    def __call__(self, images: Tensor, *seed: int) -> Trace:
        """Run the network, with the weights that it has now, and look at its tokens: as `trace`."""
        inputs = (images, *self.network.draw(len(images), *seed))
        runtime.compile_ahead(self.cell, *inputs)
        return _by_place(self.network, *self.cell(*inputs))


def trace(net: SkipViT, images: Tensor, *seed: int) -> Trace:
    """Run a network, in evaluation mode, and look at its tokens.

    Args:
        images: float32 [B, I, H, W].
        seed: Of a random ranking, if the schedule has one.
    """
    return Tracer(net)(images, *seed)


def _by_place(net: SkipViT, logits: Tensor, scores: tuple, orders: tuple) -> Trace:
    """What a network's `trace` gave, told by the places that tokens come from."""
    images = len(logits)
    remaining = [order.asnumpy()[:, 1:] - 1 for order in orders]
    num_patches = net.geometry.num_patches
    everywhere = np.tile(np.arange(num_patches, dtype=np.int32), (images, 1))
    places, attention, kept = everywhere, [], {}
    for block, keep in enumerate(net.plan.kept):
        if net.plan.rejoins[block]:
            places = everywhere
        attention.append(_at_places(scores[block].asnumpy()[:, 1:], places, num_patches))
        if keep:
            places = np.take_along_axis(places, remaining[len(kept)][:, :keep], axis=1)
            kept[block + 1] = np.sort(places, axis=1)
            if net.fused:
                fused = np.full((images, 1), num_patches + len(kept) - 1, np.int32)
                places = np.concatenate([places, fused], axis=1)
    return Trace(logits.asnumpy().astype(np.float32), tuple(attention), kept)


def trace_tokens(net: SkipViT, images: Tensor) -> dict[int, np.ndarray]:
    """Which tokens each drop keeps: `Trace.kept` of float32 images [B, I, H, W]."""
    return trace(net, images).kept


def _at_places(scores: np.ndarray, places: np.ndarray, num_patches: int) -> np.ndarray:
    spread = np.full((len(scores), num_patches + places.max(initial=0) + 1), np.nan, np.float32)
    np.put_along_axis(spread, places, scores.astype(np.float32), axis=1)
    return spread[:, :num_patches]  # what lies beyond are fused tokens


class _Tracer(nn.Cell):
    """Logits, scores of every block and orders of every drop, as one graph."""

    def __init__(self, network: SkipViT) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, images: Tensor, draws: Optional[Tensor] = None) -> tuple[Tensor, tuple, tuple]:
        return self.network.trace(images, draws)
