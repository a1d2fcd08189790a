"""What is done to whole batches in NumPy: normalisation, random erasing, mixup and CutMix.

Erasing and mixing draw as timm's do (timm/data/random_erasing.py, timm/data/mixup.py, mode batch), from generators that
are handed to them.
"""

import math

import numpy as np

from src.config import DataConfig

ATTEMPTS = 10  # to find a rectangle that fits
AREA = (0.02, 1 / 3)  # of the erased rectangle, relative to the image
ASPECT = (0.3, 1 / 0.3)  # of the erased rectangle


def normalise(pixels: np.ndarray, config: DataConfig) -> np.ndarray:
    """Normalise and transpose uint8 [B, H, W, 3] to float32 [B, 3, H, W]."""
    batch, height, width, channels = pixels.shape
    images = np.empty((batch, channels, height, width), np.float32)
    for channel, (mean, std) in enumerate(zip(config.mean, config.std)):
        scale, shift = np.float32(1 / (255 * std)), np.float32(mean / std)
        for source, target in zip(pixels[..., channel], images[:, channel]):  # image by image, within the cache
            np.multiply(source, scale, out=target)
            target -= shift
    return images


def erase(image: np.ndarray, config: DataConfig, random: np.random.Generator) -> None:
    """Fill a random rectangle of a normalised image [3, H, W] in place, with `data.random_erasing`'s probability.

    `data.random_erasing_mode` says with what: 0, which is the mean colour, or a normal random number for every value.
    """
    if random.random() >= config.random_erasing:
        return
    _, height, width = image.shape
    for _ in range(ATTEMPTS):
        area = random.uniform(*AREA) * height * width
        aspect = math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = random.integers(height - h + 1), random.integers(width - w + 1)
            noise = config.random_erasing_mode == "pixel"
            image[:, top : top + h, left : left + w] = (
                random.standard_normal((len(image), h, w), np.float32) if noise else 0
            )
            return


def mix(
    images: np.ndarray, labels: np.ndarray, num_classes: int, config: DataConfig, random: np.random.Generator
) -> np.ndarray:
    """Mix a batch [B, 3, H, W] with its reverse in place, by mixup or CutMix; return labels float32 [B, classes]."""
    share = 1.0
    if random.random() < config.mixup_prob:
        cuts = bool(config.cutmix) and (not config.mixup or random.random() < 0.5)
        alpha = config.cutmix if cuts else config.mixup
        share = float(random.beta(alpha, alpha))
        share = _cut(images, share, random) if cuts else _blend(images, share)
    rows = np.eye(num_classes, dtype=np.float32)[labels]
    return rows * np.float32(share) + rows[::-1] * np.float32(1 - share)


def _blend(images: np.ndarray, share: float) -> float:
    """Replace each image by `share` of it and the rest of its partner; return the share."""
    rest = np.float32(1 - share)
    for image, partner in zip(images[: len(images) // 2], images[::-1]):  # pair by pair, within the cache
        difference = (image - partner) * rest
        image -= difference
        partner += difference
    return share


def _cut(images: np.ndarray, share: float, random: np.random.Generator) -> float:
    """Swap a box, of 1 - `share` of the area before it is clipped, between partners; return the share that stays."""
    height, width = images.shape[2:]
    top, bottom, left, right = draw_box(height, width, share, random)
    box = images[:, :, top:bottom, left:right]
    box[...] = box[::-1].copy()
    return 1 - (bottom - top) * (right - left) / (height * width)


def draw_box(height: int, width: int, share: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw the box that CutMix cuts out of an area: its top, bottom, left and right, clipped.

    Args:
        share: Of the area that stays, before the box is clipped.
    """
    side = math.sqrt(1 - share)
    y, x = int(random.integers(height)), int(random.integers(width))
    return (*_extent(y, int(height * side), height), *_extent(x, int(width * side), width))


def _extent(centre: int, length: int, limit: int) -> tuple[int, int]:
    return max(centre - length // 2, 0), min(centre + length // 2, limit)
