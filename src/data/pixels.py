"""Pixels as numbers: normalised, as networks see them, and back. NumPy alone."""

from collections.abc import Sequence

import numpy as np


def normalise(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalise images: uint8 [B, H, W, 3] to float32 [B, 3, H, W], by mean and deviation of pixels from 0 to 1."""
    centre, width = (255 * np.array(value, np.float32) for value in (mean, std))
    return np.ascontiguousarray(((pixels.astype(np.float32) - centre) / width).transpose(0, 3, 1, 2))


def pixels(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Undo the normalisation of images: float32 [B, 3, H, W] to uint8 [B, H, W, 3]."""
    channels_last = images.transpose(0, 2, 3, 1) * np.array(std, np.float32) + np.array(mean, np.float32)
    return np.clip(np.rint(channels_last * 255), 0, 255).astype(np.uint8)
