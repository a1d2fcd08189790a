"""timm's and DeiT's parameter names.

Ours are timm's, but for LayerNorm (gamma, beta for weight, bias) and the patch embedding, whose kernel [C, I, P, P] is
kept as the matrix [C, I·P·P].
"""

import re
from collections.abc import Mapping

import numpy as np

_NORM = re.compile(r"(^|\.)(norm|norm1|norm2)\.(weight|bias)$")
_NORM_NAMES = {"weight": "gamma", "bias": "beta"}


def from_timm(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename timm's weights to our names, and flatten the patch embedding's kernel; ours stay as they are.

    MindCV's names are ours, with timm's kernel.
    """
    renamed = {_NORM.sub(lambda m: f"{m[1]}{m[2]}.{_NORM_NAMES[m[3]]}", name): a for name, a in arrays.items()}
    kernel = renamed.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 4:
        renamed["patch_embed.proj.weight"] = kernel.reshape(len(kernel), -1)
    return renamed
