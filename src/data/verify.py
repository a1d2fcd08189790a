"""Decode every image once before training, and find those that cannot be decoded."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Optional

from PIL import Image

from src.data.datasets import Dataset, files_of
from src.errors import UserError, short_message
from src.files import write_text
from src.progress import Progress

FORMATS = {"JPEG", "PNG", "BMP"}  # whatever the name ends in: MindSpore decodes by content
LARGEST = 2**27  # pixels: 134 million, or 400 MB as RGB

log = logging.getLogger("skipvit")


def verify_images(dataset: Dataset, on_bad_image: str, cache: Path) -> tuple[Dataset, list[str]]:
    """Decode every image of a data set's folders once.

    Args:
        on_bad_image: `error`, or `skip` to leave out those that cannot be decoded.
        cache: A folder that remembers the result as long as no file changes in size or time.

    Returns:
        The data set without the bad images, and a line for each of them.

    Raises:
        UserError: There are bad ones and they are not to be skipped, or nothing is left.
    """
    splits, lines = dict(dataset.splits), []
    for name, split in dataset.splits.items():
        files = files_of(split, dataset.classes)
        if not files:
            continue  # not a folder of images
        problems = _verify_files(files, name, cache)
        lines += [f"{files[index]}: {problem}" for index, problem in problems.items()]
        kept = tuple(index for index in range(len(files)) if index not in problems)
        if not kept:
            raise UserError(f"none of the {len(files)} images of {split.folder / split.subset} can be decoded")
        if problems:
            indices = kept if split.indices is None else tuple(split.indices[index] for index in kept)
            splits[name] = replace(split, indices=indices, num_images=len(indices))
    if lines and on_bad_image == "error":
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise UserError(
            f"{_count(lines)} cannot be used: {'; '.join(lines[:3])}{more}; mend or remove them, or set"
            " data.on_bad_image=skip"
        )
    if lines:
        log.warning("left out: %s that cannot be used", _count(lines))
    return replace(dataset, splits=splits), lines


def drop_bad_images(dataset: Dataset, on_bad_image: str, cache: Path) -> Dataset:
    """Return the images that a training takes: without the bad ones where `on_bad_image` is skip, else all, unread."""
    return verify_images(dataset, on_bad_image, cache)[0] if on_bad_image == "skip" else dataset


def _count(lines: Sequence[str]) -> str:
    return f"{len(lines)} image{'' if len(lines) == 1 else 's'}"


def _verify_files(files: Sequence[Path], name: str, cache: Path) -> dict[int, str]:
    """Return why files cannot be used, by the index of each such file."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path}\0{_state(path)}\0".encode(errors="surrogateescape"))
    known = cache / "scans" / f"{digest.hexdigest()}.json"
    try:
        return {int(index): problem for index, problem in json.loads(known.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        pass  # not there yet, or damaged: look again
    problems = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads, Progress(len(files), f"checking {name} images", "img") as bar:
        for index, problem in enumerate(threads.map(decode_error, files, chunksize=16)):
            if problem:
                problems[index] = problem
            bar.advance(1)
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        write_text(known, json.dumps(problems))
    except OSError as error:
        log.warning("what was found is not remembered: %s", error)
    return problems


def _state(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:  # a link to nowhere
        return str(error.errno)
    return f"{state.st_size}\0{state.st_mtime_ns}"


def decode_error(path: Path) -> Optional[str]:
    """Return why an image file cannot be used; None if it can."""
    try:
        if not path.stat().st_size:
            return "empty file"
        with Image.open(path) as image:
            if image.format not in FORMATS:
                return f"{image.format} is not among {', '.join(sorted(FORMATS))}"
            if image.width * image.height > LARGEST:
                return f"{image.width}x{image.height} pixels are too many"
            image.load()
    except Image.UnidentifiedImageError:
        return "not an image"
    except OSError as error:
        return error.strerror or short_message(error)
    except Exception as error:
        return short_message(error)
    return None
