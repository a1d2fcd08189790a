"""The data sets: their classes and splits. Never imports MindSpore.

A folder holds its splits, as ImageNet's (`train/CLASS/*.jpg`, `val/CLASS/*.jpg`), or its classes directly, of which
a fixed random part is then held out. CIFAR-10 and CIFAR-100 are read in their binary layout.

`sklearn:digits` as root names the embedded data set: the 1,797 handwritten digits of 8x8 pixels that scikit-learn
ships (UCI ML hand-written digits), written once as PNG files to data/digits. `sklearn:digits-parity` are the same
images with the same ones held out, but told apart as even and odd: another task, to fine-tune for.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from src.config import DataConfig
from src.errors import CONTROL, UserError, difference
from src.files import written_whole
from src.runtime.distributed import SINGLE_PROCESS, ProcessGroup

log = logging.getLogger("skipvit")

EMBEDDED = {  # the folder it is written to, and the class of each digit
    "sklearn:digits": (Path("data/digits"), tuple("0123456789")),
    "sklearn:digits-parity": (Path("data/digits-parity"), ("even", "odd") * 5),
}
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")
CIFAR_FILES = {  # one file that must be there, and the pattern of all of them
    ("cifar10", "train"): ("data_batch_1.bin", "data_batch_*.bin"),
    ("cifar10", "test"): ("test_batch.bin", "test_batch.bin"),
    ("cifar100", "train"): ("train.bin", "train.bin"),
    ("cifar100", "test"): ("test.bin", "test.bin"),
}
CIFAR_RECORD = {"cifar10": 3073, "cifar100": 3074}  # bytes of an image with its labels
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        folder: The folder that holds it.
        subset: The subfolder of `folder`, or train, test or all of a CIFAR set.
        num_images: How many images it has.
        extensions: Endings of its files; none of a CIFAR set.
        indices: Its images' indices in the sorted order of the subfolder, where it is not all of them.
    """

    folder: Path
    subset: str
    num_images: int
    extensions: tuple[str, ...] = ()
    indices: Optional[tuple[int, ...]] = None


@dataclass(frozen=True)
class Dataset:
    """A data set: its classes in the order of their labels, and the splits that were asked for.

    Attributes:
        remarks: What a training says about it, such as files that are no images.
    """

    classes: tuple[str, ...]
    splits: dict[str, Split]
    remarks: tuple[str, ...] = ()

    def check_fits(self, num_classes: int) -> None:
        """Refuse a model with fewer outputs than there are classes.

        Raises:
            UserError: There are more classes.
        """
        if len(self.classes) > num_classes:
            raise UserError(
                f"the data has {len(self.classes)} classes but the model has {num_classes} outputs;"
                f" set model.num_classes={len(self.classes)}"
            )

    def warn_of_unused_outputs(self, num_classes: int) -> None:
        """Log it where the model has outputs that no class of the data stands for."""
        if len(self.classes) < num_classes:
            log.warning(
                "the data in %s has %d classes, the model %d outputs: labels are the first %d; for a network of these"
                " classes alone, train with model.num_classes=null",
                next(iter(self.splits.values())).folder, len(self.classes), num_classes, len(self.classes),
            )  # fmt: skip

    def check_classes(self, trained: Sequence[str], where: str) -> None:
        """Refuse data of other classes than were trained on, or in another order.

        Args:
            trained: The names of the outputs, as `where` has them; none if they are unknown.

        Raises:
            UserError: They differ.
        """
        if trained and tuple(trained) != self.classes:
            differing = difference(trained, self.classes, "the training", "the data")
            raise UserError(
                f"the data's classes are not those of {where}: {differing}; set data.root to data of the same classes"
            )


def open_dataset(
    config: DataConfig, splits: Sequence[str] = ("train", "val"), group: ProcessGroup = SINGLE_PROCESS
) -> Dataset:
    """Open the data set that a configuration names; write it first where it is scikit-learn's digits.

    Args:
        splits: Which of "train" and "val" are needed.

    Raises:
        UserError: A folder is missing or holds no images, classes differ between splits, or the training split is
            smaller than a batch.
    """
    root = _write_digits(*EMBEDDED[config.root]) if config.root in EMBEDDED else _expand(config.root)
    if not root.is_dir():
        raise UserError(f"data.root {root} is not a folder; set data.root to the folder of the images")
    named = {"train": config.train_split, "val": config.val_split}
    subsets = {split: named[split] for split in splits}
    dataset = (
        _open_folder(config, root, subsets) if config.name == "folder" else _open_cifar(config.name, root, subsets)
    )
    check_sizes(dataset, config, group)
    if "train" in splits and len(dataset.classes) == 1:
        raise UserError(f"data.root {root} has one class, {dataset.classes[0]}; there is nothing to tell apart")
    if len(subsets) > 1 and len(set(subsets.values())) == 1 and len(dataset.splits["val"].indices or ()) == 0:
        said = f"data.val_split is data.train_split, {config.val_split}: top-1 is that of the training images"
        dataset = replace(dataset, remarks=(*dataset.remarks, said))
    return dataset


def _expand(root: str) -> Path:
    try:
        return Path(root).expanduser().resolve()
    except RuntimeError as error:
        raise UserError(f"data.root {root}: there is no such user; name the folder from / on") from error


def check_sizes(dataset: Dataset, config: DataConfig, group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Refuse fewer training images than a batch of all processes, and fewer validation images than processes.

    Raises:
        UserError: There are too few.
    """
    train, val = dataset.splits.get("train"), dataset.splits.get("val")
    if train is not None and train.num_images < config.batch_size * group.size:
        each = f" for each of {group.size} processes" if group.size > 1 else ""
        raise UserError(
            f"data.batch_size {config.batch_size}{each} exceeds the {train.num_images} training images of"
            f" {train.folder}; set a smaller data.batch_size"
        )
    if val is not None and val.num_images < group.size:
        raise UserError(f"{val.folder} has fewer validation images than there are processes; start fewer")


def files_of(split: Split, classes: Sequence[str]) -> list[Path]:
    """Return a folder's images in the order of their indices; none for a set in another layout."""
    return list(map(Path, paths_of(split, classes)))


def paths_of(split: Split, classes: Sequence[str]) -> list[str]:
    """Return what `files_of` does, as text: a tenth of the memory."""
    if not split.extensions:
        return []
    folder = split.folder / split.subset
    files = [
        f"{folder}{os.sep}{name}{os.sep}{file}"
        for name in classes
        for file in sorted(os.listdir(folder / name), key=os.fsencode)
        if _ending(file) in split.extensions
    ]
    return files if split.indices is None else [files[index] for index in split.indices]


def names_digest(dataset: Dataset) -> str:
    """Return a digest of the names of a data set's images below its root, in their order."""
    digest = hashlib.sha256()
    for name, split in sorted(dataset.splits.items()):
        digest.update(f"{name}\0".encode())
        for path in paths_of(split, dataset.classes):
            digest.update(os.fsencode(path[len(str(split.folder)) :]) + b"\0")
    return digest.hexdigest()


def find_images(named: Sequence[str]) -> list[Path]:
    """Return the files that are named, and those below the folders that are, in order of name.

    Raises:
        UserError: One is missing, or a folder holds no image.
    """
    files = []
    for path in map(Path, named):
        found = [path]
        if path.is_dir():
            walk = os.walk(path, followlinks=True)
            found = sorted(Path(folder, name) for folder, _, names in walk for name in names)
            found = [file for file in found if _is_image(file.relative_to(path))]
            if not found:
                raise UserError(f"folder {path} holds no images ({', '.join(EXTENSIONS)})")
        elif not path.is_file():
            raise UserError(f"image {path} does not exist; name one that does (several schedules: repeat --tokens)")
        files += found
    return files


def _open_folder(config: DataConfig, root: Path, subsets: dict[str, str]) -> Dataset:
    absent = [root / subset for subset in subsets.values() if not (root / subset).is_dir()]
    if len(absent) == len(subsets) and _scan(root).classes:
        return _hold_out(config, root, subsets)
    if absent:
        raise UserError(
            f"data.root {root} has no folder {absent[0].name}"
            + (
                ""
                if len(absent) < len(subsets)
                else f", and no class folders with images ({', '.join(EXTENSIONS)}) either"
            )
            + "; set data.root, data.train_split and data.val_split to what is there"
        )
    scans = {split: _scan(root / subset) for split, subset in subsets.items()}
    for split, scan in scans.items():
        if not scan.classes:
            raise UserError(
                f"data folder {root / subsets[split]} holds no images: it must hold a folder a class, with files"
                f" {', '.join(EXTENSIONS)} in it"
            )
    first = next(iter(scans))
    classes = scans[first].classes
    for split, scan in scans.items():
        if scan.classes != classes:
            raise UserError(
                f"data folders {root / subsets[first]} and {root / subsets[split]} hold different classes:"
                f" {difference(classes, scan.classes, subsets[first], subsets[split])}"
            )
    return Dataset(
        classes,
        {split: Split(root, subsets[split], scan.images, scan.endings) for split, scan in scans.items()},
        tuple(dict.fromkeys(scan.remark for scan in scans.values() if scan.remark)),
    )


def _hold_out(config: DataConfig, root: Path, subsets: dict[str, str]) -> Dataset:
    """Split class folders: a fixed random part, the same for every run, is for validation."""
    scan = _scan(root)
    images = scan.images
    held_out = round(images * config.val_fraction)
    if not 0 < held_out < images:
        raise UserError(
            f"data.val_fraction {config.val_fraction:g} of {images} images leaves none to train or to validate on"
        )
    order = np.random.RandomState(0).permutation(images)
    parts = {"val": sorted(order[:held_out].tolist()), "train": sorted(order[held_out:].tolist())}
    splits = {split: Split(root, "", len(parts[split]), scan.endings, tuple(parts[split])) for split in subsets}
    return Dataset(scan.classes, splits, (scan.remark,) if scan.remark else ())


@dataclass(frozen=True)
class _Scan:
    """What is in a folder of class folders, hidden ones aside.

    Attributes:
        classes: The class folders that hold images.
        endings: Those of the images.
        remark: In words, what is no image of a class: other files, folders in classes, empty classes.
    """

    classes: tuple[str, ...]
    images: int
    endings: tuple[str, ...]
    remark: str


def _scan(folder: Path) -> _Scan:
    others: Counter[str] = Counter()
    classes, images, endings = [], 0, set()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        found = 0
        for inner in os.scandir(entry.path):
            ending = _ending(inner.name)
            if ending.lower() in EXTENSIONS:
                found += 1
                endings.add(ending)
            elif not inner.name.startswith("."):
                kind = "folder(s) in class folders" if inner.is_dir() else f"file(s) {ending or 'without ending'}"
                others[kind] += 1
        if found and CONTROL.search(entry.name):
            raise UserError(f"class folder {entry.path}: its name is not one line of text in UTF-8; rename it")
        if found:
            classes.append(entry.name)
            images += found
        else:
            others["class folder(s) without images"] += 1
    counts = ", ".join(f"{count} {what}" for what, count in others.most_common(5))
    remark = f"not used of {folder}: {counts}" if counts else ""
    return _Scan(tuple(classes), images, tuple(sorted(endings)), remark)


def _ending(name: str) -> str:
    """Return a name's ending as MindSpore sees it: that of `.png` is all of it."""
    return name[name.rfind(".") :] if "." in name else ""


def _open_cifar(name: str, root: Path, subsets: dict[str, str]) -> Dataset:
    for subset in subsets.values():
        for part in _cifar_parts(subset):
            if not (root / CIFAR_FILES[name, part][0]).is_file():
                raise UserError(
                    f"data.root {root} has no {CIFAR_FILES[name, part][0]}: it must hold {name} in its binary layout"
                )
    splits = {}
    for split, subset in subsets.items():
        num_images = sum(file.stat().st_size // CIFAR_RECORD[name] for file in cifar_files(root, name, subset))
        splits[split] = Split(root, subset, num_images)
    return Dataset(CIFAR10_CLASSES if name == "cifar10" else tuple(map(str, range(100))), splits)


def cifar_files(root: Path, name: str, subset: str) -> list[Path]:
    """Return the files of a part of CIFAR, in order."""
    return [file for part in _cifar_parts(subset) for file in sorted(root.glob(CIFAR_FILES[name, part][1]))]


def _cifar_parts(subset: str) -> tuple[str, ...]:
    return ("train", "test") if subset == "all" else (subset,)


def _write_digits(folder: Path, classes: Sequence[str]) -> Path:
    """Write scikit-learn's digits as an image folder, a held-out fifth of each digit as val, unless it is there.

    Args:
        classes: The class of each digit.
    """
    folder = folder.resolve()
    if folder.is_dir():
        return folder
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    indices = range(len(digits.target))
    _, held_out = train_test_split(indices, test_size=0.2, stratify=digits.target, random_state=0)
    try:
        with written_whole(folder) as partial:
            for index in indices:
                split = "val" if index in held_out else "train"
                target = partial / split / classes[digits.target[index]] / f"{index:04d}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.round(digits.images[index] * (255 / 16)).astype(np.uint8)).save(target)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    return folder


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not any(part.startswith(".") for part in path.parts)


def class_name(classes: Sequence[str], index: int) -> str:
    """Return the name of an output; its index where it has none."""
    return classes[index] if index < len(classes) else str(index)
