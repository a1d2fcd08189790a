"""TensorBoard events of a run: metrics by epoch, the loss by step, and pictures of tokens now and then."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np
from mindspore import nn

from src.config import Config
from src.data.datasets import Dataset
from src.data.loaders import val_sample
from src.errors import short_message
from src.models import TokenTracer
from src.runs import Metrics, RunFolder
from src.schedules import Phase
from src.training.callbacks import Callback
from src.visuals.sheet import token_sheet

if TYPE_CHECKING:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

METRICS = ("loss", "lr", "top1", "top5", "img_s")
IMAGES = 6
EPOCHS_BETWEEN_PICTURES = 10

log = logging.getLogger("skipvit")


class TensorBoardCallback(Callback):
    """Write events to RUN/tensorboard by epoch and to RUN/tensorboard/steps by step, in a run's first process.

    Each point is on the disk before the checkpoint of its epoch. A resume may therefore repeat an epoch whose points
    are there; its new file of events begins by taking back all that comes after the checkpoint.
    """

    def __init__(self, config: Config, dataset: Dataset, run: RunFolder) -> None:
        self.data, self.classes, self.run = config.data, dataset.classes, run
        self.images, self.labels = val_sample(dataset, config, IMAGES)
        self.tracer: Optional[TokenTracer] = None

    def on_start(self, epochs: int, steps: int) -> None:
        folder = self.run.tensorboard
        rows = [] if folder.is_dir() else [row for row in self.run.read_metrics() if row.epoch <= epochs]
        self.epochs = _Events(folder, epochs + 1)
        self.steps = _Events(folder / "steps", steps + 1)
        for row in rows:
            self._write_metrics(row)

    def on_step(self, step: int, loss: float) -> None:
        from tensorboardX import summary

        with _forgiving():
            self.steps.write(step, summary.scalar("step_loss", loss))

    def on_epoch(self, phase: Phase, row: Metrics, network: nn.Cell) -> None:
        with _forgiving():
            self._write_metrics(row)
            due = row.epoch in (phase.first, phase.last) or row.epoch % EPOCHS_BETWEEN_PICTURES == 0
            if due and row.top1 is not None:
                self._write_picture(row.epoch, str(network.plan.schedule), network)

    def _write_metrics(self, row: Metrics) -> None:
        from tensorboardX import summary

        for metric in METRICS:
            value = getattr(row, metric)
            if value is not None:
                self.epochs.write(row.epoch, summary.scalar(metric, value))

    def _write_picture(self, epoch: int, tokens: str, network: nn.Cell) -> None:
        from tensorboardX import summary

        if self.tracer is None or self.tracer.network is not network:
            self.tracer = TokenTracer(network)  # of a new phase
        title, data = f"epoch {epoch}, {tokens}", self.data
        sheet = token_sheet(self.tracer, self.images, data.mean, data.std, title, self.classes, self.labels.tolist())
        self.epochs.write(epoch, summary.image("tokens", np.asarray(sheet), dataformats="HWC"))


class _Events:
    """Write a new file of events, which takes back those from step `first` on in the files before it.

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

    def _write(self, event: "Event") -> None:
        event.wall_time = time.time()
        self.writer.write_event(event)
        self.writer.flush()


@contextmanager
def _forgiving() -> Iterator[None]:
    """Turn an error into a warning: events are only to be looked at, and must not cost a training."""
    try:
        yield
    except Exception as error:
        log.warning("TensorBoard misses something: %s: %s", type(error).__name__, short_message(error))
