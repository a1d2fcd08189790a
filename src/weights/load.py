"""Load checkpoints into networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from src.config import Config, with_classes
from src.errors import UserError, first_few
from src.schedules import Geometry
from src.weights.files import read_arrays, read_weights
from src.weights.timm import from_timm

if TYPE_CHECKING:
    from mindspore import nn


MOST_TIMES_LARGER = 16


@dataclass(frozen=True)
class Checkpoint:
    """The weights to evaluate in a checkpoint of this project, or in a file with timm's names.

    Attributes:
        arrays: The network's weights by our names; of a training's state the averaged ones (EMA), where it holds any.
        config: The resolved configuration, as YAML, of the training that wrote it; None if the file holds none.
        classes: The names of the outputs; none if the file holds none.
    """

    path: Path
    arrays: dict[str, np.ndarray]
    config: Optional[str]
    classes: tuple[str, ...] = ()

    def fill_in(self, config: Config) -> Config:
        """Fill in the number of classes from the classifier, where the configuration leaves it open.

        Raises:
            UserError: There is no classifier, or the configuration is of a network so much larger that it is not worth
                building.
        """
        head = self.arrays.get("head.weight")
        if head is None or head.ndim != 2:
            raise UserError(f"checkpoint {self.path} does not fit the model; missing: head.weight")
        config = with_classes(config, len(head))
        needed, given = Geometry.from_config(config.model).parameters, sum(array.size for array in self.arrays.values())
        if needed > MOST_TIMES_LARGER * given:
            raise UserError(
                f"checkpoint {self.path} does not fit the model: it has {given:,} weights for {needed:,} parameters"
            )
        return config

    def load_into(self, net: "nn.Cell") -> None:
        """Set a network's weights.

        Raises:
            UserError: Names are missing, extra or misshapen.
        """
        assign(net, self.arrays, self.path)


def read_checkpoint(path: Union[str, Path]) -> Checkpoint:
    """Read a checkpoint's weights and configuration.

    Raises:
        UserError: The file is missing or unreadable.
    """
    saved = read_weights(path)
    return Checkpoint(Path(path), from_timm(saved.arrays), saved.config, saved.classes)


def load_timm(net: "nn.Cell", path: Union[str, Path]) -> None:
    """Load a timm/DeiT safetensors file, or a MindSpore checkpoint with timm's names, into a network.

    Raises:
        UserError: The file is missing or unreadable, or names are missing, extra or misshapen.
    """
    assign(net, from_timm(read_arrays(path)), path)


def assign(net: "nn.Cell", arrays: Mapping[str, np.ndarray], path: Union[str, Path]) -> None:
    """Set every parameter of a network from arrays of the same names and shapes.

    Raises:
        UserError: Names are missing, extra, misshapen or no floats; nothing was changed.
    """
    from mindspore import Tensor

    parameters = {parameter.name: parameter for parameter in net.get_parameters()}
    missing = sorted(parameters.keys() - arrays.keys())
    extra = sorted(arrays.keys() - parameters.keys())
    misshapen = [
        f"{name} {list(arrays[name].shape)} for {list(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in arrays and arrays[name].shape != tuple(parameter.shape)
    ]
    mistyped = [f"{name} {array.dtype}" for name, array in arrays.items() if array.dtype.kind != "f"]
    kinds = {"missing": missing, "extra": extra, "other shape": misshapen, "no float": mistyped}
    problems = [f"{kind}: {first_few(names)}" for kind, names in kinds.items() if names]
    if problems:
        raise UserError(f"checkpoint {path} does not fit the model; {'; '.join(problems)}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(arrays[name], parameter.dtype))
