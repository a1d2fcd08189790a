"""The training batches of every epoch, made ahead of their use."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Optional

import numpy as np

from src.config import Config, sides
from src.data.crops import CROP
from src.data.datasets import Dataset
from src.data.label_maps import LabelMaps
from src.data.mixing import erase, mix, normalise
from src.data.order import Order, epoch_order, steps_of
from src.data.samples import Samples
from src.data.workers import Workers
from src.runtime.distributed import SINGLE_PROCESS, ProcessGroup
from src.schedules import Geometry

BATCHES_AHEAD = 3
IMAGES_AT_ONCE = 16  # of a worker: few enough for all workers to share a batch
ERASE, MIX = 1, 2  # tell apart the random numbers of the same image or step

COLUMNS = ("image", "label")
LABEL_MAPS = ("maps", "rows", "columns")  # more columns, where there are any

Batch = tuple[np.ndarray, ...]


class TrainingData:
    """The training images of one process of a group. A context, which ends its workers.

    An image is augmented by random numbers that depend on the run's seed, the epoch, the image and, with
    `data.repeats`, its copy; a batch is mixed by numbers that depend on seed, epoch, step and process. So a batch is
    the same however many workers there are, and whatever was made before it.

    Raises:
        UserError: `token_labels.maps` is set, and the label maps are missing or damaged, or of other images or classes.
    """

    def __init__(
        self, dataset: Dataset, config: Config, num_classes: int, group: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        self.config, self.num_classes, self.group = config, num_classes, group
        self.samples = Samples(dataset, "train", config.data)
        self.grid = Geometry.from_config(config.model).grid  # of an image's tokens
        folder = config.token_labels.maps
        self.maps = LabelMaps(folder, dataset, num_classes) if folder is not None else None
        self.workers = Workers(config)
        self.finisher = ThreadPoolExecutor(1, "batches")

    def __enter__(self) -> "TrainingData":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and drop what they have not begun."""
        self.workers.close()
        self.finisher.shutdown(wait=True, cancel_futures=True)

    def epoch(self, number: int, done: int = 0, before_wait: Callable[[], object] = lambda: None) -> "Epoch":
        """Return the batches of an epoch.

        Args:
            done: Steps to leave out at the beginning, which costs nothing.
            before_wait: Called whenever the next batch is not ready, before it is waited for.
        """
        order = epoch_order(len(self.samples.labels), self.config, number, self.group)
        return Epoch(self, number, order, done, before_wait)

    def request(self, epoch: int, order: Order, step: int) -> "Future[Batch]":
        """Have a step's batch made."""
        images, copies = order.images[step].tolist(), order.copies[step].tolist()
        keys = [(self.config.train.seed, epoch, image, copy) for image, copy in zip(images, copies)]
        pixels = np.empty((len(images), *sides(self.config.model.image_size), 3), np.uint8)
        crops = None if self.maps is None else np.empty((len(images), CROP))
        size = min(IMAGES_AT_ONCE, -(-len(images) // self.workers.number))
        parts = [
            self.workers.fill(pixels[some], [self.samples[j] for j in images[some]], keys[some],
                              None if crops is None else crops[some])
            for some in (slice(i, i + size) for i in range(0, len(images), size))
        ]  # fmt: skip
        return self.finisher.submit(self._finish, parts, pixels, crops, order.images[step], keys, (epoch, step))

    def _finish(
        self,
        parts: "Sequence[Future[None]]",
        pixels: np.ndarray,
        crops: Optional[np.ndarray],
        indices: np.ndarray,
        keys: Sequence[tuple[int, ...]],
        step: tuple[int, int],
    ) -> Batch:
        """Wait for the images of a batch; normalise, erase and mix them, and read their label maps."""
        for part in parts:
            part.result()
        data = self.config.data
        images, labels = normalise(pixels, data), self.samples.labels[indices]
        if data.random_erasing:
            for image, key in zip(images, keys):
                erase(image, data, np.random.default_rng([*key, ERASE]))
        if data.mixup or data.cutmix:
            random = np.random.default_rng([self.config.train.seed, *step, self.group.rank, MIX])
            labels = mix(images, labels, self.num_classes, data, random)
        if self.maps is None or crops is None:
            return images, labels
        return images, labels, *self.maps.batch(indices, crops, self.grid)


class Epoch:
    """The batches of an epoch for one process, in order: float32 [B, 3, H, W] and labels.

    Labels are int32 [B], or float32 [B, classes] with mixup or CutMix. With label maps, what `LabelMaps.batch` returns
    follows.

    Attributes:
        columns: The names of a batch's parts.
        waited: Seconds that were spent waiting for a batch.
    """

    def __init__(
        self, data: TrainingData, number: int, order: Order, done: int, before_wait: Callable[[], object]
    ) -> None:
        self.data, self.number, self.order, self.done, self.before_wait = data, number, order, done, before_wait
        self.columns = COLUMNS if data.maps is None else COLUMNS + LABEL_MAPS
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self.order.images) - self.done

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches.

        Raises:
            RunError: An image cannot be read or augmented, a label map is damaged, or a worker died.
        """
        steps = iter(range(self.done, len(self.order.images)))
        ahead: deque[Future[Batch]] = deque()
        try:
            while True:
                while len(ahead) < BATCHES_AHEAD and (step := next(steps, None)) is not None:
                    ahead.append(self.data.request(self.number, self.order, step))
                if not ahead:
                    return
                yield self._wait(ahead.popleft())
        finally:
            for batch in ahead:
                batch.cancel()

    def _wait(self, batch: "Future[Batch]") -> Batch:
        if not batch.done():
            self.before_wait()
        started = time.monotonic()
        try:
            return batch.result()
        finally:
            self.waited += time.monotonic() - started


def steps_of_epoch(dataset: Dataset, config: Config, group: ProcessGroup = SINGLE_PROCESS) -> int:
    """Return the training steps of an epoch."""
    return steps_of(dataset.splits["train"].num_images, config, group)
