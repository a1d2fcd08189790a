"""Run any number of images through what takes batches of one size."""

from collections.abc import Callable

import numpy as np

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def pad(batch: np.ndarray, size: int) -> np.ndarray:
    """Return a batch [B, ...] with zeros after it, [size, ...]."""
    return np.pad(batch, [(0, size - len(batch))] + [(0, 0)] * (batch.ndim - 1))


def in_batches(run: Run, images: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Return the outputs of images [B, ...] by name; a batch that they do not fill is padded with zeros.

    Args:
        size: Images of a batch; 0: all at once.
    """
    size = size or len(images)
    parts: list[dict[str, np.ndarray]] = []
    for first in range(0, len(images), size):
        batch = images[first : first + size]
        parts.append({name: output[: len(batch)] for name, output in run(pad(batch, size)).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
