"""Read PyTorch's .pth without trusting it: no pickle is loaded, and nothing that one names is imported or called.

A file is a zip archive, not compressed, with

    NAME/data.pkl    a pickle, which names tensors by their storage, place in it, shape and strides
    NAME/data/KEY    the bytes of a storage

The opcodes of the pickle are taken apart by the standard library's `pickletools`, which runs none, and those that
describe lists, dictionaries, numbers, text and tensors are carried out here on plain values.
"""

import math
import pickletools
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.errors import UserError, first_few
from src.weights.mindspore_file import DamagedError, bfloat16_to_float32, check_array
from src.weights.numpy_file import ZIP_ERRORS

LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # how files of PyTorch before 1.6 begin
LONGEST_PICKLE = 2**23  # bytes
MOST_OPCODES = 2**18  # a training of ViT-L has 50,000
STORAGES = {
    "HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8", "BFloat16Storage": "<u2", "ByteStorage": "u1",
    "CharStorage": "i1", "ShortStorage": "<i2", "IntStorage": "<i4", "LongStorage": "<i8", "BoolStorage": "?",
}  # fmt: skip
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
DICTIONARY, NAMESPACE = "collections OrderedDict", "argparse Namespace"  # of a training's arguments: read as nothing
KNOWN = {TENSOR, PARAMETER, DICTIONARY, NAMESPACE, *(f"torch {name}" for name in STORAGES)}
PARTS = ("model", "state_dict")  # where a training's checkpoint has its weights
NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES")
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_MARK = object()


class _Global(str):
    """The module and name of something that a pickle wants; it is never looked up."""


class _Storage(NamedTuple):
    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: Path, part: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of a file's weights by name, bfloat16 as float32.

    Args:
        part: What holds them in a training's checkpoint, such as `model_ema`; by default `model` or `state_dict`, or
            the file itself.

    Raises:
        DamagedError: It is no such file, or a damaged one.
        UserError: It holds other than tensors, is of PyTorch before 1.6, or lacks the part.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(LEGACY)) == LEGACY:
            raise UserError(
                f"checkpoint {path} is of PyTorch's format before 1.6; write it anew with PyTorch:"
                " torch.save(torch.load(FILE, weights_only=True), FILE)"
            )
    try:
        with zipfile.ZipFile(path) as archive:
            _check_archive(archive, path.stat().st_size)
            folder = _folder(archive)
            try:
                root = _Machine().run(archive.read(f"{folder}data.pkl"))
            except _ForeignError as error:
                raise UserError(
                    f"checkpoint {path}: {error}; of its pickle nothing but tensors is read, and nothing was run; save"
                    " the weights alone: torch.save(model.state_dict(), FILE)"
                ) from error
            return _arrays(archive, folder, _weights(root, part, path), path.stat().st_size)
    except ZIP_ERRORS as error:
        raise DamagedError(f"no whole zip archive, as PyTorch writes it from 1.6 on: {error}") from error


class _ForeignError(ValueError):
    """A pickle wants something other than plain values and tensors."""


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse compressed entries, as PyTorch writes none, and more bytes than the file has."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise DamagedError("its archive is compressed, and PyTorch's are not")
    if sum(entry.file_size for entry in entries) > size:
        raise DamagedError("its archive claims more bytes than the file has")


def _folder(archive: zipfile.ZipFile) -> str:
    found = [name for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") <= 1]
    if len(found) != 1:
        raise DamagedError("its archive holds no data.pkl, as PyTorch's do")
    folder = found[0].removesuffix("data.pkl")
    if archive.getinfo(found[0]).file_size > LONGEST_PICKLE:
        raise DamagedError(f"its pickle has more than {LONGEST_PICKLE} bytes")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise DamagedError("its numbers are big-endian")
    return folder


class _Machine:
    """Carry out the opcodes of a pickle that make plain values; tensors become `_Tensor`."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
                if count == MOST_OPCODES:
                    raise DamagedError(f"its pickle has more than {MOST_OPCODES} opcodes")
                if opcode.name == "STOP":
                    return self.stack.pop()
                self.step(opcode.name, argument)
        except _ForeignError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise DamagedError("its pickle is none that PyTorch writes") from error
        raise DamagedError("its pickle has no end")

    def step(self, name: str, argument: Any) -> None:
        if name in NUMBERS or name in TEXTS:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.name_global(argument)
        elif name == "BINPERSID":
            self.stack.append(_storage(self.stack.pop()))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self.stack.pop(), self.stack.pop()
            self.stack.append(_call(function, arguments))
        elif name == "BUILD":  # attributes of an object, such as a state_dict's version: left out
            self.stack.pop()
        elif name not in ("PROTO", "FRAME"):
            self.collect(name)

    def collect(self, name: str) -> None:
        """Carry out what makes lists, tuples and dictionaries."""
        if name == "MARK":
            self.stack.append(_MARK)
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            self.stack.append([] if name == "EMPTY_LIST" else {})
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            self.stack[-size:] = [tuple(self.stack[-size:])]
        elif name == "TUPLE":
            self.stack.append(tuple(self.since_mark()))
        elif name in ("APPEND", "APPENDS"):
            values = [self.stack.pop()] if name == "APPEND" else self.since_mark()
            self.stack[-1].extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = [self.stack.pop(), self.stack.pop()][::-1] if name == "SETITEM" else self.since_mark()
            for key, value in zip(values[::2], values[1::2]):
                if isinstance(key, (str, int)):  # others could be tuples in tuples, that take forever to hash
                    self.stack[-1][key] = value
        else:
            raise _ForeignError(f"its pickle has the opcode {name}")

    def since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def name_global(self, argument: Any) -> None:
        if argument is None:
            name, module = self.stack.pop(), self.stack.pop()
            argument = f"{module} {name}"
        if argument not in KNOWN:
            raise _ForeignError(f"its pickle wants {argument.replace(' ', '.')[:100]}")
        self.stack.append(_Global(argument))


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Global):
        raise _ForeignError("its pickle calls what is no function")
    if function == NAMESPACE:
        return None
    if function == DICTIONARY and arguments == ():
        return {}
    if function == PARAMETER:
        return arguments[0]
    if function == TENSOR:
        storage, offset, shape, strides = arguments[:4]
        numbers = (offset, *shape, *strides)
        if isinstance(storage, _Storage) and all(type(number) is int and number >= 0 for number in numbers):
            return _Tensor(storage, offset, tuple(shape), tuple(strides))
    raise ValueError(function)


def _storage(value: Any) -> _Storage:
    kind, type_, key, _, size = value
    if kind != "storage" or not isinstance(type_, _Global) or not isinstance(key, str) or type(size) is not int:
        raise ValueError("no storage")
    return _Storage(key, STORAGES[type_.removeprefix("torch ")], size)


def _weights(root: Any, part: str, path: Path) -> dict[str, _Tensor]:
    """Return the tensors by name; numbers and texts beside them, such as an epoch, are left out.

    Raises:
        UserError: The file lacks the part.
        DamagedError: It has no tensor.
    """
    if not isinstance(root, dict):
        raise DamagedError("it is no dictionary of weights")
    if part and not isinstance(root.get(part), dict):
        names = [str(name) for name, value in root.items() if isinstance(value, dict)]
        raise UserError(f"checkpoint {path} has no {part}; it has {first_few(names, 5) or 'no parts'}")
    for name in (part,) if part else PARTS:
        if isinstance(root.get(name), dict):
            root = root[name]
            break
    tensors = {str(name).removeprefix("module."): value for name, value in root.items() if isinstance(value, _Tensor)}
    if not tensors:
        raise DamagedError("there is no tensor where its weights should be")
    return tensors


def _arrays(archive: zipfile.ZipFile, folder: str, tensors: dict[str, _Tensor], size: int) -> dict[str, np.ndarray]:
    total = sum(math.prod(tensor.shape) * np.dtype(tensor.storage.dtype).itemsize for tensor in tensors.values())
    if total > size:
        raise DamagedError("its tensors have more bytes than the file")
    storages: dict[str, bytes] = {}
    arrays = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        check_array(name, tensor.shape)
        if storage.key not in storages:
            try:
                storages[storage.key] = archive.read(f"{folder}data/{storage.key}")
            except KeyError as error:
                raise DamagedError(f"the content of {name} is missing") from error
        itemsize = np.dtype(storage.dtype).itemsize
        flat = np.frombuffer(storages[storage.key], storage.dtype, len(storages[storage.key]) // itemsize)
        last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.strides))
        if len(tensor.shape) != len(tensor.strides) or last >= len(flat):
            raise DamagedError(f"{name} is larger than its content")
        strides = [step * itemsize for step in tensor.strides]
        array = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
        arrays[name] = bfloat16_to_float32(array) if storage.dtype == "<u2" else array.copy()
    return arrays
