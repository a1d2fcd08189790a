"""Two-rank trials of `python -m tests.torture --ranks 2`: kills and signals at random instants.

Each trial starts a small run of two processes under msrun and kills or signals one of them, both, or msrun itself; it
is resumed to its end, and all of its state compared with that of a two-process run that was left alone.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Optional

from tqdm import tqdm

from tests.helpers.commands import ROOT
from tests.helpers.msrun import environment, msrun, worker
from tests.torture import check

SMALL = [
    "train.epochs=3", "train.warmup_dense_epochs=1", "train.ema_decay=0.99", "run.save_every_steps=5",
    "data.batch_size=32", "data.mixup=0.8", "model.depth=2", "model.tokens=1(50%)+2", "train.report=false",
    "runtime.fused_kernels=off", "train.loss_scale_type=dynamic", "train.loss_scale=1024.0",
]  # fmt: skip
RANKS = 2
KILLED = ("one rank", "all", "msrun")
SIGNALLED = ("one rank", "both ranks", "msrun's group")
SECONDS_TO_END = 60


def torture(kills: int, signals: int, chance: random.Random) -> str:
    """Do so many trials in the working directory; return what became of them."""
    began = time.monotonic()
    end_of(start(Path("whole")))
    seconds = time.monotonic() - began
    trials = [("kill", whom) for whom, _ in zip(itertools.cycle(KILLED), range(kills))]
    trials += [("signal", whom) for whom, _ in zip(itertools.cycle(SIGNALLED), range(signals))]
    seen: Counter[str] = Counter()
    slowest = 0.0
    for number, (what, whom) in enumerate(tqdm(trials, disable=not sys.stderr.isatty())):
        for attempt in itertools.count():
            run = Path(f"run{number}-{attempt}")
            ended, took = trial(run, what, whom, seconds, chance)
            resumes = (run / "config.yaml").exists()
            code = end_of(start(run, resume=resumes))
            assert code == 0, f"{run}: does not resume ({code}): {all_said(run)}"
            check(run, Path("whole"))
            if ended is not None:
                break
            seconds *= 0.8  # the machine has become faster: runs end before they are disturbed
        slowest = max(slowest, took)
        seen[ended] += 1
        print(f"{run}: {what} {whom}: {ended}, {took:.1f} s", flush=True)
    counts = ", ".join(f"{count} {ended}" for ended, count in sorted(seen.items()))
    return f"{kills} kills and {signals} signals of {RANKS} ranks ({counts}; the slowest ended in {slowest:.1f} s)"


def trial(run: Path, what: str, whom: str, seconds: float, chance: random.Random) -> tuple[Optional[str], float]:
    """Start a run and disturb it; return how it ended (None: it was over before), and after how many seconds."""
    began = time.monotonic()
    job = start(run)
    while job.poll() is None and not all(worker(rank, f"run.dir={run}") for rank in range(RANKS)):
        time.sleep(0.2)
    time.sleep(max(1, began + chance.uniform(0, seconds) - time.monotonic()))  # Python itself takes no signal before
    number = chance.choice((signal.SIGINT, signal.SIGTERM)) if what == "signal" else signal.SIGKILL
    workers = [worker(rank, f"run.dir={run}") for rank in range(RANKS)]
    if job.poll() is not None:
        return None, 0.0
    trained = "epoch" in log_of(run, 0)
    if what == "kill":
        kill(job, workers, whom, chance)
    else:
        send(job, workers, whom, number, chance)
    began = time.monotonic()
    code = end_of(job, SECONDS_TO_END)
    while any(worker(rank, f"run.dir={run}") for rank in range(RANKS)):  # msrun may be gone before them
        assert time.monotonic() - began < SECONDS_TO_END, f"{run}: a rank hangs"
        time.sleep(0.1)
    took = time.monotonic() - began
    return how_it_ended(run, whom, number, code, trained), took


def kill(job: subprocess.Popen, workers: list[Optional[int]], whom: str, chance: random.Random) -> None:
    if whom == "one rank":
        stop(chance.choice(workers), signal.SIGKILL)
        return
    stop(job.pid, signal.SIGKILL)
    for process in workers if whom == "all" else ():
        stop(process, signal.SIGKILL)


def send(
    job: subprocess.Popen, workers: list[Optional[int]], whom: str, number: signal.Signals, chance: random.Random
) -> None:
    if whom == "msrun's group":
        os.killpg(job.pid, number)
        return
    order = chance.sample(workers, RANKS)
    stop(order[0], number)
    if whom == "both ranks":
        time.sleep(chance.uniform(0, 2))
        stop(order[1], number)


def stop(process: Optional[int], number: signal.Signals) -> None:
    """Send a signal, unless the process has ended or was not there yet."""
    if process is not None:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def how_it_ended(run: Path, whom: str, number: signal.Signals, code: int, trained: bool) -> Optional[str]:
    """Check codes and messages; return how a disturbed run ended, or None if it reached its end all the same."""
    first, second = log_of(run, 0), log_of(run, 1)
    for log in (first, second):
        assert "Traceback" not in log, f"{run}: {log}"
    assert "resume with" not in second, f"{run}: {second}"
    if "done:" in first:
        return None
    hint = f"saved; resume with the same msrun of 2 processes: train.py --distribute --resume {run}\n"
    saved = first.count(hint)
    if number == signal.SIGKILL and whom != "msrun":
        assert saved == 0
        return "killed"
    assert saved <= 1
    if not saved:
        assert "resume with" not in first, f"{run}: {first}"
    if saved and whom != "msrun's group" and number != signal.SIGKILL:
        told = Path(f"{run}.log").read_text(errors="replace")
        assert f"Error code: {128 + number}" in told, f"{run}, {number.name}: {told[-2000:]}"
        assert first.count(f"{number.name}: saved") == 1, first
    if trained and not saved:
        assert whom == "msrun's group", f"{run}: {first}"  # on SIGINT msrun kills
        assert number == signal.SIGINT, f"{run}: {first}"
        return "killed by msrun"
    return "stopped and saved" if saved else "stopped before the first step"


def all_said(run: Path) -> str:
    """Return the end of what msrun, its scheduler and its workers said last."""
    logs = [Path(f"{run}.log"), *sorted(Path(f"{run}.resumed").glob("*.log"))]
    return "".join(f"\n== {log}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)


def log_of(run: Path, rank: int) -> str:
    path = Path(f"{run}.logs") / f"worker_{rank}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def start(run: Path, resume: bool = False, script: str = "train.py", **options: object) -> subprocess.Popen:
    """Start a training of two ranks, with msrun in a process group of its own; `options` are those of `msrun`."""
    config = ["--resume", str(run)] if resume else ["--config", str(ROOT / "configs/quickstart.yaml"), *SMALL]
    arguments = [str(ROOT / script), "--distribute", *config, *([] if resume else [f"run.dir={run}"])]
    logs = f"{run}.resumed" if resume else f"{run}.logs"
    with Path(f"{run}.log").open("a", encoding="utf-8") as log:
        command = msrun(RANKS, logs, *arguments, **options)
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment(), start_new_session=True)


def end_of(job: subprocess.Popen, seconds: int = 300) -> int:
    """Wait for msrun, and end what it left in its group (a scheduler, what shows logs); return its exit code."""
    try:
        return job.wait(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
