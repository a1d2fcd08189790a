"""Loaders of images, from MindCV's data sets and transforms.

A folder holds its splits, as ImageNet's (`train/CLASS/*.jpg`, `val/CLASS/*.jpg`), or its classes directly, of which
a fixed random part is then held out. CIFAR-10 and CIFAR-100 are read in their binary layout.

`sklearn:digits` as root names the embedded data set: the 1,797 handwritten digits of 8x8 pixels that scikit-learn
ships (UCI ML hand-written digits), written once as PNG files to data/digits.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

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

DIGITS = "sklearn:digits"
DIGITS_FOLDER = Path("data/digits")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
CIFAR_FILES = {
    ("cifar10", "train"): "data_batch_1.bin",
    ("cifar10", "test"): "test_batch.bin",
    ("cifar100", "train"): "train.bin",
    ("cifar100", "test"): "test.bin",
}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        folder: What is read.
        usage: The subfolder of `folder`, or the usage of a CIFAR set.
        images: How many.
        places: Which images of `folder`, in its sorted order, where the part is not all of it.
    """

    folder: Path
    usage: str
    images: int
    extensions: tuple[str, ...] = ()
    places: Optional[tuple[int, ...]] = None


@dataclass(frozen=True)
class Source:
    """A checked data set: its classes, in the order of their labels, and the splits that were asked for."""

    classes: tuple[str, ...]
    splits: dict[str, Split]

    def check_fits(self, num_classes: int) -> None:
        """Refuse a model with fewer outputs than there are classes."""
        if len(self.classes) > num_classes:
            raise UserError(
                f"the data has {len(self.classes)} classes but the model has {num_classes} outputs;"
                f" set model.num_classes={len(self.classes)}"
            )


def open_source(config: DataConfig, splits: Sequence[str] = ("train", "val"), group: Group = ALONE) -> Source:
    """Find, check and where needed write the data set that a configuration names.

    Args:
        splits: Which of "train" and "val" are needed.

    Raises:
        UserError: A folder is missing or holds no images, classes differ between splits, or the training split is
            smaller than a batch.
    """
    root = _write_digits(DIGITS_FOLDER.resolve()) if config.root == DIGITS else Path(config.root).expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"data.root {root} is not a folder; set data.root to the folder of the images")
    usages = {"train": config.train_split, "val": config.val_split}
    usages = {split: usages[split] for split in splits}
    source = _open_folder(config, root, usages) if config.name == "folder" else _open_cifar(config.name, root, usages)
    check_sizes(source, config, group)
    return source


def check_sizes(source: Source, config: DataConfig, group: Group = ALONE) -> None:
    """Refuse fewer training images than a batch, and fewer validation images than processes."""
    train, val = source.splits.get("train"), source.splits.get("val")
    if train is not None and train.images < config.batch_size * group.size:
        each = f" for each of {group.size} processes" if group.size > 1 else ""
        raise UserError(
            f"data.batch_size {config.batch_size}{each} exceeds the {train.images} training images of {train.folder};"
            " set a smaller data.batch_size"
        )
    if val is not None and val.images < group.size:
        raise UserError(f"{val.folder} has fewer validation images than there are processes; start fewer")


def files_of(split: Split, classes: Sequence[str]) -> list[Path]:
    """A folder's images in the order in which they are numbered; none for a set in another layout."""
    if not split.extensions:
        return []
    folder = split.folder / split.usage
    files = [
        folder / name / file
        for name in classes
        for file in sorted(os.listdir(folder / name), key=os.fsencode)
        if _ending(file) in split.extensions
    ]
    return files if split.places is None else [files[place] for place in split.places]


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


def _open_folder(config: DataConfig, root: Path, usages: dict[str, str]) -> Source:
    absent = [root / usage for usage in usages.values() if not (root / usage).is_dir()]
    if len(absent) == len(usages) and _scan(root)[0]:
        return _hold_out(config, root, usages)
    if absent:
        raise UserError(
            f"data.root {root} has no folder {absent[0].name}"
            + (
                ""
                if len(absent) < len(usages)
                else f", and no class folders with images ({', '.join(EXTENSIONS)}) either"
            )
            + "; set data.root, data.train_split and data.val_split to what is there"
        )
    scans = {split: _scan(root / usage) for split, usage in usages.items()}
    for split, (classes, _, _) in scans.items():
        if not classes:
            raise UserError(
                f"data folder {root / usages[split]} holds no images: it must hold a folder a class, with files"
                f" {', '.join(EXTENSIONS)} in it"
            )
    first = next(iter(scans))
    for split, (classes, _, _) in scans.items():
        if classes != scans[first][0]:
            differing = sorted(set(classes) ^ set(scans[first][0]))
            raise UserError(
                f"data folders {root / usages[first]} and {root / usages[split]} hold different classes:"
                f" {', '.join(differing[:10])}{', ...' if len(differing) > 10 else ''} only in one of them"
            )
    return Source(
        scans[first][0],
        {split: Split(root, usages[split], images, exts) for split, (_, images, exts) in scans.items()},
    )


def _hold_out(config: DataConfig, root: Path, usages: dict[str, str]) -> Source:
    """Class folders without splits: a fixed random part, the same for every run, is for validation."""
    classes, images, extensions = _scan(root)
    held_out = round(images * config.val_fraction)
    if not 0 < held_out < images:
        raise UserError(
            f"data.val_fraction {config.val_fraction:g} of {images} images leaves none to train or to validate on"
        )
    order = np.random.RandomState(0).permutation(images)
    parts = {"val": sorted(order[:held_out].tolist()), "train": sorted(order[held_out:].tolist())}
    splits = {split: Split(root, "", len(parts[split]), extensions, tuple(parts[split])) for split in usages}
    return Source(classes, splits)


def _scan(folder: Path) -> tuple[tuple[str, ...], int, tuple[str, ...]]:
    """Class folders with images in them (hidden ones aside), how many images, and with what endings."""
    classes, images, endings = [], 0, set()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        found = [ending for ending in map(_ending, os.listdir(entry.path)) if ending.lower() in EXTENSIONS]
        if found:
            classes.append(entry.name)
            images += len(found)
            endings.update(found)
    return tuple(classes), images, tuple(sorted(endings))


def _ending(name: str) -> str:
    return os.path.splitext(name)[1]


def _open_cifar(name: str, root: Path, usages: dict[str, str]) -> Source:
    for usage in usages.values():
        for part in ("train", "test") if usage == "all" else (usage,):
            if not (root / CIFAR_FILES[name, part]).is_file():
                raise UserError(
                    f"data.root {root} has no {CIFAR_FILES[name, part]}: it must hold {name} in its binary layout"
                )
    splits = {}
    for split, usage in usages.items():
        images = create_dataset(name, root=str(root), split=usage, shuffle=False).get_dataset_size()
        splits[split] = Split(root, usage, images)
    return Source(CIFAR10_CLASSES if name == "cifar10" else tuple(map(str, range(100))), splits)


def _write_digits(folder: Path) -> Path:
    """Write scikit-learn's digits as an image folder, a held-out fifth of each class as val, if not yet done."""
    if folder.is_dir():
        return folder
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    places = range(len(digits.target))
    _, held_out = train_test_split(places, test_size=0.2, stratify=digits.target, random_state=0)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    for place in places:
        split = "val" if place in held_out else "train"
        target = partial / split / str(digits.target[place]) / f"{place:04d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(digits.images[place] * (255 / 16)).astype(np.uint8)).save(target)
    try:
        partial.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(partial)
    return folder
