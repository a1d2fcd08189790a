"""Write a .pth as PyTorch does from 1.6 on, without PyTorch."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STORAGES = {"float32": "FloatStorage", "int64": "LongStorage"}


class _Global(NamedTuple):
    module: str
    name: str


class _Storage(NamedTuple):
    key: str
    array: np.ndarray


class _Tensor:
    def __init__(self, key: str, array: np.ndarray) -> None:
        self.key, self.array = key, array

    def __reduce__(self) -> tuple:
        steps = tuple(step // self.array.itemsize for step in self.array.strides)
        return _rebuild, (_Storage(self.key, self.array), 0, self.array.shape, steps, False, {})


def _rebuild() -> None:
    """Stand for PyTorch's function in a pickle."""


class _Pickler(pickle._Pickler):
    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Storage):
            return None
        kind = _Global("torch", STORAGES[str(value.array.dtype)])
        return "storage", kind, value.key, "cpu", value.array.size

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Global):
            self.write(f"c{value.module}\n{value.name}\n".encode())
        elif value is _rebuild:
            self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
        else:
            super().save(value, save_persistent_id)


def save(path: Path, arrays: Mapping[str, np.ndarray], part: str = "", **others: object) -> None:
    """Write arrays as a dictionary of tensors, or as a part of one that has other entries too."""
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    tensors = {name: _Tensor(str(key), array) for key, (name, array) in enumerate(arrays.items())}
    content = io.BytesIO()
    _Pickler(content, 2).dump({part: tensors, **others} if part else tensors)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content.getvalue())
        for key, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{key}", array.tobytes())
