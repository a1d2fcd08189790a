"""Decode every image once before training, and find those that cannot be decoded."""

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Optional, Union

import numpy as np
from PIL import Image

from src.data.datasets import Dataset, Split, paths_of
from src.errors import UserError, short_message
from src.progress import Progress
from src.runtime.distributed import SINGLE_PROCESS, ProcessGroup

FORMATS = {"JPEG", "MPO", "PNG", "BMP"}  # whatever the name ends in: MindSpore decodes by content; MPO: a phone's JPEG
LARGEST = 2**27  # pixels: 134 million, or 400 MB as RGB
SECONDS_BETWEEN_MEETINGS = 2  # of the processes that share a look: none waits long for another

LeftOut = dict[str, list[int]]  # indices by split

log = logging.getLogger("skipvit")


def verify_images(
    dataset: Dataset,
    on_bad_image: str,
    cache: Path,
    group: ProcessGroup = SINGLE_PROCESS,
    left_out: Optional[LeftOut] = None,
) -> tuple[Dataset, list[str], LeftOut]:
    """Decode every image of a data set's folders once.

    Args:
        on_bad_image: `error`, `skip` to leave out those that cannot be decoded, or `unchecked` to decode none.
        cache: A folder that remembers which files can be decoded as long as they do not change in size or time.
        group: The processes that share the work; all of them get the result.
        left_out: On resume, the images that the run left out when it began. In the place of those that went bad since,
            others of their classes are trained, so that the rest keeps its numbers.

    Returns:
        The data set without the bad images, a line for each of them, and the images that the run leaves out.

    Raises:
        UserError: There are bad ones and they are not to be skipped, or nothing is left.
    """
    splits, lines, out = dict(dataset.splits), [], dict(left_out or {})
    for name, split in dataset.splits.items():
        files = paths_of(split, dataset.classes)
        problems = {} if on_bad_image == "unchecked" else _find_bad(files, name, _Seen(cache, split), group)
        lines += [f"{files[index]}: {problem}" for index, problem in problems.items()]
        new = set(problems) - set(out.get(name, ()))
        if new and on_bad_image == "error":
            continue
        if left_out is None:
            out[name], new = sorted(problems), set()
        indices = _without(files, out.get(name, ()), new, name == "train")
        if files and not indices:
            raise UserError(f"none of the {len(files)} images of {split.folder / split.subset} can be decoded")
        if indices != list(range(len(files))):
            kept = indices if split.indices is None else [split.indices[index] for index in indices]
            splits[name] = replace(split, indices=tuple(kept), num_images=len(kept))
    if lines and on_bad_image == "error":
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise UserError(
            f"{_count(lines)} cannot be used: {'; '.join(lines[:3])}{more}; mend or remove them, or set"
            " data.on_bad_image=skip"
        )
    if lines:
        log.warning("left out: %s that cannot be used", _count(lines))
    return replace(dataset, splits=splits), lines, out


def drop_bad_images(dataset: Dataset, on_bad_image: str, cache: Path) -> Dataset:
    """Return the images that a training takes: without the bad ones where `on_bad_image` is skip, else all, unread."""
    return verify_images(dataset, on_bad_image, cache)[0] if on_bad_image == "skip" else dataset


def decode_error(path: Union[str, Path]) -> Optional[str]:
    """Return why an image file cannot be used; None if it can.

    Pillow looks first, for MindSpore's decoder crashes at some JPEGs; then the decoder that trains.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        return error.strerror or short_message(error)
    return unusable(content) or _undecodable(content)


def unusable(content: bytes) -> Optional[str]:
    """Return why Pillow would not decode an image, or it is none of those that are used; None if it would."""
    if not content:
        return "empty file"
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format not in FORMATS:
                return f"{image.format} is not among {', '.join(sorted(FORMATS))}"
            if image.width * image.height > LARGEST:
                return f"{image.width}x{image.height} pixels are too many"
            image.load()
    except Image.UnidentifiedImageError:
        return "not an image"
    except Exception as error:
        return short_message(error)
    return None


def _undecodable(content: bytes) -> Optional[str]:
    """Return why MindSpore cannot decode an image; None if it can."""
    from mindspore.dataset import vision

    from src.data.augment import reason

    try:
        vision.Decode()(np.frombuffer(content, np.uint8))
    except (RuntimeError, TypeError, ValueError) as error:
        return reason(error)
    return None


def _without(files: Sequence[str], left_out: Sequence[int], bad: set[int], stands_in: bool) -> list[int]:
    """Return the indices that are left; those of `bad` are replaced by others of their folders, if `stands_in`.

    Raises:
        UserError: A folder has no other.
    """
    dropped = set(left_out) if stands_in else {*left_out, *bad}
    indices = [index for index in range(len(files)) if index not in dropped]
    if not stands_in or not bad:
        return indices
    good: dict[str, list[int]] = {}
    for index in indices:
        if index not in bad:
            good.setdefault(str(Path(files[index]).parent), []).append(index)
    for place, index in enumerate(indices):
        if index in bad:
            others = good.get(str(Path(files[index]).parent))
            if not others:
                raise UserError(f"no image beside {files[index]} can stand in for it; put it back, or start a new run")
            indices[place] = others[int(np.searchsorted(others, index)) % len(others)]
    return indices


def _count(lines: Sequence[str]) -> str:
    return f"{len(lines)} image{'' if len(lines) == 1 else 's'}"


def _find_bad(files: Sequence[str], name: str, seen: "_Seen", group: ProcessGroup) -> dict[int, str]:
    """Return why files cannot be used, by the index of each such file; processes take every so many of them.

    They meet every few seconds, for those that have finished must not wait longer than a collective allows.
    """
    problems: dict[int, str] = {}
    threads = os.cpu_count() or 1
    rest = iter(range(group.rank, len(files), group.size))
    with ThreadPoolExecutor(threads) as pool, Progress(len(files), f"checking {name} images", "img") as bar:
        more = bool(files)
        while group.sum([float(more)])[0]:
            until = time.monotonic() + SECONDS_BETWEEN_MEETINGS
            while more and time.monotonic() < until:
                piece = list(islice(rest, 4 * threads))
                problems.update(_look(piece, files, seen, pool))
                bar.advance(len(piece) * group.size)
                more = bool(piece)
    found = [json.loads(text) for text in group.gather(json.dumps(problems))]
    return {int(index): problem for part in found for index, problem in sorted(part.items(), key=lambda x: int(x[0]))}


def _look(piece: Sequence[int], files: Sequence[str], seen: "_Seen", pool: ThreadPoolExecutor) -> Iterator:
    """Yield the indices of a piece whose files cannot be used, and why; remember those that can."""
    states = _states([files[index] for index in piece])
    new = ~seen.contains(states)
    unseen = [index for index, is_new in zip(piece, new) if is_new]
    problems = list(pool.map(decode_error, [files[index] for index in unseen]))
    seen.add(states[new][[problem is None for problem in problems]])
    return ((index, problem) for index, problem in zip(unseen, problems) if problem)


def _states(paths: Sequence[str]) -> np.ndarray:
    """Return a number for the name, size and time of each file, and for the decoder: uint64 [files]."""
    import mindspore as ms

    states = []
    for path in paths:
        try:
            state = Path(path).stat()
            known = f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\0{ms.__version__}"
        except OSError as error:  # a link to nowhere
            known = f"{path}\0{error.errno}"
        states.append(hashlib.blake2b(known.encode(errors="surrogateescape"), digest_size=8).digest())
    return np.frombuffer(b"".join(states), np.uint64)


class _Seen:
    """The states of files that can be decoded, 8 bytes each.

    They are kept in a folder for each data folder, where each process adds to a file of its own as it goes: a look that
    is killed is continued.
    """

    def __init__(self, cache: Path, split: Split) -> None:
        digest = hashlib.sha256(str(split.folder / split.subset).encode(errors="surrogateescape"))
        self.folder = cache / "decoded" / digest.hexdigest()[:16]
        self.mine = self.folder / f"{os.getpid()}-{time.time_ns()}"
        self.states = np.zeros(0, np.uint64)
        self.writes = True
        try:
            parts = [np.fromfile(entry.path, np.uint64) for entry in os.scandir(self.folder)]
            self.states = np.unique(np.concatenate([self.states, *parts]))
        except FileNotFoundError:
            pass  # the first look
        except OSError as error:
            log.warning("the images are decoded again: %s cannot be read: %s", self.folder, error.strerror)

    def contains(self, states: np.ndarray) -> np.ndarray:
        """Tell which states were there at the beginning: bool [states]."""
        if not len(self.states):
            return np.zeros(len(states), bool)
        places = np.minimum(np.searchsorted(self.states, states), len(self.states) - 1)
        return self.states[places] == states

    def add(self, states: np.ndarray) -> None:
        if not len(states) or not self.writes:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.mine.open("ab") as file:
                file.write(states.tobytes())
        except OSError as error:
            self.writes = False
            log.warning("the next start decodes the images again: %s cannot be written: %s", self.mine, error.strerror)
