"""Records: what stays of an experiment, without weights and without a machine's paths. Never imports MindSpore."""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.config import flatten, load
from src.errors import UserError, first_few
from src.experiments.results import TrainingResult, read_results
from src.files import make_folder, write_text
from src.runs import RunFolder

TEXTS = ("results.csv", "evaluation.csv", "classes.csv", "pairs.csv", "table.md", "speeds.json")
WORDS = "README.md"  # a person's
PATH = re.compile(r"(?<![\w./)])(?:/[\w.@+~-]{2,})+/?")
PROGRESS = re.compile(r"^\S+ \S+ training \d+/\d+ img.*\n", re.M)


def write(output: Path, target: Path) -> list[Path]:
    """Write the record of an experiment: what `src.tools.table1` wrote, or `eval.py --output`.

    Of the trainings that results.csv lists, everything but the weights is kept, in folders as they were, so that
    `src.tools.table1 --finished` makes table and plots of the record again.

    Returns:
        The files of the record, relative to it.

    Raises:
        UserError: There is nothing, or a training is not finished; or the folder holds something else.
        RunError: A file cannot be written.
    """
    texts = dict(_texts(output))
    plots = [path.name for path in sorted(output.glob("*.png"))]
    files = [*map(Path, plots), *texts]
    others = sorted(str(path) for path in _files(target) if path not in files and path.name != WORDS)
    if others:
        raise UserError(f"{target} holds files that are not of {output} ({first_few(others)}); name another folder")
    for name in plots:
        make_folder(target, "the record's folder")
        shutil.copyfile(output / name, target / name)
    for path, text in texts.items():
        make_folder((target / path).parent, "the record's folder")
        write_text(target / path, text)
    return files


def without_paths(text: str, known: Sequence[str] = ()) -> str:
    """Return a text with the last part alone of every absolute path in it.

    Args:
        known: Paths that may be in it, which can have spaces.
    """
    for path in sorted(known, key=len, reverse=True):
        text = text.replace(path, Path(path).name or ".")
    return PATH.sub(lambda found: Path(found[0]).name, text)


def _texts(output: Path) -> Iterator[tuple[Path, str]]:
    """Yield the text files of a record, relative to it."""
    found = [output / name for name in TEXTS if (output / name).is_file()]
    if not {"results.csv", "evaluation.csv"} & {path.name for path in found}:
        raise UserError(f"{output} holds no results.csv; name the --output of src.tools.table1 or of eval.py")
    known = [str(output.resolve())]
    for result in read_results(output / "results.csv") if output / "results.csv" in found else []:
        run = RunFolder(output / result.variant.folder / f"seed{result.seed}")
        _check(run, result)
        texts = [value for value in flatten(load(run.config)).values() if isinstance(value, str)]
        of_run = [text for text in texts if re.match("/.", text)]
        for path in (run.config, run.metrics, run.images, run.environment, run.phases, run.log):
            if path.is_file():
                text = PROGRESS.sub("", path.read_text(encoding="utf-8"))
                yield path.relative_to(output), without_paths(text, [*known, *of_run])
    for path in found:  # last, so that a record with results.csv is whole
        yield path.relative_to(output), without_paths(path.read_text(encoding="utf-8"), known)


def _check(run: RunFolder, result: TrainingResult) -> None:
    """Refuse a training that is not the one of results.csv, or not finished."""
    rows = run.read_metrics()
    if not run.config.is_file() or not rows:
        raise UserError(f"{run.path} of results.csv is missing; name the folder that its trainings are in")
    if rows[-1].epoch < load(run.config).train.epochs:
        raise UserError(f"{run.path} is not finished; a record is of whole trainings")
    if (rows[-1].epoch, rows[-1].top1) != (result.epochs, result.top1):
        raise UserError(f"{run.path} is not what results.csv says; write that again with src.tools.table1 --finished")


def _files(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
