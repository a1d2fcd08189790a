"""Loaders of images, from MindCV's data sets and transforms."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindcv.data import create_dataset, create_loader, create_transforms
from mindcv.data.mixup import Mixup
from mindspore.dataset import vision
from mindspore.dataset.transforms.py_transforms_util import Implementation
from mindspore.dataset.transforms.transforms import TensorOperation

from src.augment import Seeded
from src.config import Config, DataConfig, ImageSize, sides
from src.distributed import ALONE, Group
from src.errors import FailureError, UserError, first_line
from src.sources import Source


def train_loader(source: Source, config: Config, num_classes: int, epoch: int, group: Group = ALONE) -> ds.Dataset:
    """One epoch of shuffled, augmented batches: images float32 [B, 3, H, W] and labels.

    Labels are int32 [B], or float32 [B, classes] with mixup or cutmix. The order follows from the run's seed and the
    epoch alone: a step takes the next images for all processes of the group, each its part; what is left at the end
    and would not fill a batch for all is left out. Augmentation follows from the seeds in force
    (`src.runtime.set_seeds`).
    """
    data = config.data
    steps = steps_of_epoch(source, config, group)
    order = np.random.default_rng([config.train.seed, epoch]).permutation(source.splits["train"].images)
    order = order[: steps * group.size * data.batch_size].reshape(steps, group.size, data.batch_size)
    key = (config.train.seed, epoch)
    loader = create_loader(
        _images(source, "train", data, order[:, group.rank].ravel()),
        batch_size=data.batch_size,
        drop_remainder=True,
        is_training=True,
        transform=_seeded(_train_transforms(data, config.model.image_size), key),
        num_parallel_workers=_workers(data),
    )
    if data.mixup or data.cutmix:
        mix = Mixup(data.mixup, data.cutmix, prob=data.mixup_prob, num_classes=num_classes, label_smoothing=0.0)
        columns = loader.get_col_names()
        loader = loader.map(Seeded(mix, *key), columns, num_parallel_workers=_workers(data))
    return loader


def steps_of_epoch(source: Source, config: Config, group: Group = ALONE) -> int:
    """Training steps of an epoch."""
    return source.splits["train"].images // (config.data.batch_size * group.size)


def batches(loader: ds.Dataset, sink: bool = False, output_numpy: bool = False) -> Iterator[tuple]:
    """One epoch of a loader's batches.

    Args:
        sink: Have MindSpore send them to the device ahead of their use, through its queue. Not for CPU.
        output_numpy: Give NumPy arrays instead of tensors.

    Raises:
        FailureError: An image cannot be read.
    """
    if not sink:
        try:
            yield from loader.create_tuple_iterator(num_epochs=1, output_numpy=output_numpy)
        except RuntimeError as error:
            raise FailureError(f"the data cannot be read: {_reason(error)}") from error
        return
    take = ms.data_sink(lambda *batch: batch, loader)
    for _ in range(loader.get_dataset_size()):
        yield take()
    loader.__transfer_dataset__.stop_send()  # it would send the same images over and over


def _reason(error: Exception) -> str:
    """What MindSpore's data pipeline says, without its account of where."""
    said = re.search(r"\[ERROR\] (.+)", str(error))
    return said[1] if said else first_line(error)


def check_transforms(config: Config) -> None:
    """Refuse augmentation that MindCV does not know.

    Raises:
        UserError: MindCV refuses `data.auto_augment` or another of its arguments.
    """
    try:
        _train_transforms(config.data, config.model.image_size)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"data.auto_augment {config.data.auto_augment!r}: MindCV refuses it: {reason}") from error


def val_loader(source: Source, config: Config, group: Group = ALONE) -> ds.Dataset:
    """This process's part of the validation images, once, in a fixed order; the last batch may be smaller.

    The parts share no image and leave none out, so they may differ by one in size.
    """
    return _val_loader(source, config, np.arange(group.rank, source.splits["val"].images, group.size))


def val_images(source: Source, config: Config, places: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Some of the validation images, by their numbers: float32 [B, 3, H, W] and labels int32 [B].

    Raises:
        FailureError: An image cannot be read.
    """
    images, labels = zip(*batches(_val_loader(source, config, np.asarray(places)), output_numpy=True))
    return np.concatenate(images), np.concatenate(labels)


def read_images(files: Sequence[Path], config: Config) -> np.ndarray:
    """Image files as validation would see them: float32 [B, 3, H, W], resized, cropped and normalised.

    For a network of CIFAR's, a file is first made the 32x32 pixels that the set would hold.

    Raises:
        UserError: A file cannot be decoded.
    """
    data, transforms = config.data, _val_transforms(config.data, config.model.image_size)
    if data.name != "folder":
        transforms = [vision.Decode(), vision.Resize((32, 32), _interpolation(data)), *transforms]
    images = []
    for file in files:
        try:
            image = np.fromfile(file, np.uint8)
            for transform in transforms:
                image = transform(image)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"image {file} cannot be decoded: {_reason(error)}") from error
        images.append(image)
    return np.stack(images)


def _val_loader(source: Source, config: Config, order: np.ndarray) -> ds.Dataset:
    return create_loader(
        _images(source, "val", config.data, order),
        batch_size=config.data.batch_size,
        transform=_val_transforms(config.data, config.model.image_size),
        num_parallel_workers=_workers(config.data),
    )


def val_sample(source: Source, config: Config, number: int) -> tuple[np.ndarray, np.ndarray]:
    """So many validation images, evenly chosen: float32 [n, 3, H, W], normalised, and labels int32 [n].

    Raises:
        FailureError: An image cannot be read.
    """
    return val_images(source, config, evenly(source.splits["val"].images, number))


def evenly(count: int, limit: int) -> list[int]:
    """Numbers below `count`, at most `limit` of them, in the middles of equal parts."""
    parts = min(count, limit)
    return [(2 * part + 1) * count // (2 * parts) for part in range(parts)]


def _images(source: Source, name: str, config: DataConfig, order: np.ndarray) -> ds.Dataset:
    """A split's images in an order of their numbers within the split."""
    split = source.splits[name]
    options = {}
    if config.name == "folder":
        options["class_indexing"] = {folder: label for label, folder in enumerate(source.classes)}
        options["extensions"] = list(split.extensions)
    images = create_dataset(
        "" if config.name == "folder" else config.name,
        root=str(split.folder),
        split=split.usage,
        shuffle=False,
        num_parallel_workers=_workers(config),
        **options,
    )
    places = order if split.places is None else np.asarray(split.places)[order]
    images.use_sampler(ds.SubsetSampler(places.tolist()))
    if config.name == "cifar100":
        images = images.project(["image", "fine_label"])
    return images


def _train_transforms(config: DataConfig, image_size: ImageSize) -> list:
    crop, augment, finish = create_transforms(
        image_resize=image_size,
        is_training=True,
        separate=True,
        auto_augment=config.auto_augment,
        color_jitter=config.color_jitter,
        scale=config.scale,
        ratio=config.ratio,
        hflip=config.hflip,
        interpolation=config.interpolation,
        mean=[255 * value for value in config.mean],
        std=[255 * value for value in config.std],
        re_prob=config.random_erasing,
    )
    if config.name != "folder":  # CIFAR's images come decoded: pad and crop them, as MindCV's CIFAR recipe does
        crop = [vision.RandomCrop(32, 4), *_resize(config, image_size), *crop[1:]]
    return crop + augment + finish


def _workers(config: DataConfig) -> int:
    """MindSpore refuses more threads than there are cores."""
    return min(config.workers, os.cpu_count() or 1)


def _seeded(transforms: list, key: tuple[int, ...]) -> list:
    """The same transforms, those that draw in Python (MindSpore's own draw in C++) from a seed of their own."""
    return [
        operation
        if isinstance(operation, TensorOperation) and operation.implementation is not Implementation.PY
        else Seeded(operation, *key, place)
        for place, operation in enumerate(transforms)
    ]


def _val_transforms(config: DataConfig, image_size: ImageSize) -> list:
    transforms = create_transforms(
        image_resize=image_size,
        crop_pct=config.crop_pct,
        interpolation=config.interpolation,
        mean=[255 * value for value in config.mean],
        std=[255 * value for value in config.std],
    )
    if config.name != "folder":
        return _resize(config, image_size) + transforms[3:]  # without MindCV's Decode, Resize and CenterCrop
    return transforms


def _resize(config: DataConfig, image_size: ImageSize) -> list:
    size = sides(image_size)
    if size == (32, 32):
        return []
    return [vision.Resize(size, _interpolation(config))]


def _interpolation(config: DataConfig) -> vision.Inter:
    return getattr(vision.Inter, config.interpolation.upper())
