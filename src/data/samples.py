"""The training images as they lie on disk: a file each, or CIFAR's records."""

from pathlib import Path
from typing import Union

import numpy as np

from src.config import DataConfig
from src.data.augment import Item
from src.data.datasets import CIFAR_RECORD, Dataset, Split, cifar_files, paths_of
from src.errors import UserError


class Samples:
    """The images of a split by index.

    Attributes:
        labels: int32 [number of images].
    """

    def __init__(self, dataset: Dataset, split: str, config: DataConfig) -> None:
        part = dataset.splits[split]
        if part.extensions:
            files = paths_of(part, dataset.classes)
            number = {name: label for label, name in enumerate(dataset.classes)}
            self.labels = np.array([number[Path(file).parent.name] for file in files], np.int32)
            self.items: Union[list[str], np.ndarray] = files
        else:
            self.labels, self.items = _read_cifar(part, config.name)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]


def _read_cifar(split: Split, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return labels int32 [N] and pixels uint8 [N, 32, 32, 3] of a part of CIFAR-10 or CIFAR-100."""
    size = CIFAR_RECORD[name]
    parts = []
    for file in cifar_files(split.folder, name, split.subset):
        content = np.fromfile(file, np.uint8)
        if len(content) % size:
            raise UserError(f"{file} is damaged: {len(content)} bytes are no whole number of images")
        parts.append(content.reshape(-1, size))
    records = np.concatenate(parts)
    header = size - 3 * 32 * 32
    pixels = records[:, header:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return records[:, header - 1].astype(np.int32), np.ascontiguousarray(pixels)
