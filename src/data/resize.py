"""The two ways of resizing, in NumPy and Pillow: Pillow's, antialiased, and MindSpore's, which is OpenCV's."""

from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
from PIL import Image

SHARPNESS = -0.75  # of OpenCV's cubic kernel
ONE = 2**11  # what stands for 1 in OpenCV's weights of bytes


@dataclass(frozen=True)
class Resize:
    """Resize an image uint8 [H, W, 3], and crop its centre if asked to.

    Attributes:
        size: Pixels of the shorter side, the longer one in proportion; or (height, width).
        interpolation: nearest, bilinear or bicubic.
        crop: Height and width of the centre to return; None for all.
    """

    size: Union[int, tuple[int, int]]
    interpolation: str
    crop: Optional[tuple[int, int]] = None

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width after resizing."""
        if not isinstance(self.size, int):
            return self.size
        longer = int(self.size * max(height, width) / min(height, width))
        return (longer, self.size) if height > width else (self.size, longer)


class PillowResize(Resize):
    """Antialiased, as torchvision crops: what weights trained with PyTorch expect."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        height, width = self.resized(*image.shape[:2])
        filter_ = Image.Resampling[self.interpolation.upper()]
        pixels = np.asarray(Image.fromarray(image).resize((width, height), filter_))
        if self.crop is None:
            return pixels
        top, left = (round((side - part) / 2) for side, part in zip((height, width), self.crop))
        return np.ascontiguousarray(pixels[top : top + self.crop[0], left : left + self.crop[1]])


class OpenCVResize(Resize):
    """Not antialiased, as MindSpore resizes and crops: all but to the bit, where a value is another it is so by 1.

    OpenCV rounds the weights of bytes to 11 bits.
    """

    def __call__(self, image: np.ndarray) -> np.ndarray:
        height, width = self.resized(*image.shape[:2])
        resize = {"nearest": _nearest, "bilinear": _bilinear, "bicubic": _bicubic}[self.interpolation]
        pixels = resize(image, height, width)
        if self.crop is None:
            return pixels
        top, left = ((side - part) // 2 for side, part in zip((height, width), self.crop))
        return np.ascontiguousarray(pixels[top : top + self.crop[0], left : left + self.crop[1]])


def _nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = (
        np.minimum(np.floor(np.arange(new) * (1 / (new / old))).astype(int), old - 1)
        for old, new in zip(image.shape, (height, width))
    )
    return image[rows][:, columns]


def _bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    (rows, down), (columns, across) = (_taps(old, new, 2) for old, new in zip(image.shape, (height, width)))
    wide = _weighted(image, columns, across) >> 4
    above, below = ((down[:, tap, None, None] * wide[rows[:, tap]]) >> 16 for tap in range(2))
    return np.clip((above + below + 2) >> 2, 0, 255).astype(np.uint8)


def _bicubic(image: np.ndarray, height: int, width: int) -> np.ndarray:
    (rows, down), (columns, across) = (_taps(old, new, 4) for old, new in zip(image.shape, (height, width)))
    wide = _weighted(image, columns, across).astype(np.float32)
    scaled = down.astype(np.float32) * np.float32(1 / ONE**2)
    total = sum(scaled[:, tap, None, None] * wide[rows[:, tap]] for tap in range(4))
    return np.clip(np.rint(total), 0, 255).astype(np.uint8)


def _weighted(image: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted sums of columns [W', taps] of an image [H, W, 3]: int32 [H, W', 3]."""
    return sum(weights[None, :, tap, None] * image[:, columns[:, tap]] for tap in range(columns.shape[1]))


def _taps(old: int, new: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of each new pixel's neighbours along a side, and their weights: int32 [new, count]."""
    centres = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(centres).astype(int)
    part = centres - first.astype(np.float32)
    if count == 2:
        part[(first < 0) | (first >= old - 1)] = 0
        first = np.clip(first, 0, old - 1)
        indices, weights = np.stack([first, first + 1], 1), np.stack([1 - part, part], 1)
    else:
        indices, weights = first[:, None] + np.arange(-1, 3), _cubic(part)
    return np.clip(indices, 0, old - 1), np.rint(weights * ONE).astype(np.int32)


def _cubic(part: np.ndarray) -> np.ndarray:
    """Return Keys' cubic weights of the four neighbours of a place between the middle two, as OpenCV computes them."""
    a, after, back = np.float32(SHARPNESS), part + 1, 1 - part
    first = ((a * after - 5 * a) * after + 8 * a) * after - 4 * a
    second, third = (((a + 2) * x - (a + 3)) * x * x + 1 for x in (part, back))
    return np.stack([first, second, third, 1 - first - second - third], 1)
