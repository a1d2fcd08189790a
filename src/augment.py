"""Random augmentation in Python whose draws follow from the run's seed, the epoch and what is augmented.

MindCV's RandAugment, mixup and cutmix, and MindSpore's random erasing, draw from the global state of NumPy and of
`random`, which a loader's threads share: the order of the threads would decide what an image gets.
"""

import random
import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

_lock = threading.Lock()


class Seeded:
    """A transform that draws the same numbers for the same input, whichever thread runs it, and when.

    Args:
        transform: Called with what the loader gives: an image and more.
        key: Numbers that tell apart what may get the same input: seed, epoch, place in the pipeline.
    """

    def __init__(self, transform: Callable[..., Any], *key: int) -> None:
        self.transform = transform
        self.key = key

    def __call__(self, *columns: Any) -> Any:
        digest = zlib.crc32(np.ascontiguousarray(columns[0]))
        seed = int(np.random.SeedSequence([*self.key, digest]).generate_state(1)[0])
        with _lock:
            before = random.getstate(), np.random.get_state()
            try:
                random.seed(seed)
                np.random.seed(seed)
                return self.transform(*columns)
            finally:
                random.setstate(before[0])
                np.random.set_state(before[1])
