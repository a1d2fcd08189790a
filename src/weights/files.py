"""The checkpoint's format; no other module knows it.

A checkpoint is a MindSpore .ckpt with MindSpore's checksum, written whole or not at all. Its entries:

best.ckpt, epoch-0010.ckpt   the network's weights by their names
last.ckpt, previous.ckpt     all state of a training, each name after its group: `network.`, `optimizer.`, `ema.` (and
                             `ema_steps`), `scaler.`, and `reached.` for the progress, as float64
both                         `config`: the resolved configuration, as the bytes of its YAML
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from src.config import Config, dump
from src.errors import RunError, UserError, short_message
from src.files import written_whole

if TYPE_CHECKING:
    from mindspore import Parameter, Tensor

Arrays = dict[str, np.ndarray]

CONFIG = "config"
NETWORK, OPTIMIZER, SCALER, PROGRESS = "network.", "optimizer.", "scaler.", "reached."
AVERAGE, AVERAGE_STEPS = "ema.", "ema_steps"


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
    """Read the names and arrays of a safetensors file or a MindSpore checkpoint.

    Raises:
        UserError: The file is missing or is neither.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; name one with --ckpt FILE")
    if path.suffix not in (".ckpt", ".safetensors"):
        raise UserError(f"checkpoint {path} must end in .ckpt or .safetensors")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    import mindspore as ms

    try:
        with _quiet_mindspore():
            loaded = ms.load_checkpoint(str(path), crc_check=True)
        return {name: value.asnumpy() for name, value in loaded.items()}
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        # not MindSpore's own words: it suspects permissions, or a prefix
        raise UserError(f"checkpoint {path} is damaged, or no checkpoint; use another file") from error


def split_weights(arrays: Arrays) -> tuple[Arrays, Optional[str]]:
    """Return the weights to evaluate, averaged ones where there are any, and the configuration if there is one."""
    config = arrays[CONFIG].tobytes().decode() if CONFIG in arrays else None
    weights = {name: array for name, array in arrays.items() if name != CONFIG}
    for prefix in (AVERAGE, NETWORK):
        chosen = {name[len(prefix) :]: array for name, array in weights.items() if name.startswith(prefix)}
        if chosen:
            return chosen, config
    return weights, config


def _read_safetensors(path: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, TypeError, RuntimeError, OSError) as error:
        reason = short_message(error)
        raise UserError(f"checkpoint {path} is damaged, or no checkpoint: {reason}; use another file") from error


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


@contextmanager
def _quiet_mindspore() -> Iterator[None]:
    """Silence MindSpore's own lines about a damaged file, which is reported in one line of ours."""
    from mindspore import log

    logger = log._get_logger()
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
