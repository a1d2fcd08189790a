"""What networks answer to a data set, and their top-1 and top-5 accuracy."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn
from mindspore import dataset as ds

from src.data.batches import pad
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


@dataclass(frozen=True)
class Answers:
    """What a network says of each image of a split, in their order.

    Attributes:
        labels: int [n].
        best: int [n, 5], the classes of the largest logits, the largest first; fewer with fewer classes.
        probability: float [n], of the first of them.
        loss: float [n], cross-entropy; NaN where a logit is not finite.
    """

    labels: np.ndarray
    best: np.ndarray
    probability: np.ndarray
    loss: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """Whether each of `best` is right; with a logit that is not finite, none is."""
        return (self.best == self.labels[:, None]) & np.isfinite(self.loss)[:, None]

    def count(self) -> "tuple[int, int, int, int]":
        """Return what `Accuracy` holds."""
        hits = self.hits
        return int(hits[:, 0].sum()), int(hits.any(axis=1).sum()), len(hits), int((~np.isfinite(self.loss)).sum())


def evaluate(
    network: nn.Cell,
    loader: ds.Dataset,
    batch_size: int,
    group: ProcessGroup = SINGLE_PROCESS,
    after_batch: Callable[[], None] = lambda: None,
) -> Accuracy:
    """Count the correct answers of a network in evaluation mode; arguments as of `answer`."""
    return count_correct(answer([network], loader, batch_size, group, after_batch)[0], group)


def count_correct(answers: Answers, group: ProcessGroup = SINGLE_PROCESS) -> Accuracy:
    """Count the correct answers of a group's processes."""
    accuracy = Accuracy(*map(int, group.sum(answers.count())))
    if accuracy.not_finite:
        log.warning(
            "%d of %d images have logits that are not finite: counted as wrong", accuracy.not_finite, accuracy.images
        )
    return accuracy


def answer(
    networks: Sequence[nn.Cell],
    loader: ds.Dataset,
    batch_size: int,
    group: ProcessGroup = SINGLE_PROCESS,
    after_batch: Callable[[], None] = lambda: None,
) -> list[Answers]:
    """Return what each network says in evaluation mode of this process's images, which are read once for all of them.

    Each batch is padded to `batch_size`, so that one graph of a network serves them all.

    Args:
        loader: This process's part of the images; parts differ by one batch at most.
        after_batch: Called after each batch that all processes have, so that it may ask the group; what it raises
            ends the evaluation.
    """
    shared = int(group.sum([loader.get_dataset_size()])[0]) // group.size
    said: list[list[Answers]] = [[] for _ in networks]
    images = 0
    with Progress(loader.get_dataset_size(), "evaluating", unit="batch", leave=False) as progress:
        for number, (batch, labels) in enumerate(batches(loader, output_numpy=True), 1):
            padded = Tensor(pad(batch, batch_size))
            for network, parts in zip(networks, said):
                network.set_train(False)
                inputs = (padded, *network.sample(batch_size, group.rank, images))
                if not images:
                    device.compile_ahead(network, *inputs)
                parts.append(_answers(network(*inputs).asnumpy()[: len(batch)], labels))
            images += len(batch)
            progress.advance(1)
            if number <= shared:
                after_batch()
    return [Answers(*(np.concatenate(field) for field in zip(*map(_fields, parts)))) for parts in said]


def _answers(logits: np.ndarray, labels: np.ndarray) -> Answers:
    """Return what logits [B, classes] say of images with labels [B] or [B, 1]."""
    labels, finite = labels.reshape(-1), np.isfinite(logits).all(axis=1)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    with np.errstate(invalid="ignore", over="ignore"):
        logits = logits.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    loss = np.where(finite, -logs[rows, labels], np.nan)
    return Answers(labels, best, np.exp(logs[rows, best[:, 0]]), loss)


def _fields(answers: Answers) -> tuple[np.ndarray, ...]:
    return answers.labels, answers.best, answers.probability, answers.loss
