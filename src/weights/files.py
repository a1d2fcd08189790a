"""The checkpoint's format; no other module knows it.

A checkpoint is a MindSpore .ckpt with MindSpore's checksum, written whole or not at all. It is read without MindSpore,
by readers that trust nothing in it. Its entries:

best.ckpt, epoch-0010.ckpt   the network's weights by their names
last.ckpt, previous.ckpt     all state of a training, each name after its group: `network.`, `optimizer.`, `ema.` (and
                             `ema_steps`), `scaler.`, and `reached.` for the progress, as float64
both                         `config`: the resolved configuration, as the bytes of its YAML
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from src.config import Config, dump
from src.errors import RunError, UserError, short_message
from src.files import written_whole
from src.runtime.environment import memory
from src.weights import mindspore_file
from src.weights.mindspore_file import DamagedError

if TYPE_CHECKING:
    from mindspore import Parameter, Tensor

Arrays = dict[str, np.ndarray]

CONFIG = "config"
NETWORK, OPTIMIZER, SCALER, PROGRESS = "network.", "optimizer.", "scaler.", "reached."
AVERAGE, AVERAGE_STEPS = "ema.", "ema_steps"
LONGEST_CONFIG = 2**16  # bytes
SAFETENSORS_TYPES = ("F16", "F32", "F64", "I32", "I64", "U8")


@dataclass(frozen=True)
class SavedState:
    """The state of a training: arrays by name, and its progress by field."""

    arrays: Arrays
    progress: Arrays


def write_weights(path: Path, weights: Mapping[str, "Tensor"], config: Config) -> None:
    """Write a network's weights by the names that they have outside an average.

    Raises:
        RunError: The file cannot be written; what was there is still whole.
    """
    _write(path, {name.removeprefix(AVERAGE): value for name, value in weights.items()}, config)


def write_state(
    path: Path,
    parameters: Mapping[str, "Parameter"],
    progress: Mapping[str, object],
    config: Config,
    previous: Path,
) -> None:
    """Write all state of a training; the file before becomes `previous`.

    Raises:
        RunError: The file cannot be written; what was there is still whole.
    """
    from mindspore import Tensor

    arrays = {name: parameter.value() for name, parameter in parameters.items()}
    for name, value in progress.items():
        if value != ():  # MindSpore saves no empty tensor
            arrays[PROGRESS + name] = Tensor(np.array(value, np.float64))
    _write(path, arrays, config, previous)


def read_state(path: Path) -> SavedState:
    """Read the state that `write_state` wrote.

    Raises:
        UserError: The file is missing or damaged.
    """
    arrays = {name: value for name, value in read_arrays(path).items() if name != CONFIG}
    progress = {name.removeprefix(PROGRESS): arrays.pop(name) for name in list(arrays) if name.startswith(PROGRESS)}
    return SavedState(arrays, progress)


def read_arrays(path: Union[str, Path]) -> Arrays:
    """Read the names and arrays of a safetensors file or a MindSpore checkpoint; neither is trusted.

    Raises:
        UserError: The file is missing, cannot be read, or is neither.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; name one with --ckpt FILE")
    if path.suffix not in (".ckpt", ".safetensors"):
        raise UserError(f"checkpoint {path} must end in .ckpt or .safetensors")
    size = path.stat().st_size
    if size > memory() / 2:
        raise UserError(f"checkpoint {path} has {size / 2**30:.1f} GB, too much for this machine; use another file")
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_mindspore(path)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror or error}; use another file") from error
    except DamagedError as error:
        reason = short_message(error)
        raise UserError(f"checkpoint {path} is damaged, or no checkpoint: {reason}; use another file") from error


def split_weights(arrays: Arrays) -> tuple[Arrays, Optional[str]]:
    """Return the weights to evaluate, averaged ones where there are any, and the configuration if there is one."""
    config = arrays[CONFIG].tobytes().decode() if CONFIG in arrays else None
    weights = {name: array for name, array in arrays.items() if name != CONFIG}
    for prefix in (AVERAGE, NETWORK):
        chosen = {name[len(prefix) :]: array for name, array in weights.items() if name.startswith(prefix)}
        if chosen:
            return chosen, config
    return weights, config


def _read_mindspore(path: Path) -> Arrays:
    arrays, has_checksum = mindspore_file.parse(path.read_bytes())
    config = arrays.get(CONFIG)
    if not has_checksum and any(name.startswith((CONFIG, NETWORK, PROGRESS)) for name in arrays):
        raise DamagedError("its checksum is missing")  # other writers' files may be without
    if config is not None and not _is_text(config):
        raise DamagedError(f"its {CONFIG} is not text of at most {LONGEST_CONFIG} bytes")
    return arrays


def _is_text(array: np.ndarray) -> bool:
    if array.dtype != np.uint8 or array.ndim != 1 or array.size > LONGEST_CONFIG:
        return False
    try:
        return bool(array.tobytes().decode())
    except UnicodeDecodeError:
        return False


def _read_safetensors(path: Path) -> Arrays:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            names = list(file.keys())
            for name in names:
                entry = file.get_slice(name)
                mindspore_file.check_array(name, tuple(entry.get_shape()))
                if entry.get_dtype() not in SAFETENSORS_TYPES:
                    raise DamagedError(f"{name} is not of a type among {', '.join(SAFETENSORS_TYPES)}")
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise DamagedError(short_message(error)) from error


def _write(path: Path, arrays: Mapping[str, "Tensor"], config: Config, previous: Optional[Path] = None) -> None:
    import mindspore as ms
    from mindspore import Tensor

    entries = {**arrays, CONFIG: Tensor(np.frombuffer(dump(config).encode(), np.uint8))}
    try:
        with written_whole(path, previous) as partial:
            named = [{"name": name, "data": data} for name, data in entries.items()]
            ms.save_checkpoint(named, str(partial), crc_check=True)
            partial.chmod(0o644)  # MindSpore's files are for their owner only
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or short_message(error)
        raise RunError(f"checkpoint {path} cannot be written: {reason}; what was saved before is whole") from error
