"""Run the trainings of an experiment: each in a process of its own, several at a time, none twice."""

import dataclasses
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from src.config import Config, Role, flatten, keys_with, load
from src.errors import Interrupted, RunError, UserError
from src.experiments.results import TrainingResult, result_of
from src.experiments.variants import Variant
from src.progress import Progress
from src.runs import RunFolder
from src.runs.images import read_images
from src.runtime.environment import share_cores
from src.runtime.signals import STOP

TRAIN = Path(__file__).resolve().parents[2] / "train.py"

log = logging.getLogger("skipvit")


@dataclasses.dataclass(frozen=True)
class Job:
    """The training of one variant with one seed.

    Attributes:
        command: The arguments of train.py that start it.
    """

    variant: Variant
    seed: int
    config: Config
    run: RunFolder
    command: tuple[str, ...]

    @property
    def is_finished(self) -> bool:
        return self.run.epochs_done >= self.config.train.epochs

    @property
    def images_of_epoch(self) -> Optional[int]:
        """Images of a training epoch; None if the run does not say."""
        images = read_images(self.run.images)
        return images.counts["train"] if images else None

    def result(self) -> TrainingResult:
        return result_of(self.run, self.variant, self.seed, self.config)

    def check(self) -> None:
        """Refuse a run folder of another experiment.

        Raises:
            UserError: The folder's configuration is another one.
        """
        if not self.run.config.is_file():
            return
        trained = _decisive(load(self.run.config))
        for key, value in _decisive(self.config).items():
            if trained[key] != value:
                raise UserError(f"{self.run.path} was trained under another configuration, {key}={trained[key]} and "
                                f"not {value}; set it so, or name another --output")  # fmt: skip

    def start(self, cores: Sequence[int]) -> "subprocess.Popen[bytes]":
        """Start or resume the training in a process of its own, on these cores; none stands for all."""
        arguments = ["--resume", str(self.run.path)] if self.run.config.is_file() else self.command
        self.run.path.parent.mkdir(parents=True, exist_ok=True)
        with self.run.path.with_suffix(".output").open("a", encoding="utf-8") as output:
            process = subprocess.Popen([sys.executable, str(TRAIN), *arguments], stdout=output, stderr=output)
        if cores:
            os.sched_setaffinity(process.pid, cores)
        return process


Running = dict[int, tuple[Job, "subprocess.Popen[bytes]"]]


def run_jobs(jobs: Sequence[Job], at_a_time: int, after_each: Callable[[], None]) -> None:
    """Run the jobs that are not finished, so many at a time.

    Raises:
        RunError: A training failed; those beside it were stopped, with all saved.
        Interrupted: A signal asked to stop; they were stopped, with all saved.
    """
    waiting = [job for job in jobs if not job.is_finished]
    shares = share_cores(max(1, min(at_a_time, len(waiting))))
    with (
        Progress(len(jobs), "trainings", "run", done=len(jobs) - len(waiting)) as progress,
        STOP.graceful(),  # a signal while a process is being started would leave that alone
        _stopped_at_the_end() as running,
    ):
        while True:
            if STOP.requested is not None:
                raise Interrupted(STOP.requested, f"{STOP.requested.name}: stopped; the same command resumes")
            for slot in [slot for slot in range(len(shares)) if slot not in running][: len(waiting)]:
                job = waiting.pop(0)
                running[slot] = (job, job.start(shares[slot]))
            if not running:
                return
            time.sleep(0.2)
            for slot, (job, process) in [entry for entry in running.items() if entry[1][1].poll() is not None]:
                del running[slot]
                _check_end(job, process)
                progress.advance(1)
                after_each()
                _report(job, progress.left())


@contextmanager
def _stopped_at_the_end() -> Iterator[Running]:
    """Collect running jobs by slot, and stop them, with all saved, when the block ends."""
    running: Running = {}
    try:
        yield running
    finally:
        for _, process in running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in running.values():
            process.wait()


def _check_end(job: Job, process: "subprocess.Popen[bytes]") -> None:
    if process.returncode != 0:
        output = job.run.path.with_suffix(".output")
        said = output.read_text(encoding="utf-8").strip().splitlines() or [f"exit code {process.returncode}"]
        why = said[-1].removeprefix("error: ")
        raise RunError(f"{job.variant}, seed {job.seed} failed: {why} (its whole output is in {output})")


def _report(job: Job, left: str) -> None:
    result = job.result()
    speed = "" if math.isnan(result.img_s) else f"{result.img_s:.0f} img/s, "
    log.info("%s, seed %d: top-1 %.2f%%, %s%.0f s; %s left", job.variant, job.seed, result.top1, speed,
             result.seconds, left)  # fmt: skip


def _decisive(config: Config) -> dict[str, object]:
    """Return the keys that decide a result and do not come from the data."""
    others = {name for role in (Role.RECORD, Role.MACHINE, Role.FROM_DATA) for name in keys_with(role)}
    return {name: value for name, value in flatten(config).items() if name not in others}
