"""A run's folder: resolved config, metrics, log and checkpoints.

config.yaml      the resolved configuration
classes.txt      the names of the classes, in the order of the outputs
bad_images.txt   images that were left out, and why, if there are any
metrics.csv      a row an epoch
train.log        what was printed
environment.json hardware and versions of each start of the training
report.html      the run as a page (`train.report`, or `python -m src.tools.report`)
tensorboard/     events for TensorBoard (`train.tensorboard`)
checkpoints/     last.ckpt (all that a resume needs), previous.ckpt (the one before), best.ckpt (the weights to use),
                 epoch-0010.ckpt and so on (the weights of epochs, if `run.save_every_epochs` asks for them)
lock             held by the process that trains in the folder
"""

import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, Union

from src.config import Config, dump, load, parse
from src.errors import UserError
from src.files import make_folder, write_atomically
from src.training.metrics import Metrics, read_metrics, write_metrics
from src.weights import read_checkpoint

RUNS = Path("runs")


class RunFolder:
    """Paths of a run, and its rows of metrics."""

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.classes = self.path / "classes.txt"
        self.bad_images = self.path / "bad_images.txt"
        self.metrics = self.path / "metrics.csv"
        self.log = self.path / "train.log"
        self.environment = self.path / "environment.json"
        self.report = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.previous = self.path / "checkpoints" / "previous.ckpt"
        self.best = self.path / "checkpoints" / "best.ckpt"

    @classmethod
    def create(cls, config: Config, name: str, classes: Sequence[str]) -> "RunFolder":
        """Make the folder `run.dir`, or runs/NAME-DATE-TIME.

        Raises:
            UserError: The folder holds a run already, or cannot be made.
        """
        run = cls(config.run.dir or _unused(f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"))
        if run.config.exists():
            raise UserError(
                f"run.dir {run.path} holds a run already; go on with it by --resume {run.path}, or name another"
            )
        make_folder(run.path, "run.dir")
        make_folder(run.last.parent, "run.dir")
        write_atomically(run.config, dump(config))
        write_atomically(run.classes, "".join(f"{name}\n" for name in classes))
        write_metrics(run.metrics, [])
        return run

    @classmethod
    def open(cls, path: Union[str, Path]) -> "RunFolder":
        """An existing run.

        Raises:
            UserError: The folder holds no run.
        """
        run = cls(path)
        if not run.config.is_file():
            raise UserError(f"run folder {path} holds no config.yaml; name the folder that train.py printed")
        return run

    @property
    def name(self) -> str:
        """Where it is below runs/; elsewhere the folder's name."""
        path, runs = self.path.absolute(), RUNS.absolute()
        return str(path.relative_to(runs)) if runs in path.parents else path.name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other processes; the system lets go of it if this one dies.

        Raises:
            UserError: Another process trains in it.
        """
        path = self.path / "lock"
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise UserError(f"run folder {self.path} is in use by {file.read().strip()}; wait for it") from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            for partial in [*self.path.glob("*.partial*"), *self.last.parent.glob("*.partial*")]:
                partial.unlink()  # of a process that was killed while it wrote
            yield

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> Optional["RunFolder"]:
        """The run that a checkpoint lies in, if it lies in one."""
        run = cls(checkpoint.parent.parent)
        return run if checkpoint.parent.name == "checkpoints" and run.config.is_file() else None

    def epoch(self, number: int) -> Path:
        """Where the weights of an epoch, counted from 1, are kept."""
        return self.best.with_name(f"epoch-{number:04d}.ckpt")

    def kept_epochs(self) -> dict[int, Path]:
        """The epochs whose weights are kept, ascending, and their checkpoints."""
        found = [(re.fullmatch(r"epoch-(\d+)", path.stem), path) for path in self.best.parent.glob("epoch-*.ckpt")]
        return dict(sorted((int(match[1]), path) for match, path in found if match))

    def read_classes(self) -> tuple[str, ...]:
        """The names in classes.txt; none if there is no such file."""
        return tuple(self.classes.read_text(encoding="utf-8").splitlines()) if self.classes.is_file() else ()

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuse data whose classes are not those that the run was trained on.

        Raises:
            UserError: They differ, or are in another order.
        """
        trained = self.read_classes()
        if trained and trained != tuple(classes):
            differing = sorted(set(trained) ^ set(classes))
            raise UserError(
                f"the data's classes are not those of the run {self.path}: {', '.join(differing[:10])} only in one of"
                f" them ({self.classes.name} lists the run's)"
            )

    def read_metrics(self) -> list[Metrics]:
        """The epochs done.

        Raises:
            UserError: metrics.csv is not as it was written.
        """
        return read_metrics(self.metrics)

    @property
    def epochs_done(self) -> int:
        return max([row.epoch for row in self.read_metrics()], default=0)

    def note_environment(self, facts: dict[str, object]) -> None:
        """Add where the training is started, or gone on with, from which epoch on."""
        begins = {"from_epoch": 1 + self.epochs_done, **facts}
        write_atomically(self.environment, json.dumps([*self.read_environments(), begins], indent=1) + "\n")

    def read_environments(self) -> list[dict[str, object]]:
        """What `note_environment` has noted, first to last; empty for a run that has no such file, or a spoilt one."""
        try:
            noted = json.loads(self.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [facts for facts in noted if isinstance(facts, dict)] if isinstance(noted, list) else []

    def write_epoch(self, row: Metrics) -> Metrics:
        """Write what an epoch came to; this and later epochs of an interrupted run give way to it.

        Returns:
            The row as it is read back: rounded, and without what is not finite.
        """
        write_metrics(self.metrics, [*(old for old in self.read_metrics() if old.epoch < row.epoch), row])
        return self.read_metrics()[-1]


def newest_checkpoint() -> Path:
    """The best checkpoint of the newest run below runs/.

    Raises:
        UserError: There is none.
    """
    found = sorted(RUNS.glob("*/checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            f"there is no run below {RUNS}/ yet; train one with: python train.py --config configs/quickstart.yaml"
        )
    return found[-1]


def locate(
    config: Optional[str], checkpoint: Optional[str], overrides: list[str], distribute: bool = False
) -> tuple[Config, Path]:
    """The checkpoint to use (by default the newest run's best) and its configuration (by default its run's).

    Args:
        distribute: Refuse to look for the configuration in the checkpoint, which makes tensors: the processes of a job
            must have joined before (`src.distributed.join`).

    Raises:
        UserError: Either is missing or refused.
    """
    path = Path(checkpoint) if checkpoint else newest_checkpoint()
    if path.is_dir():
        raise UserError(f"checkpoint {path} is a folder; name a file with --ckpt FILE, such as checkpoints/best.ckpt")
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; name one with --ckpt FILE")
    run = RunFolder.of_checkpoint(path)
    if config or run:
        return load(config or run.config, overrides), path
    if distribute:
        raise UserError(f"--distribute: {path} is not in a run folder; name its configuration with --config FILE")
    text = read_checkpoint(path).config
    if text is None:
        raise UserError(f"checkpoint {path} holds no configuration; name one with --config FILE")
    return parse(text, f"the configuration in {path}", overrides), path


def _unused(name: str) -> Path:
    path, count = RUNS / name, 1
    while path.exists():
        count += 1
        path = RUNS / f"{name}-{count}"
    return path
