"""Checkpoints: best.ckpt holds a network's weights, last.ckpt all the state of a training.

Names in last.ckpt start with what they belong to: `network.`, `optimizer.`, `ema.`, `scaler.`, `reached.` (and
`ema_steps`).
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.errors import UserError
from src.training.state import State
from src.weights import read


@dataclass(frozen=True)
class Reached:
    """How far a training has come: epochs done, and the best top-1 (percent) with the phase it was reached in.

    A later phase's top-1 counts as better than any of an earlier phase: the schedule at the end is the one to use.
    """

    epoch: int = 0
    best_phase: int = 0
    best_top1: float = -1.0


def save_state(path: Path, state: State, reached: Reached) -> None:
    """Write last.ckpt."""
    arrays = {name: parameter.value() for name, parameter in state.parameters().items()}
    for name, value in asdict(reached).items():
        arrays[f"reached.{name}"] = Tensor(value, ms.float64)
    _save(path, arrays)


def restore_state(path: Path, state: State) -> Reached:
    """Set a state from last.ckpt.

    Raises:
        UserError: The file is missing, unreadable or of another configuration.
    """
    arrays = read(path)
    reached = {name: arrays.pop(f"reached.{name}", None) for name in asdict(Reached())}
    parameters = state.parameters()
    shapes = {name: array.shape for name, array in arrays.items()}
    differing = dict(shapes.items() ^ {name: tuple(p.shape) for name, p in parameters.items()}.items())
    if differing or any(value is None for value in reached.values()):
        raise UserError(f"checkpoint {path} is not of this configuration: {', '.join(sorted(differing)) or 'no epoch'}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.asarray(arrays[name]), parameter.dtype))
    return Reached(int(reached["epoch"]), int(reached["best_phase"]), float(reached["best_top1"]))


def save_network(path: Path, network: nn.Cell) -> None:
    """Write a network's weights, by the names that they have outside an average."""
    _save(path, {weight.name.removeprefix("ema."): weight.value() for weight in network.get_parameters()})


def _save(path: Path, arrays: dict[str, Tensor]) -> None:
    """Write beside the file's place, then move it there: what was saved before stays whole until then."""
    partial = path.with_name(f"{path.stem}.partial.ckpt")
    ms.save_checkpoint([{"name": name, "data": data} for name, data in arrays.items()], str(partial))
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
