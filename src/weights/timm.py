"""timm's and DeiT's parameter names.

Ours are timm's, but for LayerNorm (gamma, beta for weight, bias) and the patch embedding, whose kernel [C, I, P, P] is
kept as the matrix [C, I·P·P].
"""

import re
from collections.abc import Mapping

import numpy as np

_NORM = re.compile(r"(^|\.)(norm|norm1|norm2)\.(weight|bias)$")
_NORM_NAMES = {"weight": "gamma", "bias": "beta"}
_OUR_NORM = re.compile(r"^(.*norm[12]?)\.(gamma|beta)$")
_TIMM_NAMES = {"gamma": "weight", "beta": "bias"}


def from_timm(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename timm's weights to our names, and flatten the patch embedding's kernel; ours stay as they are.

    MindCV's names are ours, with timm's kernel.
    """
    renamed = {_NORM.sub(lambda m: f"{m[1]}{m[2]}.{_NORM_NAMES[m[3]]}", name): a for name, a in arrays.items()}
    kernel = renamed.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 4:
        renamed["patch_embed.proj.weight"] = kernel.reshape(len(kernel), -1)
    return renamed


def to_timm(arrays: Mapping[str, np.ndarray], patch_size: int) -> dict[str, np.ndarray]:
    """Rename our weights to timm's names, with the patch embedding's kernel [C, I, P, P]."""
    renamed = {_OUR_NORM.sub(lambda m: f"{m[1]}.{_TIMM_NAMES[m[2]]}", name): a for name, a in arrays.items()}
    kernel = renamed["patch_embed.proj.weight"]
    renamed["patch_embed.proj.weight"] = kernel.reshape(len(kernel), -1, patch_size, patch_size)
    return renamed


def adapt_input_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Return the patch embedding's kernel [C, 3, P, P] for images of other channels, as timm does: [C, I, P, P].

    For one channel the three are summed; for more they are repeated, and scaled to the same sum.
    """
    if channels == kernel.shape[1]:
        return kernel
    if channels == 1:
        return kernel.sum(1, keepdims=True)
    repeated = np.tile(kernel, (1, -(-channels // 3), 1, 1))[:, :channels]
    return repeated * np.asarray(3 / channels, kernel.dtype)
