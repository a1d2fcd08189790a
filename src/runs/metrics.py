"""metrics.csv, a row an epoch."""

import csv
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Optional, Union

from src.errors import UserError
from src.files import write_csv

FORMATS = {"loss": ".6f", "lr": ".6e", "top1": ".4f", "top5": ".4f", "img_s": ".2f", "seconds": ".2f"}

_SIZE = re.compile(r"(\d{1,5}(x\d{1,5})?)?")
LARGEST = 3.5e38  # of a float32; differences of larger float64 may overflow


@dataclass(frozen=True)
class Metrics:
    """The results of an epoch; None, in the file an empty cell, for what is unknown or not finite.

    Attributes:
        tokens: The schedule.
        loss: Mean over the steps whose loss was finite.
        lr: Learning rate of the last step.
        top1, top5: Percent, where the epoch was evaluated.
        img_s: Training images per second, without compiling; unknown if all steps were done before a resume.
        seconds: Training time, with compiling.
        image_size: Pixels of the training images, 224 or 192x256; empty in files from before there were several.
    """

    epoch: int
    phase: int
    tokens: str
    loss: Optional[float] = None
    lr: Optional[float] = None
    top1: Optional[float] = None
    top5: Optional[float] = None
    img_s: Optional[float] = None
    seconds: Optional[float] = None
    image_size: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as it is written."""
        return tuple(_cell(getattr(self, column), FORMATS.get(column, "")) for column in COLUMNS)


COLUMNS = tuple(field.name for field in fields(Metrics))


def read_metrics(path: Path) -> list[Metrics]:
    """Read the epochs of a metrics.csv; none if there is no such file.

    Raises:
        UserError: A row is not of the form that `write_metrics` writes.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            lines = list(csv.DictReader(file))
    except csv.Error as error:
        raise UserError(f"{path} is not a file of metrics ({error}); mend it") from error
    return [_parse(cells, f"{path}, line {line}") for line, cells in enumerate(lines, 2)]


def write_metrics(path: Path, rows: Sequence[Metrics]) -> None:
    """Write epochs; the file before is replaced as a whole."""
    write_csv(path, COLUMNS, (row.cells for row in rows))


def throughput(rows: Sequence[Metrics]) -> Optional[float]:
    """Return training images per second, the median over the epochs of the last phase; None if unknown."""
    speeds = [row.img_s for row in rows if row.phase == rows[-1].phase and row.img_s is not None]
    return statistics.median(speeds) if speeds else None


def _cell(value: Union[str, float, None], form: str) -> str:
    unknown = value is None or (isinstance(value, float) and not math.isfinite(value))
    return "" if unknown else format(value, form)


def _parse(cells: dict[str, str], where: str) -> Metrics:
    try:
        numbers = {column: _number(cells[column]) for column in FORMATS}
        size = cells.get("image_size") or ""
        if not _SIZE.fullmatch(size):
            raise ValueError(size)
        return Metrics(int(cells["epoch"]), int(cells["phase"]), cells["tokens"], **numbers, image_size=size)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: is not a row of metrics ({', '.join(COLUMNS)}); mend or remove it") from error


def _number(text: str) -> Optional[float]:
    value = math.nan if text == "" else float(text)
    return value if abs(value) <= LARGEST else None
