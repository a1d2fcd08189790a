"""Loaders of images, from MindCV's data sets and transforms."""

import os
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindcv.data import create_dataset, create_loader

from src.config import Config, DataConfig
from src.data.augment import reason
from src.data.datasets import Dataset
from src.data.training import Epoch
from src.data.transforms import Transform, file_transforms, val_transforms, whole_transforms
from src.errors import RunError, UserError
from src.runtime.distributed import SINGLE_PROCESS, ProcessGroup


def train_batches(epoch: Epoch, sink: bool = False) -> Generator[tuple, None, None]:
    """Yield an epoch's training batches as tensors. Close it where not all of them are taken.

    Args:
        sink: Have MindSpore send them to the device ahead of their use, through its queue. Not for CPU.

    Raises:
        RunError: An image cannot be read or augmented, or a worker died.
    """
    if not sink:
        for batch in epoch:
            yield tuple(map(ms.Tensor.from_numpy, batch))
        return
    loader = as_dataset(epoch)
    take = ms.data_sink(lambda *batch: batch, loader)
    try:
        for _ in range(len(epoch)):
            yield take()
    finally:  # also where a training stops within the epoch
        loader.__transfer_dataset__.stop_send()  # it would send the same images over and over


def as_dataset(epoch: Epoch) -> ds.Dataset:
    """Return an epoch's training batches as a data set of MindSpore's, which reads them ahead in a thread."""
    return ds.GeneratorDataset(epoch, list(epoch.columns), shuffle=False, num_parallel_workers=1)


def batches(loader: ds.Dataset, output_numpy: bool = False) -> Iterator[tuple]:
    """Yield a loader's batches once, as tensors or as NumPy arrays.

    Raises:
        RunError: An image cannot be read.
    """
    try:
        yield from loader.create_tuple_iterator(num_epochs=1, output_numpy=output_numpy)
    except RuntimeError as error:
        raise RunError(f"the data cannot be read: {reason(error)}") from error


def val_loader(dataset: Dataset, config: Config, group: ProcessGroup = SINGLE_PROCESS) -> ds.Dataset:
    """Load this process's part of the validation images, once, in a fixed order; the last batch may be smaller.

    The parts share no image and leave none out, so they may differ by one in size.
    """
    return _val_loader(dataset, config, np.arange(group.rank, dataset.splits["val"].num_images, group.size))


def whole_images(dataset: Dataset, config: Config) -> ds.Dataset:
    """Load the training images once in the order of the split, whole, and neither flipped nor augmented."""
    order = np.arange(dataset.splits["train"].num_images)
    return _loader(dataset, "train", config, order, whole_transforms(config.data, config.model.image_size))


def val_images(dataset: Dataset, config: Config, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Load some of the validation images: float32 [B, 3, H, W], normalised, and labels int32 [B].

    Raises:
        RunError: An image cannot be read.
    """
    images, labels = zip(*batches(_val_loader(dataset, config, np.asarray(indices)), output_numpy=True))
    return np.concatenate(images), np.concatenate(labels)


def val_sample(dataset: Dataset, config: Config, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Load so many evenly chosen validation images, as `val_images` does."""
    return val_images(dataset, config, evenly(dataset.splits["val"].num_images, number))


def evenly(count: int, limit: int) -> list[int]:
    """Return at most `limit` indices below `count`, in the middles of equal parts."""
    parts = min(count, limit)
    return [(2 * part + 1) * count // (2 * parts) for part in range(parts)]


def read_images(files: Sequence[Path], config: Config) -> np.ndarray:
    """Read image files as validation sees them: float32 [B, 3, H, W], resized, cropped and normalised.

    Raises:
        UserError: A file cannot be decoded.
    """
    transforms = file_transforms(config.data, config.model.image_size)
    images = []
    for file in files:
        try:
            image = np.fromfile(file, np.uint8)
            for transform in transforms:
                image = transform(image)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"image {file} cannot be decoded: {reason(error)}") from error
        images.append(image)
    return np.stack(images)


def _val_loader(dataset: Dataset, config: Config, order: np.ndarray) -> ds.Dataset:
    return _loader(dataset, "val", config, order, val_transforms(config.data, config.model.image_size))


def _loader(
    dataset: Dataset, name: str, config: Config, order: np.ndarray, transforms: Sequence[Transform]
) -> ds.Dataset:
    """Return batches of a split's images, in an order of their indices; the last one may be smaller."""
    return create_loader(
        _images(dataset, name, config.data, order),
        batch_size=config.data.batch_size,
        transform=list(transforms),
        num_parallel_workers=_workers(config.data),
    )


def _images(dataset: Dataset, name: str, config: DataConfig, order: np.ndarray) -> ds.Dataset:
    """Return MindCV's data set of a split's images, in an order of their indices within the split."""
    split = dataset.splits[name]
    options: dict[str, object] = {}
    if config.name == "folder":
        options["class_indexing"] = {folder: label for label, folder in enumerate(dataset.classes)}
        options["extensions"] = list(split.extensions)
    images = create_dataset(
        "" if config.name == "folder" else config.name,
        root=str(split.folder),
        split=split.subset,
        shuffle=False,
        num_parallel_workers=_workers(config),
        **options,
    )
    indices = order if split.indices is None else np.asarray(split.indices)[order]
    images.use_sampler(ds.SubsetSampler(indices.tolist()))
    if config.name == "cifar100":
        images = images.project(["image", "fine_label"])
    return images


def _workers(config: DataConfig) -> int:
    """Return the number of threads: MindSpore refuses more than there are cores."""
    return min(config.workers, os.cpu_count() or 1)
