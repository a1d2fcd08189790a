"""Read MindSpore's .ckpt without trusting it: a length is compared with what is left of the file before it is used.

MindSpore's own loader ends the process for some files, and its Python reads others for minutes. A file is the protobuf
message Checkpoint (checkpoint.proto in MindSpore), and after it a checksum, if its writer asked for one:

    1: entry, repeated           an array, or a piece of one: MindSpore splits arrays of more than 512 MB
       1: name
       2: tensor
          1: dimension, repeated varint; none or a single 0 for a single number
          2: type, such as Float32
          3: content, little-endian
    "crc_num", and the CRC-32 of all before it in 10 bytes, big-endian
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Union

import numpy as np

TYPES: dict[str, np.dtype[Any]] = {
    "Float16": np.dtype("<f2"), "Float32": np.dtype("<f4"), "Float64": np.dtype("<f8"), "BFloat16": np.dtype("<u2"),
    "Int32": np.dtype("<i4"), "Int64": np.dtype("<i8"), "UInt8": np.dtype("u1"),
}  # fmt: skip
MOST_ENTRIES = 2**17
MOST_DIMENSIONS = 8
LONGEST_NAME = 256  # bytes
CHECKSUM = b"crc_num"
CHECKSUM_SIZE = 10
VARINT, BYTES = 0, 2  # wire types of protobuf

Span = tuple[int, int]


class DamagedError(ValueError):
    """A file is not of the form that MindSpore writes."""


class _Entry(NamedTuple):
    name: str
    shape: tuple[int, ...]
    type: str
    content: Span


def parse(content: bytes) -> tuple[dict[str, np.ndarray], bool]:
    """Return the arrays of a file by name, bfloat16 as float32, and whether a checksum vouches for them.

    Raises:
        DamagedError: The checksum is another one, or an entry is not of the form or types that are known here.
    """
    end = len(content) - len(CHECKSUM) - CHECKSUM_SIZE
    has_checksum = end >= 0 and content[end : end + len(CHECKSUM)] == CHECKSUM
    if not has_checksum:
        end = len(content)
    elif int.from_bytes(content[-CHECKSUM_SIZE:], "big") != zlib.crc32(memoryview(content)[:end]):
        raise DamagedError("its checksum is that of another content")
    entries: dict[str, list[_Entry]] = {}
    latest = None
    for count, (field, value) in enumerate(_fields(content, 0, end)):
        if field != 1 or isinstance(value, int) or count == MOST_ENTRIES:
            raise DamagedError(f"it is no list of at most {MOST_ENTRIES} entries")
        entry = _read_entry(content, *value)
        if entry.name != latest and entry.name in entries:
            raise DamagedError(f"{entry.name} stands there twice")
        entries.setdefault(entry.name, []).append(entry)
        latest = entry.name
    if not entries:
        raise DamagedError("it holds nothing")
    return {name: _join(content, pieces) for name, pieces in entries.items()}, has_checksum


def check_array(name: str, shape: tuple[int, ...]) -> None:
    """Refuse names and shapes that no network's weights have.

    Raises:
        DamagedError: The name is empty, long or not printable, or the shape is empty or of many dimensions.
    """
    if not name or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise DamagedError(f"it has a name of {len(name)} characters that is not a weight's")
    if len(shape) > MOST_DIMENSIONS or not all(1 <= side < 2**63 for side in shape):
        raise DamagedError(f"{name} has the shape {list(shape[:MOST_DIMENSIONS])}")


def _read_entry(content: bytes, start: int, end: int) -> _Entry:
    name = tensor = type_ = data = None
    shape: list[int] = []
    for field, value in _fields(content, start, end):
        if field == 1 and name is None and not isinstance(value, int):
            name = _text(content, value)
        elif field == 2 and tensor is None and not isinstance(value, int):
            tensor = value
        else:
            raise DamagedError("an entry has other parts than a name and a tensor")
    if name is None or tensor is None:
        raise DamagedError("an entry has no name, or no tensor")
    for field, value in _fields(content, *tensor):
        if field == 1 and isinstance(value, int) and len(shape) <= MOST_DIMENSIONS:
            shape.append(value)
        elif field == 2 and type_ is None and not isinstance(value, int):
            type_ = _text(content, value)
        elif field == 3 and data is None and not isinstance(value, int):
            data = value
        else:
            raise DamagedError("a tensor has other parts than dimensions, a type and a content")
    if type_ not in TYPES or data is None:
        raise DamagedError(f"{name[:LONGEST_NAME]!r} is not of a type among {', '.join(TYPES)}, or has no content")
    shape = [] if shape == [0] else shape  # a single number
    check_array(name, tuple(shape))
    return _Entry(name, tuple(shape), type_, data)


def _join(content: bytes, pieces: list[_Entry]) -> np.ndarray:
    """Return the array of an entry, or of several in a row that are pieces of one."""
    first = pieces[0]
    dtype = TYPES[first.type]
    if any((piece.shape, piece.type) != (first.shape, first.type) for piece in pieces):
        raise DamagedError(f"the pieces of {first.name} differ")
    size = sum(end - start for _, _, _, (start, end) in pieces)
    if size != math.prod(first.shape) * dtype.itemsize:
        raise DamagedError(f"{first.name} is {list(first.shape)} of {first.type}, and has {size} bytes")
    whole = bytearray(size)
    filled = 0
    for _, _, _, (start, end) in pieces:
        whole[filled : filled + end - start] = memoryview(content)[start:end]
        filled += end - start
    array = np.frombuffer(whole, dtype).reshape(first.shape)
    return bfloat16_to_float32(array) if first.type == "BFloat16" else array


def bfloat16_to_float32(array: np.ndarray) -> np.ndarray:
    """Return uint16 [...] that holds bfloat16 as the float32 [...] of the same values."""
    return (array.astype("<u4") << 16).view("<f4")


def _text(content: bytes, span: Span) -> str:
    start, end = span
    if end - start > LONGEST_NAME:
        raise DamagedError(f"a name has {end - start} bytes")
    try:
        return content[start:end].decode()
    except UnicodeDecodeError as error:
        raise DamagedError("a name is not UTF-8") from error


def _fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, Union[int, Span]]]:
    """Yield the number of each field of a message, and its value: a whole number, or where its bytes are."""
    while start < end:
        key, start = _varint(content, start, end)
        value, start = _varint(content, start, end)
        if key & 7 == VARINT:
            yield key >> 3, value
        elif key & 7 == BYTES and value <= end - start:
            yield key >> 3, (start, start + value)
            start += value
        else:
            raise DamagedError("it ends within an entry, or is no message of protobuf's")


def _varint(content: bytes, start: int, end: int) -> tuple[int, int]:
    value = 0
    for shift, index in enumerate(range(start, min(end, start + 10))):
        value |= (content[index] & 0x7F) << (7 * shift)
        if content[index] < 0x80:
            return value, index + 1
    raise DamagedError("it ends within a number, or is no message of protobuf's")
