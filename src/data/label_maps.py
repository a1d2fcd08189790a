"""Label maps: what a trained network sees at each place of each training image (token labelling, arXiv 2104.10858).

docs/token_labels.md describes the folder that holds them. Never imports MindSpore.

The labels of an image's crop are those that RoIAlign cuts out of its map. It is an average of bilinear interpolations,
so a matrix for the rows and one for the columns say all of it, and a network applies them to all classes at once. The
original hands its box over as (top, left, bottom, right) to what wants (left, top, right, bottom), and so cuts out a
transposed one; here rows follow from top and height, and columns from left and width.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from tokenize import TokenError
from typing import Optional, Union

import numpy as np
from pydantic import PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from src.config import Config
from src.data.datasets import Dataset, names_digest
from src.errors import RunError, UserError, difference, short_message
from src.files import write_text, written_whole
from src.schedules import Geometry

ARRAY, FACTS = "labels.npy", "labels.json"
BEST = 5  # classes that are kept of a place
MOST_CLASSES = 2**11  # whole numbers up to here are exact in half precision
SAMPLES = 16  # maps that are looked at before a training begins; the others when it needs them
NOT_AN_ARRAY = (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError, TokenError)


@dataclass(frozen=True)
class Facts:
    """What a folder's labels.json tells of its maps.

    Attributes:
        images: How many maps there are: one for each image of the training split, in its order.
        grid: Rows and columns of places.
        classes: The classes' names in the order of their numbers, or how many there are.
        digest: As `training_digest` returns it.
        model: What made the maps.
    """

    images: PositiveInt
    grid: tuple[PositiveInt, PositiveInt]
    classes: Union[PositiveInt, tuple[str, ...]]
    digest: str
    model: str


class LabelMaps:
    """The maps of a data set's training images.

    Args:
        folder: Holds them.
        dataset: As it is trained, without bad images.
        num_classes: Outputs of the network that is trained.

    Raises:
        UserError: They are missing or damaged, or of other images or classes.
    """

    def __init__(self, folder: str, dataset: Dataset, num_classes: int) -> None:
        self.folder, self.num_classes = Path(folder), num_classes
        self.facts = self._read_facts()
        self._check_fits(dataset)
        self.array = self._open_array()
        some = np.unique(np.linspace(0, self.facts.images - 1, SAMPLES).astype(int))
        problem = self._problem(some, self._read(some))
        if problem:
            raise self._refused(problem)

    def batch(self, images: np.ndarray, crops: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, ...]:
        """Return what the labels of a batch's tokens follow from.

        Args:
            images: Indices within the training split, int [B].
            crops: Of each top, left, height and width as shares of the image, and whether it was flipped: [B, 5].
            grid: Rows and columns of the tokens.

        Returns:
            Maps float32 [B, 2, 5, h, w], the largest scores and their class numbers, and the matrices of `matrices`.

        Raises:
            RunError: A score is not finite, or a class number is none.
        """
        maps = self._read(images)
        problem = self._problem(images, maps)
        if problem:
            raise RunError(f"token_labels.maps {self.folder}: {problem}; write the maps again")
        return maps, *matrices(crops, grid, self.facts.grid)

    def _read(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.array[images]).astype(np.float32)

    def _problem(self, images: np.ndarray, maps: np.ndarray) -> Optional[str]:
        """Return what is wrong with the first bad one of these images' maps; None if nothing is."""
        scores, classes = maps[:, 0], maps[:, 1]
        numbers = (classes >= 0) & (classes < self.num_classes) & (classes == np.floor(classes))
        for good, what in (
            (np.isfinite(scores), "a score that is not finite"),
            (numbers, f"a class number that is none of 0 to {self.num_classes - 1}"),
        ):
            if not good.all():
                return f"the map of training image {images[np.argmin(good.all(axis=(1, 2, 3)))]} has {what}"
        return None

    def _read_facts(self) -> Facts:
        """Read labels.json, and refuse a folder that is none of maps."""
        if not self.folder.is_dir():
            raise self._refused("it is not a folder")
        for name in (ARRAY, FACTS):
            if not (self.folder / name).is_file():
                raise self._refused(f"it has no file {name}")
        try:
            return TypeAdapter(Facts).validate_json((self.folder / FACTS).read_bytes())
        except OSError as error:
            raise self._refused(f"{FACTS} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join(map(str, wrong["loc"]))
            raise self._refused(f"{FACTS} is damaged: {where}{': ' if where else ''}{wrong['msg']}") from error

    def _check_fits(self, dataset: Dataset) -> None:
        """Refuse maps of other classes or images."""
        facts, images = self.facts, dataset.splits["train"].num_images
        if isinstance(facts.classes, int):
            if facts.classes != len(dataset.classes):
                raise self._refused(f"they are of {facts.classes} classes, and the data has {len(dataset.classes)}")
        elif facts.classes != dataset.classes:
            differing = difference(facts.classes, dataset.classes, "the maps", "the data")
            raise self._refused(f"they are of other classes than the data: {differing}")
        if facts.images != images:
            raise self._refused(f"they are of {facts.images} images, and the training takes {images}")
        if facts.digest != training_digest(dataset):
            raise self._refused("they are of other images than the training takes, or in another order")

    def _open_array(self) -> np.ndarray:
        """Map labels.npy into memory, without pickle, and refuse all but the array that it must be."""
        path = self.folder / ARRAY
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except OSError as error:
            raise self._refused(f"{ARRAY} cannot be read: {error.strerror or short_message(error)}") from error
        except NOT_AN_ARRAY as error:
            raise self._refused(f"{ARRAY} is damaged: {short_message(error)}") from error
        images, grid = self.facts.images, self.facts.grid
        fits = array.ndim == 5 and array.shape[:2] == (images, 2) and array.shape[2:] == (BEST, *grid)
        if not fits or array.dtype != np.dtype("<f2") or not array.flags.c_contiguous or not array.size:
            shape = f"float16 [{images}, 2, {BEST}, {grid[0]}, {grid[1]}]"
            raise self._refused(f"{ARRAY} is {array.dtype} {list(array.shape)}, not {shape} row by row")
        if path.stat().st_size != array.offset + array.nbytes:
            raise self._refused(f"{ARRAY} is damaged: it has other than {array.offset + array.nbytes} bytes")
        return array

    def _refused(self, what: str) -> UserError:
        remedy = "write maps of this data with python -m src.tools.label_maps, or set token_labels.maps=null"
        return UserError(f"token_labels.maps {self.folder}: {what}; {remedy}")


def blank(config: Config, images: int) -> tuple[np.ndarray, ...]:
    """Return what `LabelMaps.batch` would for so many whole images, of maps without a score; nothing without maps."""
    if config.token_labels.maps is None:
        return ()
    grid = Geometry.from_config(config.model).grid
    whole = np.tile([0.0, 0.0, 1.0, 1.0, 0.0], (images, 1))
    return np.zeros((images, 2, BEST, *grid), np.float32), *matrices(whole, grid, grid)


def training_digest(dataset: Dataset) -> str:
    """Return a digest of the names of the training images below the data's root, in their order."""
    return names_digest(replace(dataset, splits={"train": dataset.splits["train"]}))


def matrices(crops: np.ndarray, grid: tuple[int, int], places: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrices that cut the labels of crops out of their maps.

    Args:
        crops: float [B, 5], as of `LabelMaps.batch`.
        grid: Rows and columns of a crop's tokens.
        places: Rows and columns of a map.

    Returns:
        float32 [B, rows + 1, map rows] and [B, columns + 1, map columns], whose last row is for the label of the whole
        crop, and the others are for its tokens'. A flip reverses the columns.
    """
    top, left, height, width, flipped = crops.T
    rows, columns = (
        np.concatenate([roi_align(start, share, bins, count), roi_align(start, share, 1, count)], axis=1)
        for start, share, bins, count in ((top, height, grid[0], places[0]), (left, width, grid[1], places[1]))
    )
    turned = np.concatenate([columns[:, -2::-1], columns[:, -1:]], axis=1)
    columns = np.where(flipped[:, None, None] > 0, turned, columns)
    return rows.astype(np.float32), columns.astype(np.float32)


def roi_align(start: np.ndarray, share: np.ndarray, bins: int, count: int) -> np.ndarray:
    """Return the weights of places in the bins of an interval, along a side: float64 [B, bins, count], rows sum to 1.

    Place i lies at i, the image reaches from -0.5 to count - 0.5 (torchvision's RoIAlign, aligned). A bin is the mean
    of ceil(its length) evenly spaced points, each interpolated between its two neighbours; beyond the outermost places
    it has the value there.

    Args:
        start: Where intervals begin, as a share of the side, [B].
        share: How long they are, as a share of the side, [B].
        count: Places along the side.
    """
    length = (share * count / bins)[:, None, None]
    number = np.maximum(np.ceil(length), 1)
    point = np.arange(number.max())
    positions = np.arange(bins)[None, :, None] + (point + 0.5) / number
    positions = np.clip((start * count - 0.5)[:, None, None] + positions * length, 0, count - 1)
    near = np.maximum(0, 1 - np.abs(positions[..., None] - np.arange(count)))
    return np.where((point < number)[..., None], near, 0).sum(axis=2) / number


def check_output(folder: Path, classes: int) -> None:
    """Refuse to write maps over anything, or of more classes than half precision counts.

    Raises:
        UserError: There are more, something is there, or the folder that is to hold it is not.
    """
    if classes > MOST_CLASSES:
        raise UserError(
            f"label maps hold class numbers in half precision, which counts to {MOST_CLASSES}, and the data has"
            f" {classes} classes; train without token_labels.maps"
        )
    if folder.exists() or folder.is_symlink():
        raise UserError(f"--output {folder} is there already; name a new folder, or remove it")
    if not folder.parent.is_dir():
        raise UserError(f"--output {folder}: the folder {folder.parent} does not exist; name one in a folder that does")


def write(folder: Path, facts: Facts, batches: Iterable[np.ndarray]) -> None:
    """Write the maps of all images, float [b, 2, 5, h, w] at a time: the folder is there when they are complete.

    Raises:
        RunError: A score does not fit half precision, or there are other than `facts.images` maps.
        OSError: They cannot be written.
    """
    shape = (facts.images, 2, BEST, *facts.grid)
    written = 0
    with written_whole(folder) as partial:
        partial.mkdir()
        with (partial / ARRAY).open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for maps in batches:
                with np.errstate(over="ignore"):
                    half = maps.astype("<f2")
                if half.shape[1:] != shape[1:] or not np.isfinite(half).all():
                    raise RunError(
                        f"the network's scores of training images {written} to {written + len(maps) - 1} are not finite"
                        " in half precision, which label maps are of; use another network"
                    )
                file.write(half.tobytes())
                written += len(maps)
            file.flush()
            os.fsync(file.fileno())
        if written != facts.images:
            raise RunError(f"there are {written} label maps for {facts.images} training images; nothing is kept")
        write_text(partial / FACTS, json.dumps(asdict(facts), indent=1, ensure_ascii=False) + "\n")
