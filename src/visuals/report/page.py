"""The tables of a report, and the page that holds them."""

import dataclasses
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.config import PhaseConfig, Role, flatten, format_override, keys_with, side_text, sides
from src.config.files import Overrides
from src.errors import UserError
from src.files import write_text
from src.runs import COLUMNS, Metrics
from src.schedules import Phase
from src.schedules.costs import run_costs
from src.visuals.report import curves, tokens
from src.visuals.report.runs import Run, read_runs

NONE = "–"
NAMES = {"mindspore": "MindSpore", "mindcv": "MindCV", "numpy": "NumPy"}  # others are words
OF_EVERY_START = ("date", "from_epoch")  # facts of an environment that change with every start


@dataclass(frozen=True)
class TableCell:
    """A value, and in small print what it is of, or how it differs from the first run's."""

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A name a line, and for each run a cell.

    Attributes:
        title: What it is called where it is not shown under a heading.
    """

    title: str
    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[TableCell]]]


def write_report(paths: Sequence[str], output: Path, overrides: Optional[Overrides] = None) -> None:
    """Write the report of runs as one file.

    Args:
        paths: Run folders; the first one is what the others are compared with.
        output: The file.
        overrides: Values by key for the pictures, where data has moved or the device is another.

    Raises:
        UserError: A folder holds no run, what it holds cannot be read, or the file cannot be written.
    """
    runs = read_runs(paths, overrides)
    if output.is_dir() or not output.parent.is_dir():
        what = f"{output.parent} is no folder; make it, or" if not output.is_dir() else "is a folder;"
        raise UserError(f"--output {output}: {what} name another file")
    text = page(runs)
    try:
        write_text(output, text)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}; name another file") from error


def page(runs: Sequence[Run]) -> str:
    """Return the report of runs as HTML; all text that is not the template's is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["breakable"] = _breakable
    environment.globals.update(dashes=curves.dashes, colours=curves.COLOURS, light=curves.LIGHT, dark=curves.DARK)
    return environment.get_template("page.html").render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared",
        date=time.strftime("%Y-%m-%d"),
        runs=runs,
        lead=_lead(runs),
        phases=[_phases(run) for run in runs],
        figures=_figures(runs[0]) if len(runs) == 1 else [],
        results=results(runs),
        curves=[curves.draw(metric, runs) for metric in curves.METRICS] if any(run.rows for run in runs) else [],
        pictures=[tokens.draw(run) for run in runs],
        differences=differences(runs),
        configurations=[(run.name, dataclasses.asdict(run.config)) for run in runs],
        environments=environments(runs),
        elsewhere=_elsewhere(runs),
        columns=COLUMNS,
        value=_value,
    )


def results(runs: Sequence[Run]) -> Table:
    """Return the results of each run, and how they differ from the first one's."""
    first = runs[0]
    lines = {
        "Schedule": [_schedule(run) for run in runs],
        "GMACs an image": [_macs(run, first) for run in runs],
        "Ideal gain over dense": [TableCell(f"{100 * run.plan.training_gain:+.1f}%") for run in runs],
        "Parameters": [TableCell(f"{run.geometry.parameters:,}") for run in runs],
        "Training throughput": [_throughput(run, first) for run in runs],
        "Epochs done": [_epochs(run) for run in runs],
        "Best top-1": [_percent(run.best, first.best, "top1", of_epoch=True) for run in runs],
        "Final top-1": [_percent(run.final, first.final, "top1") for run in runs],
        "Final top-5": [_percent(run.final, first.final, "top5") for run in runs],
        "Final training loss": [_loss(run, first) for run in runs],
    }
    return Table("Results", [run.name for run in runs], list(lines.items()))


def differences(runs: Sequence[Run]) -> Table:
    """Return the keys of the configuration that differ between runs and decide what is computed."""
    flat, records = [flatten(run.config) for run in runs], keys_with(Role.RECORD)
    lines = [
        (key, [TableCell(_value(each[key])) for each in flat])
        for key in flat[0]
        if key not in records and any(each[key] != flat[0][key] for each in flat)
    ]
    return Table("Differences", [run.name for run in runs], lines)


def _elsewhere(runs: Sequence[Run]) -> bool:
    """Tell whether runs are recorded to have been trained, at last, in different environments."""
    noted = [run.folder.read_environments()[-1:] for run in runs]
    compared = [_lasting(facts) for (facts,) in filter(None, noted)]
    return any(facts != compared[0] for facts in compared)


def _lasting(facts: dict[str, object]) -> dict[str, object]:
    """Return an environment's facts but for those that change with every start."""
    return {key: value for key, value in facts.items() if key not in OF_EVERY_START}


def environments(runs: Sequence[Run]) -> Table:
    """Return where the runs were trained: a column a run, and another for each resume elsewhere."""
    columns: dict[str, dict[str, object]] = {}
    for run in runs:
        before: dict[str, object] = {}
        for facts in run.folder.read_environments():
            compared = _lasting(facts)
            if compared != before:
                start = f", from epoch {facts.get('from_epoch')}" if before else ""
                columns[f"{run.name}{start}"] = facts
            before = compared
    names = dict.fromkeys(key for facts in columns.values() for key in facts if key != "from_epoch")
    lines = [
        (
            NAMES.get(name) or name.replace("_", " ").capitalize(),
            [TableCell(_value(facts.get(name))) for facts in columns.values()],
        )
        for name in names
    ]
    return Table("Environment", list(columns), lines)


def _schedule(run: Run) -> TableCell:
    tokens = run.config.model.tokens
    trained = any(row.tokens == tokens for row in run.rows)
    if trained or not run.rows:
        return TableCell(tokens)
    others = list(dict.fromkeys(row.tokens for row in run.rows))
    said = f"all epochs were {others[0]}" if len(others) == 1 else f"the last epochs were {others[-1]}"
    return TableCell(tokens, f"never trained: {said}")


def _macs(run: Run, first: Run) -> TableCell:
    macs, base = run.plan.macs, first.plan.macs
    detail = "" if run is first else f"ideal gain over the first {_signed(100 * (base / macs - 1), '+.1f')}%"
    return TableCell(f"{macs / 1e9:.3f}" if macs >= 1e8 else f"{macs / 1e9:.3g}", detail)


def _throughput(run: Run, first: Run) -> TableCell:
    if run.img_s is None:
        return TableCell(NONE)
    phase = run.phases[-1]
    detail = f"median of epochs {phase.first} to {phase.last}, {phase.tokens}"
    if run is not first and first.img_s:
        detail = f"{_signed(100 * (run.img_s / first.img_s - 1), '+.1f')}%; {detail}"
    return TableCell(f"{_speed(run.img_s)} img/s", detail)


def _epochs(run: Run) -> TableCell:
    planned = run.config.train.epochs
    return TableCell(f"{run.done} of {planned}", "not finished" if run.done < planned else "")


def _percent(row: Optional[Metrics], first: Optional[Metrics], metric: str, of_epoch: bool = False) -> TableCell:
    value = getattr(row, metric) if row else None
    if row is None or value is None:
        return TableCell(NONE, "not evaluated yet")
    base = getattr(first, metric) if first else None
    details = [] if row is first or base is None else [f"{_signed(value - base, '+.2f')} points"]
    return TableCell(f"{value:.2f}%", "; ".join(details + ([f"epoch {row.epoch}"] if of_epoch else [])))


def _loss(run: Run, first: Run) -> TableCell:
    loss, base = (each.rows[-1].loss if each.rows else None for each in (run, first))
    if loss is None:
        return TableCell(NONE)
    return TableCell(f"{loss:.4f}", _signed(loss - base, "+.4f") if run is not first and base is not None else "")


def _figures(run: Run) -> list[tuple[str, str]]:
    """Return the figures that a reader looks for first, and their names."""
    best, planned = run.best, run.config.train.epochs
    return [
        (f"{best.top1:.2f}%" if best else NONE, f"best top-1, epoch {best.epoch}" if best else "best top-1"),
        (_speed(run.img_s) if run.img_s else NONE, "images per second in training"),
        _ideal_gain(run),
        (f"{run.done}/{planned}", "epochs" if run.done == planned else "epochs, not finished"),
    ]


def _ideal_gain(run: Run) -> tuple[str, str]:
    """Return the gain of the schedule in training, or of the whole run where its phases are listed."""
    if run.config.train.phases is None:
        return f"{100 * run.plan.training_gain:+.1f}%", "ideal gain over dense"
    return f"{100 * run_costs(run.config).ideal_gain:+.1f}%", "ideal gain over a dense run"


def _lead(runs: Sequence[Run]) -> str:
    """Return in a sentence what was trained on what; of several runs, only where that is the same."""
    said = {f"{run.config.model.name} on {run.config.data.root}, {len(run.classes)} classes" for run in runs}
    return f"{said.pop()}." if len(said) == 1 else ""


def _trained(phase: Phase, run: Run) -> str:
    """Return a phase's schedule, and its image size where that is not the model's."""
    size = run.config.model.image_size
    return phase.tokens + (
        "" if sides(phase.image_size) == sides(size) else f" at {side_text(phase.image_size)} pixels"
    )


def _phases(run: Run) -> str:
    spans = [f"{_trained(phase, run)} in epochs {phase.first} to {phase.last}" for phase in run.phases]
    return ", ".join(spans) or "no epoch done yet"


def _speed(img_s: float) -> str:
    return f"{img_s:.0f}" if img_s >= 100 else f"{img_s:.3g}"


def _signed(number: float, form: str) -> str:
    return format(number, form).replace("-", "−")


def _breakable(text: str) -> Markup:
    """Let lines break in names, paths and specs that are too long for one."""
    return Markup("<wbr>").join(re.split(r"(?<=[,_/])|(?<=[a-z]\.)", text))


def _value(value: object) -> str:
    """Format a value for readers, much as YAML does."""
    if value is None:
        return NONE
    if isinstance(value, PhaseConfig):
        return format_override("phase", value).partition("=")[2]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
