"""A look at every image before training: which ones cannot be decoded, and why."""

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

from src.errors import UserError, first_line
from src.files import write_atomically
from src.progress import Progress
from src.sources import Source, files_of

FORMATS = {"JPEG", "PNG", "BMP"}  # whatever the name ends in: MindSpore decodes by content
LARGEST = 2**27  # pixels: 134 million, or 400 MB as RGB

log = logging.getLogger("skipvit")


def check_images(source: Source, on_bad_image: str, cache: Path) -> tuple[Source, list[str]]:
    """Decode every image of a data set's folders once.

    Args:
        on_bad_image: `error`, or `skip`: leave those that cannot be decoded out.
        cache: A folder that remembers what was found, as long as no file changes in size or time.

    Returns:
        The source without the bad images, and a line for each of them.

    Raises:
        UserError: There are bad ones, and they are not to be skipped; or nothing is left.
    """
    splits, lines = dict(source.splits), []
    for name, split in source.splits.items():
        files = files_of(split, source.classes)
        if not files:
            continue  # not a folder of images
        problems = _scan(files, name, cache)
        lines += [f"{files[number]}: {problem}" for number, problem in problems.items()]
        kept = tuple(number for number in range(len(files)) if number not in problems)
        if not kept:
            raise UserError(f"none of the {len(files)} images of {split.folder / split.usage} can be decoded")
        if problems:
            places = kept if split.places is None else tuple(split.places[number] for number in kept)
            splits[name] = replace(split, places=places, images=len(places))
    if lines and on_bad_image == "error":
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise UserError(
            f"{_count(lines)} cannot be used: {'; '.join(lines[:3])}{more}; mend or remove them, or set"
            " data.on_bad_image=skip"
        )
    if lines:
        log.warning("left out: %s that cannot be used", _count(lines))
    return replace(source, splits=splits), lines


def usable(source: Source, on_bad_image: str, cache: Path) -> Source:
    """The images that a training takes: without the bad ones where those are skipped, else all, not looked at."""
    return check_images(source, on_bad_image, cache)[0] if on_bad_image == "skip" else source


def _count(lines: Sequence[str]) -> str:
    return f"{len(lines)} image{'' if len(lines) == 1 else 's'}"


def _scan(files: Sequence[Path], name: str, cache: Path) -> dict[int, str]:
    """What is wrong with each file that something is wrong with, by its number."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path}\0{_state(path)}\0".encode(errors="surrogateescape"))
    known = cache / "scans" / f"{digest.hexdigest()}.json"
    try:
        return {int(number): problem for number, problem in json.loads(known.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        pass  # not there yet, or damaged: look again
    problems = {}
    with ThreadPoolExecutor(os.cpu_count()) as threads, Progress(len(files), f"checking {name} images", "img") as bar:
        for number, problem in enumerate(threads.map(problem_of, files, chunksize=16)):
            if problem:
                problems[number] = problem
            bar.advance(1)
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(known, json.dumps(problems))
    except OSError as error:
        log.warning("what was found is not remembered: %s", error)
    return problems


def _state(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:  # a link to nowhere
        return str(error.errno)
    return f"{state.st_size}\0{state.st_mtime_ns}"


def problem_of(path: Path) -> Optional[str]:
    """Why an image file cannot be used; None if it can."""
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
        return error.strerror or first_line(error)
    except Exception as error:
        return first_line(error)
    return None
