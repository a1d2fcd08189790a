"""What a training saves and restores, and when: best.ckpt, last.ckpt and the weights of epochs."""

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from src.config import Config
from src.errors import UserError
from src.runs import RunFolder
from src.training.state import TrainState
from src.weights.files import read_state, write_state, write_weights

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training has come.

    A later phase's top-1 counts as better than any of an earlier phase: the schedule at the end is the one to use.

    Attributes:
        epoch: Epochs done.
        best_phase, best_top1: The best top-1 (percent), and the phase it was reached in.
        skipped: Steps of the next epoch whose loss or gradients were not finite.
        losses: The losses of the steps done of the next epoch.
    """

    epoch: int = 0
    best_phase: int = 0
    best_top1: float = -1.0
    skipped: int = 0
    losses: tuple[float, ...] = ()


def save_state(run: RunFolder, config: Config, state: TrainState, progress: TrainingProgress) -> None:
    """Write last.ckpt; the one before becomes previous.ckpt.

    Raises:
        RunError: It cannot be written; what was there is still whole.
    """
    write_state(run.last, state.parameters(), asdict(progress), config, run.previous)


def restore_state(run: RunFolder, state: TrainState) -> TrainingProgress:
    """Set a state from last.ckpt, or from previous.ckpt where that is missing or damaged.

    Returns:
        How far that training had come; no progress if there is neither file.

    Raises:
        UserError: The files are unreadable or of another configuration.
    """
    found = [path for path in (run.last, run.previous) if path.exists()]
    if not found:
        return TrainingProgress()
    for path, other in zip(found, [*found[1:], None]):
        try:
            saved = read_state(path)
            break
        except UserError as damage:
            if other is None:
                raise
            log.warning("%s; resuming from %s instead", damage, other)
    parameters = state.parameters()
    shapes = {name: array.shape for name, array in saved.arrays.items()}
    differing = dict(shapes.items() ^ {name: tuple(p.shape) for name, p in parameters.items()}.items())
    if differing or "epoch" not in saved.progress:
        raise UserError(f"checkpoint {path} is not of this configuration: {', '.join(sorted(differing)) or 'no epoch'}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.asarray(saved.arrays[name]), parameter.dtype))
    given = saved.progress
    return TrainingProgress(
        int(given["epoch"]), int(given["best_phase"]), float(given["best_top1"]), int(given["skipped"]),
        tuple(given["losses"].tolist()) if "losses" in given else (),
    )  # fmt: skip


def save_best(run: RunFolder, config: Config, network: nn.Cell) -> None:
    """Write a network's weights as best.ckpt; the best ones before become best-2.ckpt and so on, to `run.keep_best`.

    Raises:
        RunError: It cannot be written; what was there is still whole.
    """
    files = [run.best, *(run.best.with_stem(f"best-{number}") for number in range(2, config.run.keep_best + 1))]
    for better, worse in reversed(list(zip(files, files[1:]))):
        if better.exists():
            _link(better, worse)
    save_weights(run.best, config, network)


def save_weights(path: Path, config: Config, network: nn.Cell) -> None:
    """Write a network's weights.

    Raises:
        RunError: They cannot be written; what was there is still whole.
    """
    write_weights(path, {weight.name: weight.value() for weight in network.get_parameters()}, config)


def _link(source: Path, target: Path) -> None:
    """Give a whole file a second name; `source` is later replaced by renaming, which leaves `target` as it is."""
    target.unlink(missing_ok=True)
    os.link(source, target)
