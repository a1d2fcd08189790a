"""Train every row of the paper's Table 1 (and of ablations), with several seeds, and write the table and its plots.

Example: python -m src.tools.table1 --config configs/quickstart.yaml --seeds 2 --specs none "6(45%)+fused" "6(55%)+11"

Trainings that are finished are not done again, and one that was stopped goes on where it was. results.csv has a line a
training, table.md the table, accuracy.png, curves.png and ablations.png the plots; all are of the rows and seeds that
this call names, whatever an earlier one named. With --finished they are of what is finished, and nothing is trained.
Training speeds are those of the trainings, or with --measure taken in turns when all are done, on a machine that should
be idle then; speeds.json keeps them for the next time.
"""

import argparse
import dataclasses
import fcntl
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Optional

from src import cli
from src.config import Config, load, with_classes
from src.environment import environment, in_a_line
from src.errors import UserError, first_line
from src.files import make_folder, write_atomically
from src.models.schedule import Plan
from src.tools.experiments import DENSE, Result, Row, Summary, read_rows, summarise, write_results
from src.tools.timing import markdown
from src.tools.trainings import Training, train
from src.training.run_folder import RUNS, RunFolder

ROUNDS, STEPS = 15, 3  # of measuring
OF_SPEED = ("model.", "data.", "runtime.")  # keys that a training step's time may depend on

log = logging.getLogger("skipvit")


@dataclasses.dataclass(frozen=True)
class Speeds:
    """Training speeds that were measured in turns, in images per second by schedule, and where and how that was."""

    img_s: dict[str, float]
    where: str


def main(argv: Sequence[str]) -> None:
    args = _parser().parse(argv)
    cli.start_log()
    if not args.config:
        raise UserError("--config is missing; name a configuration with --config FILE")
    config = load(args.config, args.overrides)
    groups = {"schedules": [Row(spec) for spec in args.specs]} if args.specs else read_rows(Path(args.rows))
    output = Path(args.output or RUNS / f"table1-{Path(args.config).stem}")
    rows = list(dict.fromkeys([DENSE, *(row for group in groups.values() for row in group)]))
    if args.measure:
        _check_measurable(rows, config)
    plans = _plans(rows, args)
    trainings = [_training(row, seed, args, output, plans[row]) for seed in range(args.seeds) for row in rows]
    for training in trainings:
        training.check()
    log.info("%d trainings, of which %d are done, in %s", len(trainings), sum(t.finished for t in trainings), output)
    if not args.finished:
        make_folder(output, "--output")
        train(trainings, args.jobs, lambda: _write(trainings, config, output))
    trainings = [training for training in trainings if training.finished]
    if DENSE not in {training.row for training in trainings}:
        raise UserError(f"no dense training is finished in {output}, and all others are compared with it")
    if args.measure:
        classes = len(trainings[0].run.read_classes())
        _measure((training.row for training in trainings), with_classes(config, classes), output)
    results = _write(trainings, config, output)
    _draw(trainings, summarise(results), groups, output)
    print((output / "table.md").read_text(encoding="utf-8"))


def _plans(rows: Sequence[Row], args: argparse.Namespace) -> dict[Row, Plan]:
    """What each row's schedule comes to; rows that cannot be trained are refused before the first training."""
    from src.models import from_config  # this imports MindSpore

    plans = {}
    for row in rows:
        model = load(args.config, [*args.overrides, *row.overrides, f"model.tokens={row.tokens}"]).model
        plans[row] = from_config(dataclasses.replace(model, num_classes=model.num_classes or 1)).plan
    return plans


def _training(row: Row, seed: int, args: argparse.Namespace, output: Path, plan: Plan) -> Training:
    name = re.sub(r"[^a-z0-9]+", "_", str(row).lower()).strip("_")
    run = RunFolder(output / name / f"seed{seed}")
    overrides = [
        *args.overrides, *row.overrides, f"model.tokens={row.tokens}", f"train.seed={seed}", f"run.dir={run.path}",
    ]  # fmt: skip
    config = load(args.config, overrides)
    return Training(row, seed, config, run, ("--config", args.config, *overrides), plan)


def _write(trainings: Sequence[Training], config: Config, output: Path) -> list[Result]:
    """Write results and table of what is finished, and give the results: with measured speeds where there are any."""
    results, note = [training.result() for training in trainings if training.finished], _note(config)
    speeds = _read_speeds(output)
    if speeds and all(_of_one_model(result.row) and result.tokens in speeds.img_s for result in results):
        results = [dataclasses.replace(result, img_s=speeds.img_s[result.tokens]) for result in results]
        note += f" Training speed: {speeds.where}."
    else:
        note += " Training speed: of the trainings themselves, beside whatever ran then; --measure compares better."
    with (output / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # --finished may look while trainings go on
        write_results(output / "results.csv", results)
        write_atomically(output / "table.md", f"{table(summarise(results))}\n{note}\n")
    return results


def _measure(rows: Iterable[Row], config: Config, output: Path) -> None:
    """Measure the training step of every schedule in turns, and write speeds.json."""
    from src.tools.benchmark import time_training

    timings = time_training(config, list(dict.fromkeys(row.tokens for row in rows)), ROUNDS, STEPS)
    rounds = f"{ROUNDS} rounds of {STEPS} steps in turns, batch {config.data.batch_size}"
    where = f"{rounds}, {in_a_line(environment(config))}"
    img_s = {spec: round(config.data.batch_size / timing.median, 2) for spec, timing in timings.items()}
    write_atomically(output / "speeds.json", json.dumps(dataclasses.asdict(Speeds(img_s, where)), indent=1) + "\n")


def _read_speeds(output: Path) -> Optional[Speeds]:
    path = output / "speeds.json"
    try:
        return Speeds(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not what --measure wrote; remove it: {first_line(error)}") from error


def _of_one_model(row: Row) -> bool:
    """Whether a row's training step differs from the dense row's by its schedule alone."""
    return not any(override.startswith(OF_SPEED) for override in row.overrides)


def _check_measurable(rows: Sequence[Row], config: Config) -> None:
    for row in rows:
        if not _of_one_model(row):
            raise UserError(f"--measure compares schedules of one model and data; the row {row} has others")
    if not isinstance(config.model.image_size, int):
        raise UserError("--measure: the images measured with are square; model.image_size must be one number")


def table(summaries: Mapping[Row, Summary]) -> str:
    """The table in the paper's form, as Markdown."""
    header = [
        "schedule",
        "seeds",
        "training img/s",
        "gain",
        "ideal gain",
        "top-1",
        "difference to dense (95% interval)",
    ]
    lines = [
        [
            label(row),
            str(found.seeds),
            "" if found.img_s is None else f"{found.img_s:.4g}",
            "" if found.gain is None else f"{100 * found.gain:+.1f}%",
            f"{100 * found.ideal_gain:+.1f}%",
            accuracy(found),
            difference(found),
        ]
        for row, found in summaries.items()
    ]
    return markdown(header, lines)


def label(row: Row) -> str:
    """A row's name."""
    return ", ".join(f"`{part}`" for part in (row.tokens, *row.overrides))


def accuracy(found: Summary) -> str:
    """Top-1 in percent, with the standard deviation over seeds."""
    return f"{found.top1:.2f}" + ("" if found.sd is None else f" ± {found.sd:.2f}")


def difference(found: Summary) -> str:
    """Percentage points of top-1 to the dense model, with the 95% interval."""
    if found.difference is None:
        return ""
    if found.margin is None:
        return f"{found.difference:+.2f}"
    low, high = found.difference - found.margin, found.difference + found.margin
    return f"{found.difference:+.2f} ({low:+.2f} to {high:+.2f})"


def _note(config: Config) -> str:
    return (
        f"{config.train.epochs} epochs, {config.train.warmup_dense_epochs} of them dense unless said otherwise; top-1"
        " after the last one in percent, mean ± standard deviation over seeds; differences are of the same seed."
    )


def _draw(
    trainings: Sequence[Training], summaries: Mapping[Row, Summary], groups: Mapping[str, Sequence[Row]], output: Path
) -> None:
    from src.tools.table1_plot import plot_accuracy, plot_curves, plot_groups

    paired = {row for row, found in summaries.items() if row == DENSE or found.difference is not None}
    groups = {name: [row for row in rows if row in paired] for name, rows in groups.items()}
    first, *others = groups
    curves: dict[Row, list[list[tuple[int, float]]]] = {}
    for training in trainings:
        points = [(epoch.epoch, epoch.top1) for epoch in training.run.read_metrics() if epoch.top1 is not None]
        curves.setdefault(training.row, []).append(points)
    shown = list(dict.fromkeys([DENSE, *groups[first]]))
    timed = [row for row in shown if row == DENSE or summaries[row].gain is not None]
    plot_accuracy([summaries[row] for row in timed], output / "accuracy.png")
    plot_curves({row: curves[row] for row in shown}, output / "curves.png")
    ablations = {name: [summaries[row] for row in groups[name]] for name in others if groups[name]}
    if ablations:
        plot_groups(ablations, summaries[DENSE], output / "ablations.png")


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--rows", default="configs/table1.yaml", metavar="FILE", help="rows (configs/table1.yaml)")
    parser.add_argument("--specs", nargs="+", metavar="SPEC", help="these schedules instead of --rows")
    parser.add_argument("--seeds", type=cli.positive, default=3, metavar="N", help="trainings of a row (3)")
    parser.add_argument("--output", metavar="FOLDER", help="where to write (runs/table1-NAME)")
    parser.add_argument(
        "--jobs",
        type=cli.positive,
        default=1,
        metavar="N",
        help="trainings at a time, each on its part of the cores (1)",
    )
    parser.add_argument(
        "--measure", action="store_true", help="at the end, measure training speeds in turns, on an idle machine"
    )
    parser.add_argument("--finished", action="store_true", help="train nothing: table and plots of what is finished")
    return parser


if __name__ == "__main__":
    cli.run(main)
