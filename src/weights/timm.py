"""The parameter names of timm and DeiT, and of those who build on them: LV-ViT's and DynamicViT's own code.

Ours are timm's, but for LayerNorm and BatchNorm (gamma, beta for weight, bias), the predictors of who stays, and the
patch embedding, whose kernel [C, I, P, P] is kept as the matrix [C, I·P·P].
"""

import re
from collections.abc import Mapping

import numpy as np

_NORM = {"weight": "gamma", "bias": "beta"}
_LAYERS = {"in_conv.1": "in_proj", "out_conv.0": "out1", "out_conv.2": "out2", "out_conv.4": "out3"}  # of a predictor
_PREDICTOR = {
    **{f"in_conv.0.{theirs}": f"in_norm.{ours}" for theirs, ours in _NORM.items()},
    **{f"{theirs}.{part}": f"{ours}.{part}" for theirs, ours in _LAYERS.items() for part in ("weight", "bias")},
}
THEIR_PREDICTORS, PREDICTORS = "score_predictor.", "predictors."  # how the names of weights of predictors begin
# how names begin, and what of their ends is called otherwise: theirs and ours
_ENDS = (
    (re.compile(r"((?:|.*\.)norm[12]?\.)(.*)"), _NORM),
    (re.compile(r"(patch_embed\.bn\d\.)(.*)"),
     {**_NORM, "running_mean": "moving_mean", "running_var": "moving_variance"}),
    (re.compile(r"(predictors\.\d+\.)(.*)"), _PREDICTOR),
)  # fmt: skip
_THEIR_ENDS = tuple((pattern, {ours: theirs for theirs, ours in ends.items()}) for pattern, ends in _ENDS)
COUNTER = ".num_batches_tracked"  # batches that PyTorch's BatchNorm has seen, of which it makes no use


def from_timm(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename timm's weights to our names, and flatten the patch embedding's kernel; ours stay as they are.

    MindCV's names are ours, with timm's kernel. BatchNorm's counter of batches is left out.
    """
    renamed = {_our_name(name): array for name, array in arrays.items() if not name.endswith(COUNTER)}
    kernel = renamed.get("patch_embed.proj.weight")
    if kernel is not None and kernel.ndim == 4:
        renamed["patch_embed.proj.weight"] = kernel.reshape(len(kernel), -1)
    return renamed


def to_timm(arrays: Mapping[str, np.ndarray], cut_size: int) -> dict[str, np.ndarray]:
    """Rename our weights to timm's names, with the patch embedding's kernel [C, I, P, P]; counters of batches are 0.

    Args:
        cut_size: The side P of what the patch embedding cuts out.
    """
    renamed = {_their_name(name): array for name, array in arrays.items()}
    kernel = renamed["patch_embed.proj.weight"]
    renamed["patch_embed.proj.weight"] = kernel.reshape(len(kernel), -1, cut_size, cut_size)
    norms = [name.removesuffix(".running_mean") for name in renamed if name.endswith(".running_mean")]
    return {**renamed, **{norm + COUNTER: np.array(0, np.int64) for norm in norms}}


def _our_name(name: str) -> str:
    if name.startswith(THEIR_PREDICTORS):
        name = PREDICTORS + name.removeprefix(THEIR_PREDICTORS)
    return _with_end(name, _ENDS)


def _their_name(name: str) -> str:
    name = _with_end(name, _THEIR_ENDS)
    return THEIR_PREDICTORS + name.removeprefix(PREDICTORS) if name.startswith(PREDICTORS) else name


def _with_end(name: str, rules: tuple) -> str:
    """Return a name with the end that the first rule for its beginning gives it."""
    for pattern, ends in rules:
        if match := pattern.fullmatch(name):
            return match[1] + ends.get(match[2], match[2])
    return name


def adapt_input_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Return the first convolution's kernel [C, 3, P, P] for images of other channels, as timm does: [C, I, P, P].

    For one channel the three are summed; for more they are repeated, and scaled to the same sum.
    """
    if channels == kernel.shape[1]:
        return kernel
    if channels == 1:
        return kernel.sum(1, keepdims=True)
    repeated = np.tile(kernel, (1, -(-channels // 3), 1, 1))[:, :channels]
    return repeated * np.asarray(3 / channels, kernel.dtype)
