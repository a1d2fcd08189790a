"""Label maps by a trained network: the classes that its head sees in each patch token of every training image."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.data.batches import pad
from src.data.label_maps import BEST
from src.data.loaders import batches
from src.progress import Progress
from src.runtime import device

if TYPE_CHECKING:
    from mindspore import dataset as ds

    from src.models.vit import SkipViT


class BestOfPatches(nn.Cell):
    """Images [B, I, H, W] → the largest scores of each patch token, float32 [B, rows, columns, k], and their classes.

    LV-ViT's head for patch tokens was trained to give them. Another network's head reads the mean of all tokens, of
    which its scores of each token are exact parts, or the [CLS] token, of whose kind patch tokens only are. A distilled
    network has the mean of both heads.

    Args:
        network: Its schedule drops no token.
        num_classes: The first so many outputs, which stand for classes.
    """

    def __init__(self, network: "SkipViT", num_classes: int) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.labels_tokens, self.distilled = network.geometry.labels_tokens, network.geometry.distilled
        self.num_classes = num_classes
        self.kept = min(BEST, num_classes)

    def construct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.network.features(images)
        if self.labels_tokens:
            scores = self.network.aux_head(tokens)
        elif self.distilled:
            scores = (self.network.head(tokens) + self.network.head_dist(tokens)) * 0.5
        else:
            scores = self.network.head(tokens)
        return ops.topk(ops.cast(scores, mstype.float32)[:, :, :, : self.num_classes], self.kept)


def best_of_patches(
    network: "SkipViT", loader: "ds.Dataset", batch_size: int, num_classes: int
) -> Iterator[np.ndarray]:
    """Yield the label maps of a loader's images, a batch at a time: float32 [b, 2, 5, rows, columns].

    Where there are fewer classes, scores of 0 for class 0 fill them up, which add nothing.

    Args:
        batch_size: What each batch is padded to, so that one graph serves them all.
    """
    best = BestOfPatches(network, num_classes).set_train(False)
    with Progress(loader.get_dataset_size(), "writing label maps", unit="batch", leave=False) as progress:
        for number, (images, _) in enumerate(batches(loader, output_numpy=True)):
            padded = Tensor(pad(images, batch_size))
            if not number:
                device.compile_ahead(best, padded)
            found = np.stack([part.asnumpy()[: len(images)] for part in best(padded)], axis=1)
            maps = np.zeros((len(images), 2, BEST, *network.geometry.grid), np.float32)
            maps[:, :, : best.kept] = found.transpose(0, 1, 4, 2, 3)
            yield maps
            progress.advance(1)
