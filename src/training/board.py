"""TensorBoard's events of a run: metrics by epoch, the loss by step, and now and then pictures of tokens."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from mindspore import nn

from src.config import Config
from src.data import val_sample
from src.distributed import Group
from src.errors import first_line
from src.models import Tracer
from src.sources import Source
from src.training.metrics import Metrics
from src.training.phases import Phase
from src.training.run_folder import RunFolder

if TYPE_CHECKING:
    from tensorboardX.proto.summary_pb2 import Summary

METRICS = ("loss", "lr", "top1", "top5", "img_s")
IMAGES = 6
EPOCHS_BETWEEN_PICTURES = 10

log = logging.getLogger("skipvit")


class Board:
    """What a training shows while it runs; this one shows nothing."""

    def note_step(self, step: int, loss: float) -> None:
        """Show the loss of a step, counted from 1 over the whole run."""

    def note_epoch(self, phase: Phase, row: Metrics, network: nn.Cell) -> None:
        """Show an epoch's row of metrics.csv, and some epochs' tokens in the network that was evaluated."""


class TensorBoard(Board):
    """Events in RUN/tensorboard by epoch, and in RUN/tensorboard/steps by step, of a run's first process.

    Each point is on the disk before the checkpoint of its epoch. So a resume may do an epoch again whose points are
    there, but a new file of events begins by taking back all that comes after the checkpoint.

    Args:
        epoch, step: How far the training has come.
    """

    def __init__(self, config: Config, source: Source, run: RunFolder, epoch: int, step: int) -> None:
        self.data, self.classes = config.data, source.classes
        rows = [row for row in run.read_metrics() if row.epoch <= epoch]
        if run.tensorboard.is_dir():
            rows = []  # they are shown already
        self.epochs = _Events(run.tensorboard, epoch + 1)
        self.steps = _Events(run.tensorboard / "steps", step + 1)
        for row in rows:
            self._note_metrics(row)
        self.tracer: Optional[Tracer] = None
        self.images, self.labels = val_sample(source, config, IMAGES)

    def note_step(self, step: int, loss: float) -> None:
        from tensorboardX import summary

        with _forgiving():
            self.steps.write(step, summary.scalar("step_loss", loss))

    def note_epoch(self, phase: Phase, row: Metrics, network: nn.Cell) -> None:
        with _forgiving():
            self._note_metrics(row)
            due = row.epoch in (phase.first, phase.last) or row.epoch % EPOCHS_BETWEEN_PICTURES == 0
            if due and row.top1 is not None:
                self._note_picture(row.epoch, phase.tokens, network)

    def _note_metrics(self, row: Metrics) -> None:
        from tensorboardX import summary

        for metric in METRICS:
            value = getattr(row, metric)
            if value is not None:
                self.epochs.write(row.epoch, summary.scalar(metric, value))

    def _note_picture(self, epoch: int, tokens: str, network: nn.Cell) -> None:
        import numpy as np
        from tensorboardX import summary

        from src.pictures import token_sheet

        if self.tracer is None or self.tracer.network is not network:
            self.tracer = Tracer(network)  # of a new phase
        title, data = f"epoch {epoch}, {tokens}", self.data
        sheet = token_sheet(self.tracer, self.images, data.mean, data.std, title, self.classes, self.labels.tolist())
        self.epochs.write(epoch, summary.image("tokens", np.asarray(sheet.convert("RGB")), dataformats="HWC"))


class _Events:
    """A new file of events, which takes back those from step `first` on in the files before it.

    tensorboardX's SummaryWriter leaves writing to a thread, so that a run that is killed loses minutes of points; its
    EventsWriter writes at once.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(exist_ok=True)
        before = len(list(folder.glob("events.*")))
        self.writer = EventsWriter(str(folder / "events"), f".{before}")  # two of one second differ in the suffix
        if before:
            self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, summary: "Summary") -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._write(Event(step=step, summary=summary))

    def _write(self, event: "Event") -> None:  # noqa: F821
        event.wall_time = time.time()
        self.writer.write_event(event)
        self.writer.flush()


@contextmanager
def _forgiving() -> Iterator[None]:
    """What is only to be looked at must not cost a training."""
    try:
        yield
    except Exception as error:
        log.warning("TensorBoard misses something: %s: %s", type(error).__name__, first_line(error))


def open_board(config: Config, source: Source, run: RunFolder, group: Group, epoch: int, step: int) -> Board:
    """The board of a run that has come to an epoch and a step, both counted over the whole run; only one process's."""
    return TensorBoard(config, source, run, epoch, step) if config.train.tensorboard and group.leads else Board()
