"""Rows of an experiment, what their trainings came to, and statistics of it."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Optional

import yaml
from scipy import stats

from src.config import read_yaml
from src.errors import UserError
from src.files import write_atomically
from src.models.schedule import parse
from src.training.metrics import speed
from src.training.run_folder import RunFolder

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """A schedule to train, with the configuration keys that differ from the experiment's."""

    tokens: str
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.tokens, *self.overrides])


DENSE = Row("none")


@dataclass(frozen=True)
class Result:
    """A finished training.

    Attributes:
        tokens, overrides: Of its row; the overrides separated by spaces.
        top1: Percent, after the last epoch.
        best_top1: Percent, the best of the last phase's epochs, chosen on the images that it is measured on.
        img_s: Images per second in training, the median of the last phase's epochs (NaN if it was resumed at its end),
            or as measured for its schedule.
        seconds: Of training in all epochs, compiling included.
        ideal_gain: Of the schedule, a fraction.
    """

    tokens: str
    overrides: str
    seed: int
    epochs: int
    top1: float
    best_top1: float
    img_s: float
    seconds: float
    ideal_gain: float

    @property
    def row(self) -> Row:
        return Row(self.tokens, tuple(self.overrides.split()))


@dataclass(frozen=True)
class Summary:
    """A row over its seeds.

    Attributes:
        seeds: How many.
        img_s: The median; None if it is known of no seed.
        gain: Over the dense model's img/s of the same seed, a fraction: the median, for a machine may be disturbed.
        top1, sd: Mean and standard deviation over seeds; the latter is None for one seed.
        ideal_gain: A fraction.
        difference, margin: Mean difference of top-1 to the dense model of the same seed, and half the width of its
            95% confidence interval (Student's t over the pairs, None for fewer than two); percentage points.
    """

    row: Row
    seeds: int
    img_s: Optional[float]
    gain: Optional[float]
    ideal_gain: float
    top1: float
    sd: Optional[float]
    difference: Optional[float]
    margin: Optional[float]


def read_rows(path: Path) -> dict[str, list[Row]]:
    """The groups of a file of rows.

    Raises:
        UserError: The file cannot be read, or is no mapping of groups to rows.
    """
    try:
        tree = read_yaml(path.read_text(encoding="utf-8"), f"rows {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"rows {path} cannot be read: {error}") from error
    if not isinstance(tree, dict) or not tree or not all(isinstance(rows, list) and rows for rows in tree.values()):
        raise UserError(f"rows {path}: must be a mapping of groups to lists of rows, like configs/table1.yaml")
    return {str(group): [_row(entry, path) for entry in rows] for group, rows in tree.items()}


def _row(entry: object, path: Path) -> Row:
    if isinstance(entry, str):
        entry = {"tokens": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("tokens"), str):
        raise UserError(f"rows {path}: a row is a schedule, or a mapping with tokens, not {entry!r}")
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}"
                 for key, value in sorted(entry.items()) if key != "tokens"]  # fmt: skip
    return Row(str(parse(entry["tokens"])), tuple(overrides))


def result_of(run: RunFolder, row: Row, seed: int, ideal_gain: float) -> Result:
    """What a finished run came to.

    Raises:
        UserError: Its metrics are not those of a whole training.
    """
    rows = run.read_metrics()
    if rows[-1].top1 is None:
        raise UserError(f"{run.metrics}: the last epoch has no top-1; mend it, or remove the run to train it again")
    img_s = speed(rows)
    return Result(
        row.tokens,
        " ".join(row.overrides),
        seed,
        epochs=rows[-1].epoch,
        top1=rows[-1].top1,
        best_top1=max(entry.top1 for entry in rows if entry.phase == rows[-1].phase and entry.top1 is not None),
        img_s=math.nan if img_s is None else round(img_s, 2),
        seconds=round(sum(entry.seconds or 0 for entry in rows), 1),
        ideal_gain=round(ideal_gain, 6),
    )


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Write results as CSV, one line a training."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Result)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(result) for result in results)
    write_atomically(path, text.getvalue())


def read_results(path: Path) -> list[Result]:
    """Results that `write_results` wrote.

    Raises:
        UserError: The file cannot be read, or is of another form.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                Result(**{field.name: field.type(line[field.name]) for field in fields(Result)})
                for line in csv.DictReader(file)
            ]
    except OSError as error:
        raise UserError(f"results {path} cannot be read: {error.strerror}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"results {path} are not a results.csv of src.tools.table1: {error}") from error


def summarise(results: Sequence[Result]) -> dict[Row, Summary]:
    """Every row over its seeds, in the order in which rows first appear."""
    by_row: dict[Row, dict[int, Result]] = {}
    for result in results:
        by_row.setdefault(result.row, {})[result.seed] = result
    dense = by_row.get(DENSE, {})
    return {row: _summary(row, seeds, dense) for row, seeds in by_row.items()}


def _summary(row: Row, seeds: Mapping[int, Result], dense: Mapping[int, Result]) -> Summary:
    runs = list(seeds.values())
    pairs = [(seeds[seed], dense[seed]) for seed in seeds if seed in dense]
    gains = [own.img_s / base.img_s - 1 for own, base in pairs]
    differences = [own.top1 - base.top1 for own, base in pairs]
    compared = bool(pairs) and row != DENSE
    return Summary(
        row,
        seeds=len(runs),
        img_s=_median(run.img_s for run in runs),
        gain=_median(gains) if compared else None,
        ideal_gain=runs[0].ideal_gain,
        top1=statistics.mean(run.top1 for run in runs),
        sd=statistics.stdev(run.top1 for run in runs) if len(runs) > 1 else None,
        difference=statistics.mean(differences) if compared else None,
        margin=margin(differences) if compared else None,
    )


def _median(values: Iterable[float]) -> Optional[float]:
    """Of what is known."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else None


def margin(values: Sequence[float]) -> Optional[float]:
    """Half the width of the 95% confidence interval of a mean, by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile) * statistics.stdev(values) / math.sqrt(len(values))
