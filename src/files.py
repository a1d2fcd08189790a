"""Write files and folders whole or not at all."""

import csv
import errno
import fcntl
import glob
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Optional

from src.errors import UserError

PARTIAL = "*.partial*"  # what a process that was killed may leave behind
UNKNOWN = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY}  # to a file system that lacks an operation


@contextmanager
def written_whole(path: Path, previous: Optional[Path] = None) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and move the result to `path` when the block ends well.

    Whatever stood at `path` stays whole until then. Nothing temporary is left, however the block ends.

    Args:
        path: The file or folder to write.
        previous: Where to move the file that stood at `path` before.

    Raises:
        OSError: The result cannot be written to the disk or moved.
    """
    beginning = f"{path.stem}.{os.getpid()}.partial"
    partial = path.with_name(f"{beginning}{path.suffix}")
    try:
        yield partial
        if partial.is_file():
            _sync(partial)
        if previous is not None and path.exists():
            path.replace(previous)
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        if error.filename is None:  # of a write; so that a message can name the place
            error.filename = str(path)
        raise
    finally:
        for rest in path.parent.glob(f"{glob.escape(beginning)}*"):  # MindSpore has temporary files of its own
            if rest.is_dir():
                shutil.rmtree(rest)
            else:
                rest.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def check_output(path: Path) -> None:
    """Refuse a file that cannot be written where it is to be, before there is anything to lose.

    Raises:
        UserError: It is a folder, or its folder does not exist.
    """
    if path.is_dir() or not path.parent.is_dir():
        what = "it is a folder" if path.is_dir() else f"the folder {path.parent} does not exist"
        raise UserError(f"{path} cannot be written: {what}; name another file")


def make_folder(path: Path, option: str) -> None:
    """Make a folder that `option` names, and its parents.

    Raises:
        UserError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {path} cannot be made: {error.strerror}; name another folder") from error


def link(source: Path, target: Path) -> None:
    """Give a whole file a second name, or, on a file system without links, a copy.

    Raises:
        OSError: Neither can be made.
    """
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {*UNKNOWN, errno.EPERM, errno.EMLINK, errno.EXDEV}:
            raise
        with written_whole(target) as partial:
            shutil.copyfile(source, partial)


def set_mode(path: Path, mode: int) -> None:
    """Set a file's rights; a file system that knows none, such as FAT, keeps its own."""
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in {*UNKNOWN, errno.EPERM}:
            raise


def lock(file: IO[str], wait: bool = False) -> Optional[bool]:
    """Lock an open file for this process; the system unlocks it when the file is closed.

    Args:
        wait: Until no other process holds the lock.

    Returns:
        Whether it is locked now: not, if another process holds the lock; None on a file system without locks.
    """
    for take in (fcntl.flock, fcntl.lockf):  # NFS and some others know only the second
        try:
            take(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return True
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            if error.errno not in {*UNKNOWN, errno.ENOLCK, errno.EBADF}:
                error.filename = file.name  # so that a message can name the place
                raise
    return None


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk; some file systems cannot flush names."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written but not listed, or a file that may not be read
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
    finally:
        os.close(handle)
