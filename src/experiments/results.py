"""The results of trainings, and what they come to over seeds. Never imports MindSpore."""

import csv
import math
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Optional

from pydantic import TypeAdapter

from src.config import Config
from src.errors import UserError, short_message
from src.experiments.paired import margin
from src.experiments.variants import DENSE, Variant
from src.files import write_csv
from src.runs import RunFolder, throughput
from src.schedules import Geometry, parse, resolve


@dataclass(frozen=True)
class TrainingResult:
    """A finished training.

    Attributes:
        tokens, overrides: The variant; the overrides are quoted as for a shell and separated by spaces.
        top1: Percent, after the last epoch.
        best_top1: Percent, the best of the last phase's epochs, chosen on the images that it is measured on.
        img_s: Images per second in training, the median of the last phase's epochs (NaN if it was resumed at its end),
            or as measured for its schedule; NaN for a variant with phases of its own.
        seconds: Of training in all epochs, compiling included.
        ideal_gain: Of the schedule in training, a fraction; NaN for a variant with phases of its own.
        name: The variant's, if it has one.
        cost, time: As `src.experiments.costs.Costs` has them, like all that follow; None where there is no dense
            training of the seed, and in results that are older.
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
    name: str = ""
    cost: Optional[float] = None
    time: Optional[float] = None
    reached_epoch: Optional[float] = None
    reached_cost: Optional[float] = None
    reached_time: Optional[float] = None
    reached_seconds: Optional[float] = None

    @property
    def variant(self) -> Variant:
        return Variant(self.tokens, tuple(shlex.split(self.overrides)), self.name)


@dataclass(frozen=True)
class Reached:
    """When a variant had reached the dense model's accuracy: medians over seeds; infinity for those that never had.

    Attributes:
        seeds, of: How many reached it, of how many that can be compared.
        cost, time: Relative to the whole dense training; time is None if it is unknown.
    """

    seeds: int
    of: int
    cost: float
    time: Optional[float]


@dataclass(frozen=True)
class Summary:
    """A variant over its seeds.

    Attributes:
        seeds: How many.
        img_s: The median; None if it is known of no seed.
        gain: Over the dense model's img/s of the same seed, a fraction: the median, for a machine may be disturbed.
        top1, sd: Mean and standard deviation over seeds; the latter is None for one seed.
        ideal_gain: A fraction; NaN for a variant with phases of its own.
        differences: Of top-1 to the dense model of the same seed, percentage points; none for the dense model.
        difference, margin: Their mean, and half the width of its 95% confidence interval (Student's t over the pairs,
            None for fewer than two).
        cost, time: Of the whole training relative to the dense one: medians; None if unknown.
    """

    variant: Variant
    seeds: int
    img_s: Optional[float]
    gain: Optional[float]
    ideal_gain: float
    top1: float
    sd: Optional[float]
    differences: tuple[float, ...]
    difference: Optional[float]
    margin: Optional[float]
    cost: Optional[float]
    time: Optional[float]
    reached: Optional[Reached]


def result_of(run: RunFolder, variant: Variant, seed: int, config: Config) -> TrainingResult:
    """Return the result of a finished run.

    Raises:
        UserError: Its metrics are not those of a whole training.
    """
    rows = run.read_metrics()
    if rows[-1].top1 is None:
        raise UserError(f"{run.metrics}: the last epoch has no top-1; mend it, or remove the run to train it again")
    img_s = None if variant.has_phases else throughput(rows)
    plan = resolve(parse(rows[-1].tokens), Geometry.from_config(config.model))
    return TrainingResult(
        variant.tokens,
        shlex.join(variant.overrides),
        seed,
        epochs=rows[-1].epoch,
        top1=rows[-1].top1,
        best_top1=max(entry.top1 for entry in rows if entry.phase == rows[-1].phase and entry.top1 is not None),
        img_s=math.nan if img_s is None else round(img_s, 2),
        seconds=round(sum(entry.seconds or 0 for entry in rows), 1),
        ideal_gain=math.nan if variant.has_phases else round(plan.training_gain, 6),
        name=variant.name,
    )


def write_results(path: Path, results: Iterable[TrainingResult]) -> None:
    """Write results as CSV, a line a training."""
    names = [field.name for field in fields(TrainingResult)]
    write_csv(path, names, (asdict(result).values() for result in results))


def read_results(path: Path) -> list[TrainingResult]:
    """Read the results that `write_results` wrote.

    Raises:
        UserError: The file cannot be read, or is of another form.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [_read_line(line) for line in csv.DictReader(file)]
        return TypeAdapter(list[TrainingResult]).validate_python(lines)
    except OSError as error:
        raise UserError(f"--results {path} cannot be read: {error.strerror}; name a results.csv") from error
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"results {path} are not a results.csv of src.tools.table1: {short_message(error)}") from error


def _read_line(line: Mapping[str, str]) -> dict[str, str]:
    """Return a line's cells; what a field has by default may be empty or lack its column, as in older files."""
    required = [column.name for column in fields(TrainingResult) if column.default is MISSING]
    optional = [column.name for column in fields(TrainingResult) if column.default is not MISSING]
    return {name: line[name] for name in required} | {name: line[name] for name in optional if line.get(name)}


def summarise(results: Sequence[TrainingResult]) -> dict[Variant, Summary]:
    """Summarise each variant over its seeds, in the order in which variants first appear."""
    by_variant: dict[Variant, dict[int, TrainingResult]] = {}
    for result in results:
        by_variant.setdefault(result.variant, {})[result.seed] = result
    dense = by_variant.get(DENSE, {})
    return {variant: _summary(variant, seeds, dense) for variant, seeds in by_variant.items()}


def _summary(variant: Variant, seeds: Mapping[int, TrainingResult], dense: Mapping[int, TrainingResult]) -> Summary:
    runs = list(seeds.values())
    pairs = [(seeds[seed], dense[seed]) for seed in seeds if seed in dense]
    gains = [own.img_s / base.img_s - 1 for own, base in pairs]
    differences = [own.top1 - base.top1 for own, base in pairs]
    compared = bool(pairs) and variant != DENSE
    return Summary(
        variant,
        seeds=len(runs),
        img_s=_median(run.img_s for run in runs),
        gain=_median(gains) if compared else None,
        ideal_gain=runs[0].ideal_gain,
        top1=statistics.mean(run.top1 for run in runs),
        sd=statistics.stdev(run.top1 for run in runs) if len(runs) > 1 else None,
        differences=tuple(differences) if compared else (),
        difference=statistics.mean(differences) if compared else None,
        margin=margin(differences) if compared else None,
        cost=_median(run.cost for run in runs),
        time=_median(run.time for run in runs),
        reached=_reached(runs),
    )


def _reached(runs: Iterable[TrainingResult]) -> Optional[Reached]:
    """Return when runs had reached the dense model's accuracy; None if none of them can be compared."""
    costs = [run.reached_cost for run in runs if run.reached_cost is not None]
    if not costs:
        return None
    times = [run.reached_time for run in runs if run.reached_time is not None]
    return Reached(
        seeds=sum(map(math.isfinite, costs)),
        of=len(costs),
        cost=statistics.median(costs),
        time=statistics.median(times) if len(times) == len(costs) else None,
    )


def _median(values: Iterable[Optional[float]]) -> Optional[float]:
    """Return the median of the values that are known."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.median(known) if known else None
