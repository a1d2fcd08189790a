"""Pillow's resize, antialiased: what weights trained with PyTorch expect; MindSpore's is OpenCV's."""

from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class PillowResize:
    """Resize an image uint8 [H, W, 3], and crop its centre if asked to, as torchvision does.

    Attributes:
        size: Pixels of the shorter side, the longer one in proportion; or (height, width).
        interpolation: A name of Pillow's, such as bicubic.
        crop: Height and width of the centre to return; None for all.
    """

    size: Union[int, tuple[int, int]]
    interpolation: str
    crop: Optional[tuple[int, int]] = None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        height, width = self.resized(*image.shape[:2])
        filter_ = Image.Resampling[self.interpolation.upper()]
        pixels = np.asarray(Image.fromarray(image).resize((width, height), filter_))
        if self.crop is None:
            return pixels
        top, left = (round((side - part) / 2) for side, part in zip((height, width), self.crop))
        return np.ascontiguousarray(pixels[top : top + self.crop[0], left : left + self.crop[1]])

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width after resizing."""
        if not isinstance(self.size, int):
            return self.size
        longer = int(self.size * max(height, width) / min(height, width))
        return (longer, self.size) if height > width else (self.size, longer)
