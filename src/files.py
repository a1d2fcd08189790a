"""Files that are never half-written."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a text file beside its place and move it there, so that it is never half-written."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
