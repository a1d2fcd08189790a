"""Files that are never half-written, and folders."""

import os
from pathlib import Path

from src.errors import UserError


def write_atomically(path: Path, text: str) -> None:
    """Write a text file beside its place and move it there, so that it is never half-written."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def make_folder(path: Path, option: str) -> None:
    """Make a folder that `option` has named, and those above it.

    Raises:
        UserError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {path} cannot be made: {error.strerror}; name another folder") from error
