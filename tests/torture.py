"""Kill trainings at random instants, resume them, and compare: python -m tests.torture --kills 50

With --phases, runs of four phases, of two image sizes; every third one is killed at a border of two phases or soon
after. With --ranks 2, runs of two processes are killed and signalled: tests/torture_ranks.py.

Each trial starts a small run of the Quick start's configuration, kills it once (every third one while a checkpoint is
being written), resumes it to the end, and compares all of its state with that of a run that was left alone.
"""

import argparse
import csv
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from src.weights.files import CONFIG, read_arrays
from tests.helpers.commands import ROOT

SMALL = [
    "train.epochs=4", "train.warmup_dense_epochs=2", "train.ema_decay=0.99", "run.save_every_steps=5",
    "data.batch_size=128", "data.mixup=0.8", "data.cutmix=1.0", "model.depth=4", "model.tokens=2(50%)+4",
    "train.report=false",
]  # fmt: skip
FOUR_PHASES = [
    "train.phases=[{epochs: 1, image_size: 8}, {epochs: 1, tokens: none}, {epochs: 1}, {epochs: 1, tokens: none}]",
    *(text for text in SMALL if not text.startswith(("train.epochs", "train.warmup"))),
]
TIMED = ("img_s", "seconds")  # columns of metrics.csv that depend on time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="trials (50)")
    parser.add_argument("--seed", type=int, default=0, help="of the instants (0)")
    parser.add_argument("--ranks", type=int, default=1, choices=(1, 2), help="processes of a training (1)")
    parser.add_argument("--phases", action="store_true", help="runs of four phases")
    parser.add_argument("--signals", type=int, default=0, help="trials of two ranks that are signalled, not killed (0)")
    parser.add_argument("--files", action="store_true", help="hostile files and failing file systems instead of kills")
    args = parser.parse_args()
    if args.files:
        from tests import soak_files

        print(soak_files.soak(soak_files.SIZES, args.seed))
        return
    if args.ranks == 1 and args.signals:
        parser.error("--signals goes with --ranks 2")
    if args.ranks == 2 and args.phases:
        parser.error("--phases goes with one process")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if args.ranks == 2:
            from tests import torture_ranks

            print(torture_ranks.torture(args.kills, args.signals, random.Random(args.seed)), "and resumed bit-equal")
            return
        options = FOUR_PHASES if args.phases else SMALL
        finish(start(Path("first"), options))  # fills the cache of kernels
        instants = torture(args.kills, random.Random(args.seed), options)
    print(f"{args.kills} runs were killed ({instants}), resumed, and ended bit-equal; none was lost, no file left over")


def torture(kills: int, chance: random.Random, options: Sequence[str] = SMALL, first: int = 0) -> str:
    """Do so many trials in the working directory, from a number on; in what each run was when killed, counted."""
    began = time.monotonic()
    finish(start(Path("whole"), options))
    seconds = time.monotonic() - began
    seen: dict[str, int] = {}
    for number in tqdm(range(first, first + kills), disable=not sys.stderr.isatty()):
        for trial in itertools.count():
            run = Path(f"run{number}-{trial}")
            job = start(run, options)
            if options is FOUR_PHASES and number % 3 == 1:
                wait_for_border(job, run, chance)
            else:
                wait(job, run, seconds, chance, while_saving=number % 3 == 0)
            what = kill(job, run)
            finish(start(run, options, resume=(run / "config.yaml").exists()))
            check(run, Path("whole"))
            if what is not None:
                break
        seen[what] = seen.get(what, 0) + 1
    return ", ".join(f"{count} {what}" for what, count in sorted(seen.items()))


def wait(job: subprocess.Popen, run: Path, seconds: float, chance: random.Random, while_saving: bool) -> None:
    """Wait for a random instant of a run, or for one in which it writes a checkpoint."""
    until = time.monotonic() + chance.uniform(0, seconds)
    while job.poll() is None and (while_saving or time.monotonic() < until):
        if while_saving and list(run.glob("checkpoints/*.partial*")) and chance.random() < 0.3:
            break
        time.sleep(0.0005 if while_saving else 0.01)


def wait_for_border(job: subprocess.Popen, run: Path, chance: random.Random) -> None:
    """Wait until a phase's last row is written, and at most as long as the next graph compiles."""
    rows, delay = chance.randint(1, 3), chance.choice((0, chance.uniform(0, 3)))
    while job.poll() is None and rows_of(run) < rows:
        time.sleep(0.0005)
    time.sleep(delay)


def rows_of(run: Path) -> int:
    file = run / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.exists() else 0


def kill(job: subprocess.Popen, run: Path) -> Optional[str]:
    """Kill a run; what it was doing, or None if it came to its end first."""
    what = "with a checkpoint" if (run / "checkpoints" / "last.ckpt").exists() else "before the first checkpoint"
    if list(run.glob("checkpoints/*.partial*")):
        what = "while saving"
    job.send_signal(signal.SIGKILL)
    return what if job.wait() == -signal.SIGKILL else None


def start(run: Path, options: Sequence[str], resume: bool = False) -> subprocess.Popen:
    """A training in a process of its own."""
    config = ["--resume", str(run)] if resume else ["--config", str(ROOT / "configs/quickstart.yaml"), *options]
    command = [sys.executable, str(ROOT / "train.py"), *config, *([] if resume else [f"run.dir={run}"])]
    with Path(f"{run.name}.log").open("a", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def finish(job: subprocess.Popen) -> None:
    """Wait for a training that must succeed."""
    assert job.wait(timeout=600) == 0, f"{job.args} failed"


def check(run: Path, whole: Path) -> None:
    """All state bit-equal, the same metrics, the same files."""
    expected, reached = read_arrays(whole / "checkpoints" / "last.ckpt"), read_arrays(run / "checkpoints" / "last.ckpt")
    assert expected.keys() == reached.keys()
    expected.pop(CONFIG)  # it names the folder
    for name, value in expected.items():
        assert np.array_equal(value, reached[name]), f"{run}: {name} differs"
    rows, others = (timeless_rows(path / "metrics.csv") for path in (run, whole))
    assert rows == others, f"{run}: metrics"
    files, others = (sorted(str(path.relative_to(top)) for path in top.glob("**/*")) for top in (run, whole))
    assert files == others, f"{run}: {set(files) ^ set(others)}"


def timeless_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv, without what depends on time."""
    with file.open(newline="") as lines:
        return [{key: cell for key, cell in row.items() if key not in TIMED} for row in csv.DictReader(lines)]


if __name__ == "__main__":
    main()
