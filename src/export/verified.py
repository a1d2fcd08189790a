"""Export, verified: a file is opened again, and kept only if it says what the network says."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from src.data.batches import Run, in_batches
from src.export.expected import Expected
from src.export.form import Form
from src.files import set_mode, written_whole


class Writer(Protocol):
    """A network that can be written in one format.

    Attributes:
        what: It, for the line that is printed.
        rewritten: Whether the format's graph is not the network's own, so that the tokens that it keeps are compared
            even where a file does not tell them.
    """

    what: str
    rewritten: bool

    def write(self, path: Path, form: Form) -> None:
        """Write it; a file that is there is replaced."""

    def open(self, path: Path) -> Run:
        """Return what a file computes of a batch of its size."""

    def add_facts(self, path: Path, verified: str, form: Form) -> None:
        """Write into a file what it says of itself."""


def export_files(writer: Writer, outputs: Mapping[int, Path], form: Form, expected: Expected, tolerance: float) -> None:
    """Write a file for each batch size, and print a line about each.

    Args:
        outputs: The file of each batch size; 0 for a graph that takes any.
        tolerance: As of `Expected.compare`.

    Raises:
        RunError: A file computes something else; it is not kept.
    """
    for batch_size, output in outputs.items():
        own, told = replace(form, batch_size=batch_size), ""
        with written_whole(output) as partial:
            if writer.rewritten and expected.kept and not form.kept and not form.float16:
                told = _write(writer, partial, replace(own, kept=True), expected, output, tolerance)
            verified = _write(writer, partial, own, expected, output, tolerance)
            writer.add_facts(partial, told or verified, own)
            set_mode(partial, 0o644)
        megabytes = output.stat().st_size / 2**20
        batch = f"batch {batch_size}" if batch_size else "any batch"
        print(f"{output}: {megabytes:.1f} MB, {batch}, {writer.what}, {told or verified}")


def _write(writer: Writer, file: Path, form: Form, expected: Expected, output: Path, tolerance: float) -> str:
    """Write a file, and return in words how well it agrees with the network."""
    writer.write(file, form)
    run, images = writer.open(file), expected.images
    parts = [images] if form.batch_size else [images[:1], images[1:]]
    found = [in_batches(run, part, form.batch_size) for part in parts if len(part)]
    outputs = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    if form.float16:
        return expected.compare_top1(outputs["logits"], output)
    return expected.compare(outputs, output, tolerance)
