"""Which tokens each drop of a schedule keeps of every image of a data set, and by which scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.files import written_whole

if TYPE_CHECKING:
    from mindspore import dataset as ds

    from src.models.vit import SkipViT


def record(networks: "Sequence[SkipViT]", loader: "ds.Dataset", batch_size: int) -> dict[str, np.ndarray]:
    """Return by name what each drop of each network's schedule did to n images of N patches, in their order.

    "SPEC kept BLOCK": int16 [n, keep], the patches kept, ascending, counted row by row; a fused token made in stage s
    (counted from 0) is N+s. "SPEC scores BLOCK": float32 [n, N], the [CLS] scores of the block, or the attention
    received in a model without [CLS]; NaN where a patch is not in the sequence. Blocks are counted from 1.

    Args:
        batch_size: What each batch is padded to, so that one graph of a network serves them all.
    """
    from mindspore import Tensor

    from src.data.batches import pad
    from src.data.loaders import batches
    from src.models.trace import TokenTracer
    from src.progress import Progress

    tracers = [TokenTracer(network.set_train(False)) for network in networks]
    parts: dict[str, list[np.ndarray]] = {}
    images = 0
    with Progress(loader.get_dataset_size(), "tracing tokens", unit="batch", leave=False) as progress:
        for batch, _ in batches(loader, output_numpy=True):
            padded = Tensor(pad(batch, batch_size))
            for tracer in tracers:
                traced, spec = tracer(padded, 0, images), str(tracer.network.plan.schedule)
                for block, kept in traced.kept.items():
                    scores = traced.attention[block - 1]
                    parts.setdefault(f"{spec} kept {block}", []).append(kept[: len(batch)].astype(np.int16))
                    parts.setdefault(f"{spec} scores {block}", []).append(scores[: len(batch)])
            images += len(batch)
            progress.advance(1)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what `record` returned as one .npz."""
    with written_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
