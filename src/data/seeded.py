"""Random augmentation in Python that depends only on the run's seed, the epoch and the image.

MindCV's RandAugment, mixup and CutMix, and MindSpore's random erasing, draw from the global state of NumPy and of
`random`, which a loader's threads share: without a seed of its own an image's augmentation would depend on their order.
"""

import random
import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

_lock = threading.Lock()


class Seeded:
    """Apply a random transform that draws the same numbers for the same input, in whichever thread and order.

    Args:
        transform: Called with the loader's columns, an image first.
        key: Numbers that tell apart transforms of the same input: seed, epoch, position in the pipeline.
    """

    def __init__(self, transform: Callable[..., Any], *key: int) -> None:
        self.transform = transform
        self.key = key

    def __call__(self, *columns: Any) -> Any:
        digest = zlib.crc32(np.ascontiguousarray(columns[0]).data)
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
