"""metrics.csv: a row an epoch."""

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Optional

from src.errors import UserError
from src.files import write_atomically

FORMATS = {"loss": ".6f", "lr": ".6e", "top1": ".4f", "top5": ".4f", "img_s": ".2f", "seconds": ".2f"}


@dataclass(frozen=True)
class Metrics:
    """What an epoch came to; None, in the file an empty cell, is what is not known or not finite.

    Attributes:
        tokens: The schedule.
        loss: The mean over the steps whose loss was finite.
        lr: Of the last step.
        top1, top5: Percent, where the epoch was evaluated.
        img_s: Images per second in training, without compiling; not known if all steps were done before a resume.
        seconds: Of training, with compiling.
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

    @property
    def cells(self) -> tuple[str, ...]:
        """As they are written."""
        return tuple(_cell(getattr(self, column), FORMATS.get(column, "")) for column in COLUMNS)


COLUMNS = tuple(field.name for field in fields(Metrics))


def read_metrics(path: Path) -> list[Metrics]:
    """The epochs of a metrics.csv; none if there is no such file.

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
    """Write epochs; what was there is replaced as a whole."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *(row.cells for row in rows)])
    write_atomically(path, text.getvalue())


def speed(rows: Sequence[Metrics]) -> Optional[float]:
    """Images per second in training: the median over the epochs of the last phase."""
    speeds = [row.img_s for row in rows if row.phase == rows[-1].phase and row.img_s is not None]
    return statistics.median(speeds) if speeds else None


def _cell(value: object, form: str) -> str:
    return "" if value is None or (form and not math.isfinite(value)) else format(value, form)


def _parse(cells: dict[str, str], place: str) -> Metrics:
    try:
        numbers = {column: _number(cells[column]) for column in FORMATS}
        return Metrics(int(cells["epoch"]), int(cells["phase"]), cells["tokens"], **numbers)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: is not a row of metrics ({', '.join(COLUMNS)}); mend or remove it") from error


def _number(text: str) -> Optional[float]:
    value = math.nan if text == "" else float(text)
    return value if math.isfinite(value) else None
