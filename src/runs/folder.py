"""The run folder.

config.yaml      the resolved configuration
classes.txt      class names, in the order of the outputs
bad_images.txt   images that were left out, and why, if there are any
init.json        the weights that the training started from, and what of them was not taken as it is (`train.init`)
oracle.json      the network that ranked tokens in training, and what that cost (`train.oracle`)
teacher.json     the network that predictors were taught by, and what that cost (`predictor.teacher`)
images.json      number and names of the images, those left out, and the processes (src/runs/images.py)
phases.md        the phases: epochs, schedule, image size, multiply-accumulates, and what the whole run gains by them
metrics.csv      a row an epoch
train.log        the training's log
environment.json hardware, versions and the code's commit, of each start of the training
report.html      the run as a page (`train.report`, or `python -m src.tools.report`)
tensorboard/     events for TensorBoard (`train.tensorboard`)
checkpoints/     last.ckpt (all that a resume needs), previous.ckpt (the one before), best.ckpt (the weights to use),
                 epoch-0010.ckpt and so on (the weights of epochs, if `run.save_every_epochs` asks for them)
lock             held by the process that trains in the folder
"""

import contextlib
import itertools
import json
import logging
import os
import re
import shlex
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional, Union

from src.config import Config, dump
from src.errors import UserError, first_few
from src.files import PARTIAL, lock, make_folder, write_text
from src.runs.metrics import Metrics, read_metrics, write_metrics

RUNS = Path("runs")

log = logging.getLogger("skipvit")


class RunFolder:
    """Paths of a run, and its rows of metrics."""

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.classes = self.path / "classes.txt"
        self.bad_images = self.path / "bad_images.txt"
        self.images = self.path / "images.json"
        self.init = self.path / "init.json"
        self.phases = self.path / "phases.md"
        self.metrics = self.path / "metrics.csv"
        self.log = self.path / "train.log"
        self.environment = self.path / "environment.json"
        self.report = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"
        self._lock = self.path / "lock"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.previous = self.path / "checkpoints" / "previous.ckpt"
        self.best = self.path / "checkpoints" / "best.ckpt"

    @classmethod
    def create(cls, config: Config, name: str, classes: Sequence[str]) -> "RunFolder":
        """Make the folder `run.dir`, or runs/NAME-DATE-TIME.

        Raises:
            UserError: The folder holds a run already, or cannot be made.
        """
        run = cls(config.run.dir or _make_unused(f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"))
        run.check_unused()
        make_folder(run.path, "run.dir")
        with run.lock():
            run.check_unused()  # once more: another process may have been first
            make_folder(run.last.parent, "run.dir")
            write_text(run.classes, "".join(f"{name}\n" for name in classes))
            write_metrics(run.metrics, [])
            write_text(run.config, dump(config))  # last: this makes it a run
        return run

    @classmethod
    def check_place(cls, config: Config) -> None:
        """Refuse a configuration whose run could not be made; nothing is made.

        Raises:
            UserError: As `check_unused`, or `run.dir` is null and runs/ cannot be written.
        """
        if config.run.dir is None:
            _check_rights(RUNS)
        else:
            cls(config.run.dir).check_unused()

    def check_unused(self) -> None:
        """Refuse a folder that cannot become a new run's; nothing is made.

        Raises:
            UserError: It holds a run already or anything else, a file stands where a folder is needed, or this user may
                not write there.
        """
        if self.config.exists():
            raise UserError(
                f"run.dir {self.path} holds a run already; resume it with --resume {shlex.quote(str(self.path))}, or"
                " name another folder"
            )
        for parent in (self.path, *self.path.parents):
            if parent.exists() and not parent.is_dir():
                raise UserError(f"run.dir {self.path} cannot be made: Not a directory; name another folder")
        _check_rights(self.path)
        if self.path.is_dir():
            ours = {self.last.parent.name, self.classes.name, self.metrics.name, self._lock.name}
            others = sorted(name for name in os.listdir(self.path) if name not in ours and ".partial" not in name)
            if others:
                raise UserError(
                    f"run.dir {self.path} holds other files ({first_few(others)}); name a new or an empty folder"
                )

    @classmethod
    def open(cls, path: Union[str, Path]) -> "RunFolder":
        """Open an existing run.

        Raises:
            UserError: The folder holds no run.
        """
        run = cls(path)
        if not run.config.is_file():
            raise UserError(f"run folder {path} holds no config.yaml; name the folder that train.py printed")
        return run

    @property
    def name(self) -> str:
        """The path below runs/; elsewhere the folder's name."""
        path, runs = self.path.absolute(), RUNS.absolute()
        return str(path.relative_to(runs)) if runs in path.parents else path.name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder against other processes while the block runs; the system unlocks it if this one dies.

        Raises:
            UserError: Another process trains in it.
        """
        with self._lock.open("a+", encoding="utf-8", errors="replace") as file:
            locked = lock(file)
            if locked is False:
                file.seek(0)
                holder = file.read(200).strip() or "another process"
                raise UserError(f"run folder {self.path} is in use by {holder}; wait for it")
            if locked is None:
                log.warning("%s: this file system has no locks; see that no other process trains in it", self.path)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            for partial in [*self.path.glob(PARTIAL), *self.last.parent.glob(PARTIAL)]:
                partial.unlink()  # of a process that was killed while it wrote
            yield

    def asked(self, key: str) -> Path:
        """Return the file that tells of a frozen network by the key that names it: oracle.json or teacher.json."""
        return self.path / f"{key.rpartition('.')[2]}.json"

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> Optional["RunFolder"]:
        """Return the run that a checkpoint lies in, if it lies in one."""
        run = cls(checkpoint.parent.parent)
        return run if checkpoint.parent.name == "checkpoints" and run.config.is_file() else None

    def epoch(self, number: int) -> Path:
        """Return the file for the weights of an epoch, counted from 1."""
        return self.best.with_name(f"epoch-{number:04d}.ckpt")

    def kept_epochs(self) -> dict[int, Path]:
        """Return the epochs whose weights are kept, ascending, and their checkpoints."""
        found = [(re.fullmatch(r"epoch-(\d+)", path.stem), path) for path in self.best.parent.glob("epoch-*.ckpt")]
        return dict(sorted((int(match[1]), path) for match, path in found if match))

    def read_classes(self) -> tuple[str, ...]:
        """Read the class names; none if there is no classes.txt."""
        return tuple(self.classes.read_text(encoding="utf-8").splitlines()) if self.classes.is_file() else ()

    def check_weights(self, key: str, noted: Path, digest: str) -> None:
        """Refuse other weights than those that the run was started with.

        Args:
            key: What names them in the configuration.
            noted: The run's file that tells of them.
            digest: SHA-256 of the weights' file.

        Raises:
            UserError: It tells of another file.
        """
        if noted.is_file() and digest not in noted.read_text(encoding="utf-8"):
            raise UserError(
                f"{key} is another file than the run {self.path} was started with, whose SHA-256 is in {noted.name};"
                " put that file in its place, or start a new run"
            )

    def read_metrics(self) -> list[Metrics]:
        """Read the rows of the epochs done.

        Raises:
            UserError: metrics.csv is not as it was written.
        """
        return read_metrics(self.metrics)

    @property
    def epochs_done(self) -> int:
        return max([row.epoch for row in self.read_metrics()], default=0)

    def add_environment(self, facts: dict[str, object]) -> None:
        """Record the environment of a start or a resume, and the epoch that it begins with."""
        begins = {"from_epoch": 1 + self.epochs_done, **facts}
        write_text(self.environment, json.dumps([*self.read_environments(), begins], indent=1) + "\n")

    def read_environments(self) -> list[dict[str, object]]:
        """Read what `add_environment` recorded, first to last; none if the file is missing or spoilt."""
        try:
            noted = json.loads(self.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [facts for facts in noted if isinstance(facts, dict)] if isinstance(noted, list) else []

    def write_epoch(self, row: Metrics) -> Metrics:
        """Write an epoch's row in place of this and later epochs of an interrupted run.

        Returns:
            The row as it is read back: rounded, and without what is not finite.
        """
        write_metrics(self.metrics, [*(old for old in self.read_metrics() if old.epoch < row.epoch), row])
        return self.read_metrics()[-1]


def _check_rights(path: Path) -> None:
    """Refuse a folder that this user may not write to, or not make.

    Raises:
        UserError: It is one.
    """
    place = next((folder for folder in (path, *path.absolute().parents) if folder.is_dir()), Path("/"))
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"run.dir {path}: this user may not write to {place}; name another folder with run.dir=FOLDER")


def _make_unused(name: str) -> Path:
    """Make a folder below runs/ that no other process makes."""
    make_folder(RUNS, "the folder")
    for count in itertools.count(1):
        path = RUNS / (name if count == 1 else f"{name}-{count}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            break
    return path
