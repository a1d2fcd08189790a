"""What a training saves and restores, and when: best.ckpt, last.ckpt and the weights of epochs."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

import numpy as np
from mindspore import Tensor, nn

from src.config import Config
from src.errors import UserError, first_few
from src.files import link
from src.runs import RunFolder
from src.training.state import TrainState
from src.weights.files import OPTIMIZER, read_state, read_weights, write_state, write_weights

STEPS_DONE = f"{OPTIMIZER}global_step"  # fewer than those of the progress where some were skipped
MOST_COUNTED = 10**9  # epochs, as the configuration

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
    write_state(run.last, state.parameters(), asdict(progress), config, run.previous, run.read_classes())


def restore_state(run: RunFolder, state: TrainState, steps: int) -> TrainingProgress:
    """Set a state from last.ckpt, or from previous.ckpt where that is missing or damaged.

    Args:
        steps: Of an epoch.

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
                raise UserError(f"{_what(damage)}; start a new run (best.ckpt can still be evaluated)") from damage
            log.warning("%s; resuming from %s", _what(damage), other)
    parameters = state.parameters()
    forms = {name: (array.shape, array.dtype.kind) for name, array in saved.arrays.items()}
    expected = {name: (tuple(p.shape), p.asnumpy().dtype.kind) for name, p in parameters.items()}
    differing = sorted(dict(forms.items() ^ expected.items()))
    if differing:
        raise UserError(f"checkpoint {path} is not of this configuration: {first_few(differing)}")
    if saved.classes and saved.classes != run.read_classes():
        raise UserError(
            f"checkpoint {path} is of other classes than {run.classes} lists; put the run's own in its place"
        )
    progress = _read_progress(saved.progress, path)
    done, told = int(saved.arrays[STEPS_DONE]), progress.epoch * steps + len(progress.losses)
    if len(progress.losses) > steps or done > told:
        raise UserError(f"checkpoint {path} is not of this run: it has done {done} steps, and tells of {told}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.asarray(saved.arrays[name]), parameter.dtype))
    return progress


def _what(error: UserError) -> str:
    """Return a message without its last part, the remedy."""
    return str(error).rpartition("; ")[0] or str(error)


def _read_progress(saved: Mapping[str, np.ndarray], path: Path) -> TrainingProgress:
    """Return the progress that a state holds.

    Raises:
        UserError: It holds another one than `save_state` writes.
    """
    losses = saved.get("losses", np.zeros(0))
    counts = {name: saved.get(name, np.zeros(0)) for name in ("epoch", "best_phase", "skipped", "best_top1")}
    refused = [
        name
        for name, value in counts.items()
        if value.shape != () or not -1 <= value <= MOST_COUNTED or (name != "best_top1" and value != abs(value.round()))
    ]
    if refused or losses.ndim != 1 or losses.dtype != np.float64 or saved.keys() - {*counts, "losses"}:
        raise UserError(
            f"checkpoint {path} is not of a training: its progress is not ({first_few(refused or ['losses'])})"
        )
    epoch, best_phase, skipped = (int(counts[name]) for name in ("epoch", "best_phase", "skipped"))
    return TrainingProgress(epoch, best_phase, float(counts["best_top1"]), skipped, tuple(losses.tolist()))


def save_best(run: RunFolder, config: Config, network: nn.Cell, epoch: int) -> None:
    """Write a network's weights as best.ckpt; the best ones before become best-2.ckpt and so on, to `run.keep_best`.

    A run that was killed while it did so repeats the epoch, and none of the best is kept twice or lost for it.

    Raises:
        RunError: It cannot be written; what was there is still whole.
    """
    files = [run.best, *(run.best.with_stem(f"best-{number}") for number in range(2, config.run.keep_best + 1))]
    before: dict[Optional[int], Path] = {}
    if len(files) > 1:
        for file in filter(Path.exists, files):
            before.setdefault(_epoch_of(file), file)
        before.pop(epoch, None)
    for better, worse in reversed(list(zip(before.values(), files[1:]))):
        if better != worse:
            link(better, worse)
    save_weights(run.best, config, network, epoch)


def _epoch_of(file: Path) -> Optional[int]:
    try:
        return read_weights(file).epoch
    except UserError:  # damaged
        return None


def save_weights(path: Path, config: Config, network: nn.Cell, epoch: int = 0) -> None:
    """Write a network's weights after an epoch, with the names of its run's classes.

    Raises:
        RunError: They cannot be written; what was there is still whole.
    """
    run = RunFolder.of_checkpoint(path)
    weights = {weight.name: weight.value() for weight in network.get_parameters()}
    write_weights(path, weights, config, run.read_classes() if run else (), epoch)
