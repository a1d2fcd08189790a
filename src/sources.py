"""What images there are: a data set's classes, and its splits.

A folder holds its splits, as ImageNet's (`train/CLASS/*.jpg`, `val/CLASS/*.jpg`), or its classes directly, of which
a fixed random part is then held out. CIFAR-10 and CIFAR-100 are read in their binary layout.

`sklearn:digits` as root names the embedded data set: the 1,797 handwritten digits of 8x8 pixels that scikit-learn
ships (UCI ML hand-written digits), written once as PNG files to data/digits.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from mindcv.data import create_dataset

from src.config import DataConfig
from src.distributed import ALONE, Group
from src.errors import UserError

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
