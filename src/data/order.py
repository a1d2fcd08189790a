"""The order of an epoch's training images, and how the processes of a group share it."""

from dataclasses import dataclass

import numpy as np

from src.config import Config
from src.runtime.distributed import SINGLE_PROCESS, ProcessGroup


@dataclass(frozen=True)
class Order:
    """The training images of an epoch for one process: a row a batch.

    Attributes:
        images: Indices within the split, int64 [batches, batch].
        copies: Which of its repetitions an image is, from 0, int64 [batches, batch].
    """

    images: np.ndarray
    copies: np.ndarray


def epoch_order(num_images: int, config: Config, epoch: int, group: ProcessGroup = SINGLE_PROCESS) -> Order:
    """Draw an epoch's order, from the run's seed and the epoch alone.

    With `data.repeats` each image of the permutation stands so many times in a row, each to be augmented differently,
    and the epoch still has as many images as the set: it ends before the permutation does, and the next epoch draws
    another one. Of the images of a step, the processes of a group take turns: copies of an image go to neighbouring
    processes, as in DeiT's RASampler (samplers.py of facebookresearch/deit), and a single process has them side by
    side. What would not fill the batches of an update for all processes is left out.
    """
    batch, repeats = config.data.batch_size, config.data.repeats
    steps = steps_of(num_images, config, group) * config.train.accumulate
    permutation = np.random.default_rng([config.train.seed, epoch]).permutation(num_images)
    places = np.arange(steps * batch * group.size).reshape(steps, batch, group.size)[:, :, group.rank]
    return Order(permutation[places // repeats], places % repeats)


def steps_of(num_images: int, config: Config, group: ProcessGroup = SINGLE_PROCESS) -> int:
    """Return the training steps of an epoch, each of which updates the weights by `train.accumulate` batches."""
    return num_images // (config.data.batch_size * config.train.accumulate * group.size)
