"""Trainings of an experiment: each in a process of its own, several at a time, none twice."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from src.config import Config, load
from src.environment import share_cores
from src.errors import FailureError, Interrupted, UserError
from src.models.schedule import Plan
from src.progress import Progress
from src.stop import STOP
from src.tools.experiments import Result, Row, result_of
from src.training.run_folder import RunFolder

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
        return self.run.epochs_done >= self.config.train.epochs

    def result(self) -> Result:
        return result_of(self.run, self.row, self.seed, self.plan.ideal_gain)

    def check(self) -> None:
        """Refuse a run folder of another experiment.

        Raises:
            UserError: The folder's configuration is another one.
        """
        if self.run.config.is_file() and _compared(load(self.run.config)) != _compared(self.config):
            raise UserError(f"{self.run.path} was trained under another configuration; name another --output")

    def start(self, cores: Sequence[int]) -> subprocess.Popen:
        """Begin, or go on, in a process of its own, on these cores; none stands for all."""
        arguments = ["--resume", str(self.run.path)] if self.run.config.is_file() else self.command
        self.run.path.parent.mkdir(parents=True, exist_ok=True)
        with self.run.path.with_suffix(".output").open("a", encoding="utf-8") as output:
            job = subprocess.Popen([sys.executable, str(TRAIN), *arguments], stdout=output, stderr=output)
        if cores:
            os.sched_setaffinity(job.pid, cores)
        return job


def train(trainings: Sequence[Training], jobs: int, after_each: Callable[[], None]) -> None:
    """Do what is not finished yet, `jobs` at a time.

    Raises:
        FailureError: A training failed; those beside it were stopped, with all saved.
        Interrupted: A signal asked to stop; they were stopped, with all saved.
    """
    waiting = [training for training in trainings if not training.finished]
    shares = share_cores(max(1, min(jobs, len(waiting))))
    with (
        Progress(len(trainings), "trainings", "run", done=len(trainings) - len(waiting)) as progress,
        STOP.heed(),  # a signal while a training is being started would leave it alone
        _ended() as running,
    ):
        while True:
            if STOP.asked is not None:
                raise Interrupted(STOP.asked, f"{STOP.asked.name}: stopped; the same command goes on")
            for place in [place for place in range(len(shares)) if place not in running][: len(waiting)]:
                training = waiting.pop(0)
                running[place] = (training, training.start(shares[place]))
            if not running:
                return
            time.sleep(0.2)
            for place, (training, job) in [entry for entry in running.items() if entry[1][1].poll() is not None]:
                del running[place]
                _check_end(training, job)
                progress.advance(1)
                after_each()
                _report(training, progress.left())


@contextmanager
def _ended() -> Iterator[dict[int, tuple[Training, subprocess.Popen]]]:
    """Running trainings by place, which are stopped, with all saved, if this process is."""
    running: dict[int, tuple[Training, subprocess.Popen]] = {}
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


def _compared(config: Config) -> dict[str, object]:
    """The keys that decide a result."""
    sections = dataclasses.asdict(config)
    named = {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}
    return {name: value for name, value in named.items() if not {name, name.split(".")[0]} & (NO_RESULT | FILLED_IN)}
