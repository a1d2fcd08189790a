"""Train every row of the paper's Table 1 (and of ablations), with several seeds, and write the table and its plots.

Example: python -m src.tools.table1 --config configs/quickstart.yaml --seeds 2 --specs none "6(45%)+fused" "6(55%)+11"

Trainings that are finished are not done again, and one that was stopped goes on where it was. results.csv has a line a
training, table.md the table, accuracy.png, curves.png and ablations.png the plots.
"""

import argparse
import dataclasses
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from src import cli
from src.config import Config, load
from src.errors import FailureError, Interrupted, UserError
from src.files import write_atomically
from src.models.schedule import Plan
from src.progress import Progress
from src.stop import STOP
from src.tools.experiments import DENSE, Result, Row, Summary, read_rows, result_of, summarise, write_results
from src.tools.timing import markdown
from src.training.run_folder import RUNS, RunFolder

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
NO_RESULT = {"run", "runtime", "train.report", "train.tensorboard"}  # sections and keys that change none
FILLED_IN = {"model.num_classes"}  # from the data

log = logging.getLogger("skipvit")


@dataclasses.dataclass(frozen=True)
class Training:
    """One row with one seed."""

    row: Row
    seed: int
    config: Config
    run: RunFolder
    command: tuple[str, ...]
    plan: Plan

    @property
    def finished(self) -> bool:
        rows = self.run.read_rows()
        return bool(rows) and int(rows[-1]["epoch"]) >= self.config.train.epochs

    def result(self) -> Result:
        return result_of(self.run, self.row, self.seed, self.plan.ideal_gain)

    def check(self) -> None:
        """Refuse a run folder of another experiment.

        Raises:
            UserError: The folder's configuration is another one.
        """
        if self.run.config.is_file() and _compared(load(self.run.config)) != _compared(self.config):
            raise UserError(f"{self.run.path} was trained under another configuration; name another --output")

    def start(self) -> subprocess.Popen:
        """Begin, or go on, in a process of its own."""
        arguments = ["--resume", str(self.run.path)] if self.run.config.is_file() else self.command
        self.run.path.parent.mkdir(parents=True, exist_ok=True)
        with self.run.path.with_suffix(".output").open("a", encoding="utf-8") as output:
            return subprocess.Popen([sys.executable, str(TRAIN), *arguments], stdout=output, stderr=output)


def main(argv: Sequence[str]) -> None:
    args = _parser().parse(argv)
    cli.start_log()
    if not args.config:
        raise UserError("--config is missing; name a configuration with --config FILE")
    if min(args.seeds, args.jobs) < 1:
        raise UserError(f"--seeds {args.seeds} and --jobs {args.jobs} must be 1 or more")
    config = load(args.config, args.overrides)
    groups = {"schedules": [Row(spec) for spec in args.specs]} if args.specs else read_rows(Path(args.rows))
    output = Path(args.output or RUNS / f"table1-{Path(args.config).stem}")
    rows = list(dict.fromkeys([DENSE, *(row for group in groups.values() for row in group)]))
    plans = _plans(rows, args)
    trainings = [_training(row, seed, args, output, plans[row]) for seed in range(args.seeds) for row in rows]
    for training in trainings:
        training.check()
    log.info("%d trainings, of which %d are done, in %s", len(trainings), sum(t.finished for t in trainings), output)
    _train(trainings, args.jobs, output, config)
    _write(trainings, output, config)
    _draw(trainings, groups, output)
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


def _compared(config: Config) -> dict[str, object]:
    """The keys that decide a result."""
    sections = dataclasses.asdict(config)
    named = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    return {name: value for name, value in named.items() if not {name, name.split(".")[0]} & (NO_RESULT | FILLED_IN)}


def _train(trainings: Sequence[Training], jobs: int, output: Path, config: Config) -> None:
    """Do what is not done yet, `jobs` at a time; the table is written anew after each."""
    waiting = [training for training in trainings if not training.finished]
    with (
        Progress(len(trainings), "trainings", "run", done=len(trainings) - len(waiting)) as progress,
        STOP.heed(),  # a signal while a training is being started would leave it alone
        _ended() as running,
    ):
        while waiting or running:
            if STOP.asked is not None:
                raise Interrupted(STOP.asked, f"{STOP.asked.name}: stopped; the same command goes on")
            while waiting and len(running) < jobs:
                training = waiting.pop(0)
                running[training.run.path] = (training, training.start())
            time.sleep(0.2)
            for training, job in [pair for pair in running.values() if pair[1].poll() is not None]:
                del running[training.run.path]
                _check_end(training, job)
                progress.advance(1)
                _write(trainings, output, config)
                _report(training, progress.left())


@contextmanager
def _ended() -> Iterator[dict[Path, tuple[Training, subprocess.Popen]]]:
    """Running trainings, which are stopped, with all saved, if this process is."""
    running: dict[Path, tuple[Training, subprocess.Popen]] = {}
    try:
        yield running
    finally:
        for _, job in running.values():
            job.send_signal(signal.SIGTERM)
        for _, job in running.values():
            job.wait()


def _check_end(training: Training, job: subprocess.Popen) -> None:
    if job.returncode != 0:
        output = training.run.path.with_suffix(".output")
        said = output.read_text(encoding="utf-8").strip().splitlines() or [f"exit code {job.returncode}"]
        why = said[-1].removeprefix("error: ")
        raise FailureError(f"{training.row}, seed {training.seed} failed: {why} (all it said is in {output})")


def _report(training: Training, left: str) -> None:
    result = training.result()
    log.info("%s, seed %d: top-1 %.2f%%, %.0f img/s, %.0f s; %s left", training.row, training.seed, result.top1,
             result.img_s, result.seconds, left)  # fmt: skip


def _write(trainings: Sequence[Training], output: Path, config: Config) -> None:
    results = [training.result() for training in trainings if training.finished]
    write_results(output / "results.csv", results)
    write_atomically(output / "table.md", f"{table(summarise(results))}\n{_note(config)}\n")


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
            f"`{row.tokens}`{''.join(f', `{override}`' for override in row.overrides)}",
            str(found.seeds),
            "" if found.img_s is None else f"{found.img_s:.4g}",
            "" if found.gain is None else f"{100 * found.gain:+.1f}%",
            f"{100 * found.ideal_gain:+.1f}%",
            f"{found.top1:.2f}" + ("" if found.sd is None else f" ± {found.sd:.2f}"),
            _difference(found),
        ]
        for row, found in summaries.items()
    ]
    return markdown(header, lines)


def _note(config: Config) -> str:
    return (
        f"{config.train.epochs} epochs, {config.train.warmup_dense_epochs} of them dense unless said otherwise; top-1"
        " after the last one in percent, mean ± standard deviation over seeds; differences are of the same seed."
    )


def _difference(found: Summary) -> str:
    if found.difference is None:
        return ""
    if found.margin is None:
        return f"{found.difference:+.2f}"
    low, high = found.difference - found.margin, found.difference + found.margin
    return f"{found.difference:+.2f} ({low:+.2f} to {high:+.2f})"


def _draw(trainings: Sequence[Training], groups: Mapping[str, Sequence[Row]], output: Path) -> None:
    from src.tools.table1_plot import plot_accuracy, plot_curves, plot_groups

    summaries = summarise([training.result() for training in trainings])
    first = next(iter(groups.values()))
    curves: dict[Row, list[list[tuple[int, float]]]] = {}
    for training in trainings:
        points = [(int(line["epoch"]), float(line["top1"])) for line in training.run.read_rows() if line["top1"]]
        curves.setdefault(training.row, []).append(points)
    shown = list(dict.fromkeys([DENSE, *first]))
    plot_accuracy([summaries[row] for row in shown], output / "accuracy.png")
    plot_curves({row: curves[row] for row in shown}, output / "curves.png")
    if len(groups) > 1:
        ablations = {name: [summaries[row] for row in rows] for name, rows in groups.items() if rows is not first}
        plot_groups(ablations, summaries[DENSE], output / "ablations.png")


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--rows", default="configs/table1.yaml", metavar="FILE", help="rows (configs/table1.yaml)")
    parser.add_argument("--specs", nargs="+", metavar="SPEC", help="these schedules instead of --rows")
    parser.add_argument("--seeds", type=cli.whole, default=3, metavar="N", help="trainings of a row (3)")
    parser.add_argument("--output", metavar="FOLDER", help="where to write (runs/table1-NAME)")
    parser.add_argument("--jobs", type=cli.whole, default=1, metavar="N", help="trainings at a time (1)")
    return parser


if __name__ == "__main__":
    cli.run(main)
