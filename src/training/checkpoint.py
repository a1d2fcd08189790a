"""Checkpoints: best.ckpt holds a network's weights, last.ckpt all the state of a training.

Names in last.ckpt start with what they belong to: `network.`, `optimizer.`, `ema.`, `scaler.`, `reached.` (and
`ema_steps`). Every file holds the resolved configuration too, as `config`, and carries MindSpore's checksum; one that
takes another's place is whole before it does.
"""

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.config import Config, dump
from src.errors import FailureError, UserError, first_line
from src.training.run_folder import RunFolder
from src.training.state import State
from src.weights import CONFIG, read

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class Reached:
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


def save_state(run: RunFolder, config: Config, state: State, reached: Reached) -> None:
    """Write last.ckpt; the one before becomes previous.ckpt.

    Raises:
        FailureError: It cannot be written; what was there is still whole.
    """
    arrays = {name: parameter.value() for name, parameter in state.parameters().items()}
    for name, value in asdict(reached).items():
        if value != ():  # MindSpore saves no empty tensor
            arrays[f"reached.{name}"] = Tensor(np.array(value, np.float64))
    _save(run.last, arrays, config, before=run.previous)


def restore_state(run: RunFolder, state: State) -> Reached:
    """Set a state from last.ckpt, or, where that is missing or damaged, from previous.ckpt.

    Returns:
        How far that training had come; its very beginning, if there is neither file.

    Raises:
        UserError: The files are unreadable or of another configuration.
    """
    found = [path for path in (run.last, run.previous) if path.exists()]
    if not found:
        return Reached()
    for path, other in zip(found, [*found[1:], None]):
        try:
            arrays = read(path)
            break
        except UserError as damage:
            if other is None:
                raise
            log.warning("%s; going on from %s instead", damage, other)
    arrays.pop(CONFIG, None)
    given = {name: arrays.pop(f"reached.{name}", None) for name in asdict(Reached())}
    parameters = state.parameters()
    shapes = {name: array.shape for name, array in arrays.items()}
    differing = dict(shapes.items() ^ {name: tuple(p.shape) for name, p in parameters.items()}.items())
    if differing or given["epoch"] is None:
        raise UserError(f"checkpoint {path} is not of this configuration: {', '.join(sorted(differing)) or 'no epoch'}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.asarray(arrays[name]), parameter.dtype))
    losses = () if given["losses"] is None else tuple(given["losses"].tolist())
    return Reached(
        int(given["epoch"]), int(given["best_phase"]), float(given["best_top1"]), int(given["skipped"]), losses
    )


def save_best(run: RunFolder, config: Config, network: nn.Cell) -> None:
    """Write a network's weights as best.ckpt; the best ones before become best-2.ckpt and so on, to `run.keep_best`.

    Raises:
        FailureError: It cannot be written; what was there is still whole.
    """
    places = [run.best, *(run.best.with_stem(f"best-{number}") for number in range(2, config.run.keep_best + 1))]
    for place, worse in reversed(list(zip(places, places[1:]))):
        if place.exists():
            _copy(place, worse)
    save_network(run.best, config, network)


def save_network(path: Path, config: Config, network: nn.Cell) -> None:
    """Write a network's weights, by the names that they have outside an average."""
    _save(path, {weight.name.removeprefix("ema."): weight.value() for weight in network.get_parameters()}, config)


def _copy(source: Path, target: Path) -> None:
    """A second name for a whole file; the first one's place is taken by renaming, which leaves this one alone."""
    target.unlink(missing_ok=True)
    os.link(source, target)


def _save(path: Path, arrays: dict[str, Tensor], config: Config, before: Optional[Path] = None) -> None:
    """Write beside the file's place, then move it there: what was saved before stays whole until then."""
    partial = path.with_name(f"{path.stem}.partial.ckpt")
    arrays = {**arrays, CONFIG: Tensor(np.frombuffer(dump(config).encode(), np.uint8))}
    try:
        ms.save_checkpoint(
            [{"name": name, "data": data} for name, data in arrays.items()], str(partial), crc_check=True
        )
        partial.chmod(0o644)  # MindSpore's are for their owner only
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        if before is not None and path.exists():
            path.replace(before)
        partial.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise FailureError(f"checkpoint {path} cannot be written: {reason}; what was saved before is whole") from error
    finally:
        for rest in path.parent.glob(f"{path.stem}.partial*"):  # MindSpore's own temporary file too
            rest.unlink()


def _sync_folder(folder: Path) -> None:
    """Have the new names on the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
