"""Top-1 and top-5 accuracy of a network on a data set."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn
from mindspore import dataset as ds

from src.data.loaders import batches
from src.progress import Progress
from src.runtime import device
from src.runtime.distributed import SINGLE_PROCESS, ProcessGroup

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class Accuracy:
    """Correct answers among `images`; with fewer than five classes, all of them count as the five best.

    Attributes:
        not_finite: Images with a logit that is not finite; whatever is largest, they count as wrong.
    """

    top1_hits: int
    top5_hits: int
    images: int
    not_finite: int = 0

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * self.top1_hits / self.images

    @property
    def top5(self) -> float:
        """Percent."""
        return 100 * self.top5_hits / self.images


def evaluate(
    network: nn.Cell,
    loader: ds.Dataset,
    batch_size: int,
    group: ProcessGroup = SINGLE_PROCESS,
    after_batch: Callable[[], None] = lambda: None,
) -> Accuracy:
    """Count the correct answers of a network in evaluation mode.

    Each batch is padded to `batch_size`, so that one graph serves them all.

    Args:
        loader: This process's part of the images; parts differ by one batch at most.
        group: The counts are added over its processes.
        after_batch: Called after each batch that all processes have, so that it may ask the group; what it raises
            ends the evaluation.
    """
    network.set_train(False)
    shared = int(group.sum([loader.get_dataset_size()])[0]) // group.size
    top1 = top5 = images = not_finite = 0
    with Progress(loader.get_dataset_size(), "evaluating", unit="batch", leave=False) as progress:
        for number, (batch, labels) in enumerate(batches(loader, output_numpy=True), 1):
            padding = [(0, batch_size - len(batch))] + [(0, 0)] * (batch.ndim - 1)
            inputs = (Tensor(np.pad(batch, padding)), *network.sample(batch_size, group.rank, images))
            if not images:
                device.compile_ahead(network, *inputs)
            logits = network(*inputs).asnumpy()[: len(batch)]
            best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
            finite = np.isfinite(logits).all(axis=1)
            hits = (best == labels.reshape(-1, 1)) & finite[:, None]
            not_finite += int((~finite).sum())
            top1 += int(hits[:, 0].sum())
            top5 += int(hits.any(axis=1).sum())
            images += len(batch)
            progress.advance(1)
            if number <= shared:
                after_batch()
    accuracy = Accuracy(*map(int, group.sum((top1, top5, images, not_finite))))
    if accuracy.not_finite:
        log.warning(
            "%d of %d images have logits that are not finite: counted as wrong", accuracy.not_finite, accuracy.images
        )
    return accuracy
