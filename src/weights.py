"""timm/DeiT parameter names ↔ ours, and checkpoints into networks.

Ours are timm's, but for LayerNorm (gamma, beta for weight, bias) and the patch embedding, whose kernel
[C, I, P, P] is kept as the matrix [C, I·P·P].
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from safetensors import SafetensorError
from safetensors.numpy import load_file

from src.config import Config, with_classes
from src.errors import UserError, first_line

_NORM = re.compile(r"(^|\.)(norm|norm1|norm2)\.(weight|bias)$")
CONFIG = "config"  # a checkpoint's entry that is no weight: the configuration, as the bytes of its YAML
_NORM_NAMES = {"weight": "gamma", "bias": "beta"}


@dataclass(frozen=True)
class Checkpoint:
    """What there is to evaluate in a checkpoint of this project, or in a file with timm's names.

    Attributes:
        arrays: The network's weights by our names; of a training's state the averaged ones (EMA), where it holds any.
        config: The resolved configuration, as YAML, of the training that wrote it; None if there is none in it.
    """

    path: Path
    arrays: dict[str, np.ndarray]
    config: Optional[str]

    def fill_in(self, config: Config) -> Config:
        """The configuration with as many classes as the classifier has outputs, where it leaves that open.

        Raises:
            UserError: There is no classifier.
        """
        head = self.arrays.get("head.weight")
        if head is None:
            raise UserError(f"checkpoint {self.path} does not fit the model; missing: head.weight")
        return with_classes(config, len(head))

    def load_into(self, net: nn.Cell) -> None:
        """Set a network's weights.

        Raises:
            UserError: Names are missing, extra or misshapen (all are listed).
        """
        assign(net, self.arrays, self.path)


def read_checkpoint(path: Union[str, Path]) -> Checkpoint:
    """Read a checkpoint's weights and configuration.

    Raises:
        UserError: The file is missing or unreadable.
    """
    held = read(path)
    arrays = network_weights(held)
    config = held[CONFIG].tobytes().decode() if CONFIG in held else None
    return Checkpoint(Path(path), _from_timm(arrays) if "norm.weight" in arrays else arrays, config)


def load_timm(net: nn.Cell, path: Union[str, Path]) -> None:
    """Load a timm/DeiT safetensors file, or a MindSpore checkpoint with timm's names, into a network.

    Raises:
        UserError: The file is missing or unreadable, or names are missing, extra or misshapen (all are listed).
    """
    assign(net, _from_timm(read(path)), path)


def _from_timm(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed = {_NORM.sub(lambda m: f"{m[1]}{m[2]}.{_NORM_NAMES[m[3]]}", name): a for name, a in arrays.items()}
    kernel = renamed.get("patch_embed.proj.weight")
    if kernel is not None:
        renamed["patch_embed.proj.weight"] = kernel.reshape(len(kernel), -1)
    return renamed


def network_weights(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights to evaluate among all that a checkpoint holds (see `src.training.checkpoint`)."""
    arrays = {name: array for name, array in arrays.items() if name != CONFIG}
    for prefix in ("ema.", "network."):
        chosen = {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}
        if chosen:
            return chosen
    return arrays


def read(path: Union[str, Path]) -> dict[str, np.ndarray]:
    """Names and arrays of a safetensors file or a MindSpore checkpoint.

    Raises:
        UserError: The file is missing or is neither.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; name one with --ckpt FILE")
    if path.suffix not in (".ckpt", ".safetensors"):
        raise UserError(f"checkpoint {path} must end in .ckpt or .safetensors")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        logging.disable(logging.CRITICAL)  # of what MindSpore writes: below it is said in one line
        return {name: value.asnumpy() for name, value in ms.load_checkpoint(str(path), crc_check=True).items()}
    except (SafetensorError, ValueError, TypeError, RuntimeError, OSError) as error:
        what = "" if path.suffix == ".ckpt" else f": {first_line(error)}"  # MindSpore suspects permissions, or a prefix
        raise UserError(f"checkpoint {path} is damaged, or no checkpoint{what}; use another file") from error
    finally:
        logging.disable(logging.NOTSET)


def assign(net: nn.Cell, arrays: dict[str, np.ndarray], path: Union[str, Path]) -> None:
    """Set every parameter of a network from arrays of the same names and shapes.

    Raises:
        UserError: Names are missing, extra or misshapen; nothing was changed.
    """
    parameters: dict[str, Parameter] = {parameter.name: parameter for parameter in net.get_parameters()}
    missing = sorted(parameters.keys() - arrays.keys())
    extra = sorted(arrays.keys() - parameters.keys())
    misshapen = [
        f"{name} {list(arrays[name].shape)} for {list(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in arrays and arrays[name].shape != tuple(parameter.shape)
    ]
    problems = [
        f"{kind}: {', '.join(names)}"
        for kind, names in (("missing", missing), ("extra", extra), ("other shape", misshapen))
        if names
    ]
    if problems:
        raise UserError(f"checkpoint {path} does not fit the model; {'; '.join(problems)}")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(arrays[name], parameter.dtype))
