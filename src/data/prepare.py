"""An image file as validation shows it to a network, without MindSpore: Pillow decodes, NumPy resizes."""

import dataclasses
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image

from src.config import Config, sides
from src.data.pixels import normalise
from src.data.resize import OpenCVResize, PillowResize
from src.data.verify import unusable
from src.errors import UserError


@dataclass(frozen=True)
class Preparation:
    """How an image file becomes an input; an exported file says it of itself.

    Attributes:
        image_size: Height and width of the input in pixels.
        name, crop_pct, interpolation, resize, mean, std: As of the configuration's `data`.
    """

    image_size: tuple[int, int]
    name: str
    crop_pct: float
    interpolation: str
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, config: Config) -> "Preparation":
        names = [field.name for field in dataclasses.fields(cls) if field.name != "image_size"]
        return cls(sides(config.model.image_size), **{name: getattr(config.data, name) for name in names})

    @classmethod
    def read(cls, text: str) -> "Preparation":
        """Return what `text` told.

        Raises:
            ValueError, TypeError: It told nothing.
        """
        told = json.loads(text)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in told.items()}
        return cls(**values)

    def text(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def pixels(self, file: Path) -> np.ndarray:
        """Return an image, resized and cropped: uint8 [H, W, 3].

        Raises:
            UserError: The file cannot be decoded.
        """
        return self.fit(decode(file))

    def fit(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop an image of any size: uint8 [H, W, 3]."""
        if self.name != "folder":  # the 32x32 pixels that CIFAR would hold
            return self._resize(self.image_size)(self._resize((32, 32))(image))
        height, width = (math.floor(side / self.crop_pct) for side in self.image_size)
        size = height if self.image_size[0] == self.image_size[1] else (height, width)
        return self._resize(size, self.image_size)(image)

    def inputs(self, pixels: np.ndarray) -> np.ndarray:
        """Return images uint8 [B, H, W, 3] normalised: float32 [B, 3, H, W]."""
        return normalise(pixels, self.mean, self.std)

    def _resize(self, size: Union[int, tuple[int, int]], *crop: tuple[int, int]) -> Union[PillowResize, OpenCVResize]:
        return (PillowResize if self.resize == "pil" else OpenCVResize)(size, self.interpolation, *crop)


def decode(file: Path) -> np.ndarray:
    """Decode an image file: uint8 [H, W, 3].

    Raises:
        UserError: It cannot be read or decoded.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"image {file} cannot be read: {error.strerror}; name another") from error
    try:
        return decode_content(content)
    except UserError as error:
        raise UserError(f"image {file} cannot be used: {error}") from error


def decode_content(content: bytes) -> np.ndarray:
    """Decode an image as MindSpore does: uint8 [H, W, 3]; no orientation or transparency is applied.

    Raises:
        UserError: It cannot be decoded; the message says why.
    """
    problem = unusable(content)
    if problem:
        raise UserError(problem)
    with Image.open(io.BytesIO(content)) as image:
        if image.mode.startswith("I"):  # 16 bits, of which the upper 8 count
            return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))
