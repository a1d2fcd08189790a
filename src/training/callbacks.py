"""What a training tells others while it runs."""

from mindspore import nn

from src.runs import Metrics
from src.schedules import Phase


class Callback:
    """Receives the events of a training; this one ignores them all."""

    def on_start(self, epochs: int, steps: int) -> None:
        """Called before the first step, with the epochs and steps that were done before, of the whole run."""

    def on_step(self, step: int, loss: float) -> None:
        """Called now and then with a step, counted from 1 over the whole run, and its loss."""

    def on_epoch(self, phase: Phase, row: Metrics, network: nn.Cell) -> None:
        """Called after each epoch with its row of metrics.csv and the network that was evaluated."""
