"""Where a training image was cropped, and whether it was flipped: what its label map is to be cropped by.

MindSpore's transforms do not tell. But what they draw follows from the seed and the image's height and width alone, so
an image whose pixels are their own coordinates, sent through the crop with the same seed, comes back as the answer.
Nothing is asked for, and nothing changes, where there are no label maps.

A policy's operations that move pixels (shear, translate, rotate) do not move labels, as in the original of token
labelling (arXiv 2104.10858), nor does random erasing remove any.
"""

from collections.abc import Sequence

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import vision

from src.config import DataConfig
from src.data.transforms import Transform

CROP = 5  # numbers: top, left, height and width as shares of the whole image, and 1 where it was flipped


class CropFinder:
    """Tells what the crop and the flip among a training's transforms do to an image.

    Args:
        transforms: Those of `train_transforms`.
    """

    def __init__(self, transforms: Sequence[Transform], config: DataConfig) -> None:
        flips = [
            index for index, transform in enumerate(transforms) if isinstance(transform, vision.RandomHorizontalFlip)
        ]
        self.flip = flips[0] if flips else None
        self.transforms = transforms
        self.crop = transforms[0]
        if config.name == "folder":  # the first one decodes: the same crop of pixels, to as few as tell it
            self.crop = vision.RandomResizedCrop((2, 2), config.scale, config.ratio, vision.Inter.BILINEAR)

    def __call__(self, height: int, width: int, seeds: Sequence[int]) -> np.ndarray:
        """Return float64 [CROP] for an image of so many pixels.

        A crop may reach beyond the image: CIFAR's are of images that are padded.

        Args:
            seeds: What each transform was seeded with.
        """
        ds.config.set_seed(seeds[0])
        seen = self.crop(_coordinates(height, width))
        pixels, middle = len(seen), len(seen) // 2
        first, second = seen[[middle - 1, middle], [middle - 1, middle], :2].astype(np.float64)  # never padding
        sides = np.maximum(1, np.rint(pixels * (second - first)))
        corner = np.rint((first + second + 1 - sides) / 2)
        flipped = False
        if self.flip is not None:
            ds.config.set_seed(seeds[self.flip])
            flipped = bool(self.transforms[self.flip](_LEFT_AND_RIGHT)[0, 0, 0])
        whole = np.array([height, width])
        return np.concatenate([corner / whole, sides / whole, [flipped]])


_LEFT_AND_RIGHT = np.repeat(np.array([[[0], [1]]], np.uint8), 3, axis=2)


def _coordinates(height: int, width: int) -> np.ndarray:
    """Return float32 [height, width, 3]: the row and the column of each pixel, and 0, for MindSpore pads no pair."""
    coordinates = np.zeros((height, width, 3), np.float32)
    coordinates[..., 0] = np.arange(height)[:, None]
    coordinates[..., 1] = np.arange(width)
    return coordinates
