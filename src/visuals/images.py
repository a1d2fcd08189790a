"""The images of a picture: files that are named, or some of the validation set."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from src.config import Config
from src.data.datasets import Dataset, files_of, open_dataset
from src.data.loaders import evenly, read_images, val_images
from src.data.pixels import pixels
from src.data.verify import decode_error, drop_bad_images
from src.errors import UserError
from src.runtime import device

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class ImageBatch:
    """The images of a picture.

    Attributes:
        inputs: Normalised, float32 [B, 3, H, W].
        pixels: uint8 [B, H, W, 3].
        titles: Their names.
        truths: Their classes, where known.
    """

    inputs: np.ndarray
    pixels: np.ndarray
    titles: list[str]
    truths: list[Optional[str]]


def open_val_images(config: Config, classes: Sequence[str]) -> Dataset:
    """Open the validation images of the classes that were trained on, without images that are to be skipped.

    Raises:
        UserError: The data is missing, has no validation images, or is not what the run was trained on.
    """
    dataset = open_dataset(config.data, ("val",))
    dataset.check_classes(classes, "the training")
    dataset = drop_bad_images(dataset, config.data.on_bad_image, device.cache_folder())
    if not dataset.splits["val"].num_images:
        raise UserError("there are no validation images")
    return dataset


def load_images(files: Sequence[Path], config: Config, classes: Sequence[str], limit: int) -> ImageBatch:
    """Load at most `limit` images, evenly chosen: of the files, or of the validation set where no file is named.

    Args:
        classes: Names of the network's outputs. A file's class is its folder, if that is one of them.

    Raises:
        UserError: A file cannot be decoded, or the data is refused.
    """
    batch, total = _of_files(files, config, classes, limit) if files else _of_validation(config, classes, limit)
    count = len(batch.inputs)
    log.info("%d of %d images%s", count, total, "; --limit N shows more" if count < total else "")
    return batch


def _of_files(files: Sequence[Path], config: Config, classes: Sequence[str], limit: int) -> tuple[ImageBatch, int]:
    chosen = [files[index] for index in evenly(len(files), limit)]
    for file in chosen:
        problem = decode_error(file)
        if problem:
            raise UserError(f"image {file} cannot be used: {problem}")
    folders = [file.resolve().parent.name for file in chosen]
    truths = [folder if folder in classes else None for folder in folders]
    return _batch(read_images(chosen, config), config, [file.name for file in chosen], truths), len(files)


def _of_validation(config: Config, classes: Sequence[str], limit: int) -> tuple[ImageBatch, int]:
    dataset = open_val_images(config, classes)
    dataset.check_fits(config.model.num_classes or len(dataset.classes))
    split = dataset.splits["val"]
    indices = evenly(split.num_images, limit)
    inputs, labels = val_images(dataset, config, indices)
    files = files_of(split, dataset.classes)
    titles = [files[index].name if files else f"number {index}" for index in indices]
    return _batch(inputs, config, titles, [dataset.classes[label] for label in labels.ravel()]), split.num_images


def _batch(inputs: np.ndarray, config: Config, titles: list[str], truths: Sequence[Optional[str]]) -> ImageBatch:
    return ImageBatch(inputs, pixels(inputs, config.data.mean, config.data.std), titles, list(truths))
