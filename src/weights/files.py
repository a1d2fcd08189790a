"""The checkpoint's format; no other module knows it.

A checkpoint is a MindSpore .ckpt with MindSpore's checksum, written whole or not at all. It is read without MindSpore,
by readers that trust nothing in it. Its entries:

best.ckpt, epoch-0010.ckpt   the network's weights by their names, and `epoch`, after which they were written
last.ckpt, previous.ckpt     all state of a training, each name after its group: `network.`, `optimizer.`, `ema.` (and
                             `ema_steps`), `scaler.`, and `reached.` for the progress, as float64
both                         `config`: the resolved configuration, as the bytes of its YAML
                             `classes`: the names of the outputs, as the bytes of lines
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from src.config import Config, dump
from src.errors import RunError, UserError, short_message
from src.files import set_mode, written_whole
from src.runtime.environment import memory
from src.weights import google, mindspore_file, numpy_file, pytorch_file
from src.weights.mindspore_file import DamagedError

if TYPE_CHECKING:
    from mindspore import Parameter, Tensor

Arrays = dict[str, np.ndarray]

CONFIG, CLASSES, EPOCH = "config", "classes", "epoch"
NETWORK, OPTIMIZER, SCALER, PROGRESS = "network.", "optimizer.", "scaler.", "reached."
AVERAGE, AVERAGE_STEPS = "ema.", "ema_steps"
LONGEST = {CONFIG: 2**16, CLASSES: 2**24}  # bytes of a text
SUFFIXES = (".ckpt", ".safetensors", ".pth", ".pt", ".npz")
SAFETENSORS_TYPES = ("F16", "F32", "F64", "I32", "I64", "U8")


@dataclass(frozen=True)
class SavedState:
    """The state of a training: arrays by name, its progress by field, and the names of the classes."""

    arrays: Arrays
    progress: Arrays
    classes: tuple[str, ...]


@dataclass(frozen=True)
class SavedWeights:
    """What a file holds to evaluate: averaged weights where there are any.

    Attributes:
        config: The resolved configuration as YAML; None if the file holds none.
        classes: The names of the outputs; none if the file holds none.
        epoch: After which the weights were written; None if the file does not say.
    """

    arrays: Arrays
    config: Optional[str]
    classes: tuple[str, ...]
    epoch: Optional[int]


def write_weights(
    path: Path, weights: Mapping[str, "Tensor"], config: Config, classes: Sequence[str] = (), epoch: int = 0
) -> None:
    """Write a network's weights by the names that they have outside an average.

    Raises:
        RunError: The file cannot be written; what was there is still whole.
    """
    from mindspore import Tensor

    arrays = {name.removeprefix(AVERAGE): value for name, value in weights.items()}
    _write(path, {**arrays, EPOCH: Tensor(np.array(epoch, np.int64))}, config, classes)


def write_state(
    path: Path,
    parameters: Mapping[str, "Parameter"],
    progress: Mapping[str, object],
    config: Config,
    previous: Path,
    classes: Sequence[str] = (),
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
    _write(path, arrays, config, classes, previous)


def write_timm(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
    """Write weights by timm's names as a safetensors file.

    Args:
        facts: What is said of them in the file's header.

    Raises:
        RunError: The file cannot be written; what was there is still whole.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        with written_whole(path) as partial:
            save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, partial, dict(facts))
            set_mode(partial, 0o644)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or short_message(error)
        raise RunError(f"checkpoint {path} cannot be written: {reason}; what was saved before is whole") from error


def read_state(path: Path) -> SavedState:
    """Read the state that `write_state` wrote.

    Raises:
        UserError: The file is missing or damaged.
    """
    arrays = read_arrays(path)
    classes = _lines(arrays)
    arrays = {name: value for name, value in arrays.items() if name not in LONGEST}
    progress = {name.removeprefix(PROGRESS): arrays.pop(name) for name in list(arrays) if name.startswith(PROGRESS)}
    return SavedState(arrays, progress, classes)


def read_arrays(path: Union[str, Path], part: str = "") -> Arrays:
    """Read the names and arrays of a checkpoint of MindSpore or PyTorch, a safetensors file, or Google's .npz.

    None is trusted. Google's names become timm's.

    Args:
        part: Of a training's checkpoint of PyTorch, what to read, such as `model_ema`; by default the weights.

    Raises:
        UserError: The file is missing, cannot be read, or is none of these.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; name a file that does")
    if kind_of(path) not in SUFFIXES:
        raise UserError(f"checkpoint {path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    size = path.stat().st_size
    if size > memory() / 2:
        raise UserError(f"checkpoint {path} has {size / 2**30:.1f} GB, too much for this machine; use another file")
    try:
        arrays = _read(path, part)
        _check_texts(arrays)
        return arrays
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror or error}; use another file") from error
    except DamagedError as error:
        reason = short_message(error)
        raise UserError(f"checkpoint {path} is damaged, or no checkpoint: {reason}; use another file") from error


def kind_of(path: Path) -> str:
    """Return the ending that tells a file's format: `.pth` also of `.pth.tar`, which is no archive but a habit."""
    return ".pth" if path.name.endswith(".pth.tar") else path.suffix


def read_weights(path: Union[str, Path], part: str = "") -> SavedWeights:
    """Read what a checkpoint of either kind, or a stranger's file, holds to evaluate; as `read_arrays`.

    Raises:
        UserError: The file is missing or is neither.
    """
    arrays = read_arrays(path, part)
    config = arrays[CONFIG].tobytes().decode() if CONFIG in arrays else None
    epoch = arrays.get(EPOCH)
    number = int(epoch) if epoch is not None and epoch.shape == () and epoch.dtype == np.int64 else None
    weights = {name: array for name, array in arrays.items() if name not in LONGEST and name != EPOCH}
    for prefix in (AVERAGE, NETWORK):
        chosen = {name[len(prefix) :]: array for name, array in weights.items() if name.startswith(prefix)}
        if chosen:
            weights = chosen
            break
    return SavedWeights(weights, config, _lines(arrays), number)


def _read(path: Path, part: str) -> Arrays:
    kind = kind_of(path)
    if kind in (".pth", ".pt"):
        return pytorch_file.read(path, part)
    if part:
        raise UserError(f"checkpoint {path}: only .pth and .pt have parts such as {part}")
    if kind == ".npz":
        arrays = numpy_file.read(path)
        return google.to_timm(arrays) if google.is_google(arrays) else arrays
    return _read_safetensors(path) if kind == ".safetensors" else _read_mindspore(path)


def _read_mindspore(path: Path) -> Arrays:
    arrays, has_checksum = mindspore_file.parse(path.read_bytes())
    if not has_checksum and any(name.startswith((CONFIG, NETWORK, PROGRESS)) for name in arrays):
        raise DamagedError("its checksum is missing")  # other writers' files may be without
    return arrays


def _check_texts(arrays: Arrays) -> None:
    for name, longest in LONGEST.items():
        if name in arrays and not _is_text(arrays[name], longest):
            raise DamagedError(f"its {name} is not text of at most {longest} bytes")


def _lines(arrays: Arrays) -> tuple[str, ...]:
    return tuple(arrays[CLASSES].tobytes().decode().split("\n")) if CLASSES in arrays else ()


def _is_text(array: np.ndarray, longest: int) -> bool:
    if array.dtype != np.uint8 or array.ndim != 1 or array.size > longest:
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
            texts = {name: text for name, text in (file.metadata() or {}).items() if name in LONGEST and text}
            arrays = {name: file.get_tensor(name) for name in names}
        return {**arrays, **{name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()}}
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise DamagedError(short_message(error)) from error


def _write(
    path: Path,
    arrays: Mapping[str, "Tensor"],
    config: Config,
    classes: Sequence[str],
    previous: Optional[Path] = None,
) -> None:
    import mindspore as ms
    from mindspore import Tensor

    texts = {CONFIG: dump(config), CLASSES: "\n".join(classes)}
    encoded = {name: Tensor(np.frombuffer(text.encode(), np.uint8)) for name, text in texts.items() if text}
    entries = {**arrays, **encoded}
    try:
        with written_whole(path, previous) as partial:
            named = [{"name": name, "data": data} for name, data in entries.items()]
            try:
                with _quiet_mindspore():
                    ms.save_checkpoint(named, str(partial), crc_check=True)
            except PermissionError:  # where rights cannot be set, MindSpore ends so when it has written all
                if not partial.exists():
                    raise
            set_mode(partial, 0o644)  # MindSpore's files are for their owner only
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or short_message(error)
        raise RunError(f"checkpoint {path} cannot be written: {reason}; what was saved before is whole") from error


@contextmanager
def _quiet_mindspore() -> Iterator[None]:
    """Silence MindSpore's own lines about what fails, which is reported in one line of ours, or does not matter."""
    from mindspore import log

    logger = log._get_logger()
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
