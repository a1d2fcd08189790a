"""A run folder on a file system that fails at some call, and what must hold afterwards."""

import builtins
import contextlib
import dataclasses
import errno
import fcntl
import io
import itertools
import os
from pathlib import Path
from unittest.mock import patch

from src import cli
from src.config import Config, RunConfig
from src.models import from_config
from src.runs import Metrics, RunFolder
from src.training.checkpoint import TrainingProgress, restore_state, save_best, save_state
from src.training.state import create_train_state
from src.weights.files import read_weights
from tests.helpers import hostile

PRIMITIVES = {
    "fsync": (os, "fsync"), "replace": (os, "replace"), "rename": (os, "rename"), "link": (os, "link"),
    "chmod": (os, "chmod"), "unlink": (os, "unlink"), "mkdir": (os, "mkdir"), "flock": (fcntl, "flock"),
    "open": (io, "open"), "MindSpore's open": (builtins, "open"), "os.open": (os, "open"),
}  # fmt: skip
ERRORS = (errno.ENOSPC, errno.EIO, errno.EPERM, errno.ENOSYS)


@contextlib.contextmanager
def failing(primitive, number, call, folder):
    """Have a primitive fail once, at its `call`th call, counted from 1, on what lies in the folder; 0: count only.

    Yields:
        The calls so far.
    """
    owner, name = PRIMITIVES[primitive]
    original, calls = getattr(owner, name), []

    def fail(*given, **named):
        path = given[0] if isinstance(given[0], (str, os.PathLike)) else None
        if path is None or str(path).startswith(str(folder)):
            calls.append(given)
            if len(calls) == call:
                raise OSError(number, os.strerror(number), path)
        return original(*given, **named)

    with patch.object(owner, name, fail):
        yield calls


def check_each_call(write, folder, stays, check, more_than):
    """Have each call that touches the folder fail while it is written to, in one of four ways, one after the other.

    Whatever is raised is known, which means one line; `check()` holds, and nothing but the files `stays` is left.

    Args:
        more_than: So many calls would be too few.
    """
    calls = {}
    for primitive in PRIMITIVES:
        with failing(primitive, 0, 0, folder) as counted:
            write()
        calls[primitive] = len(counted)
    assert sum(calls.values()) > more_than
    errors = itertools.cycle(ERRORS)
    for primitive, count in calls.items():
        for call in range(1, count + 1):
            with failing(primitive, next(errors), call, folder):
                try:
                    write()
                except Exception as error:
                    assert cli.as_known(error), f"{primitive}, call {call}: {error!r}"
            check()
            left = {path.name for path in folder.iterdir()} - stays
            assert not left or primitive == "unlink", f"{primitive}, call {call}: {left}"


def every_fault(folder):
    """Return every primitive, error, operation and call at which it may fail, by counting the calls once."""
    found = []
    for number, (primitive, operation) in enumerate(itertools.product(PRIMITIVES, OPERATIONS)):
        bench = Bench(folder / str(number))
        with failing(primitive, 0, 0, bench.folder) as calls:
            OPERATIONS[operation](bench)
        found += itertools.product([primitive], ERRORS, [operation], range(1, len(calls) + 1))
    return found


class Bench:
    """A run of one epoch, whose next epoch is saved while the file system fails."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run = RunConfig(dir=str(folder / "run"), keep_best=3)
        self.config = dataclasses.replace(Config(), model=hostile.MODEL, run=run)
        self.network = from_config(hostile.MODEL)
        self.state = create_train_state(self.config, lambda: from_config(hostile.MODEL), [0.1])
        self.make()
        self.save(1)

    def make(self) -> None:
        self.run = RunFolder.create(self.config, "run", ["ant", "bee", "cat"])

    def save(self, epoch: int) -> None:
        """Save an epoch as the trainer does."""
        with self.run.lock():
            save_best(self.run, self.config, self.network, epoch)
            self.run.write_epoch(Metrics(epoch, 1, "none", loss=1.0))
            save_state(self.run, self.config, self.state, TrainingProgress(epoch))

    def make_another(self) -> None:
        other = dataclasses.replace(self.config, run=dataclasses.replace(self.config.run, dir=f"{self.folder}/other"))
        RunFolder.create(other, "other", ["ant"])

    def check_nothing_is_lost(self, epochs: tuple[int, ...]) -> None:
        """All state is of one of the epochs, whole."""
        assert restore_state(self.run, self.state, 1).epoch in epochs
        assert read_weights(self.run.best).epoch in epochs
        assert self.run.epochs_done in epochs
        assert self.run.read_classes() == ("ant", "bee", "cat")

    def check_all_is_well_again(self) -> None:
        """The file system is mended: the epoch is saved, the other run made, and no torn file is left."""
        self.save(2)
        self.check_nothing_is_lost((2,))
        with contextlib.suppress(ValueError):  # made already
            self.make_another()
        with RunFolder(self.folder / "other").lock(), self.run.lock():
            left = [path.name for path in self.folder.rglob("*.partial*")]
        assert not left, left


OPERATIONS = {"save": lambda bench: bench.save(2), "make": Bench.make_another}
