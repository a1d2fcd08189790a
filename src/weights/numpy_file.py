"""Read .npz without trusting it: no pickle, and no more bytes than a file of weights can hold."""

import io
import math
import struct
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np

from src.weights.mindspore_file import DamagedError, check_array

ZIP_ERRORS = (  # what the standard library raises at a damaged archive
    zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, EOFError, RuntimeError, UnicodeDecodeError,
    OverflowError,
)  # fmt: skip
MOST_COMPRESSED = 4  # times: weights are noise to a compressor, and a bomb is not


def read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name.

    Raises:
        DamagedError: It is no such file, or a damaged one, or holds other than numbers.
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > MOST_COMPRESSED * path.stat().st_size:
                raise DamagedError("its archive claims more bytes than weights can be compressed from")
            return {
                entry.filename.removesuffix(".npy"): _array(entry.filename, archive.read(entry)) for entry in entries
            }
    except ZIP_ERRORS as error:
        raise DamagedError(f"no zip archive as NumPy writes it: {error}") from error


def _array(name: str, content: bytes) -> np.ndarray:
    """Return the array of a .npy file's bytes, whose header is compared with their number before it is used."""
    file = io.BytesIO(content)
    try:
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[np.lib.format.read_magic(file)]
        shape, by_columns, dtype = read_header(file)
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError, TokenError) as error:
        raise DamagedError(f"{name[:100]} is no array of NumPy's") from error
    check_array(name, shape)
    if dtype.kind not in "fiu" or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise DamagedError(f"{name} is no array of numbers, or has other than {len(content) - file.tell()} bytes")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if by_columns else "C")
