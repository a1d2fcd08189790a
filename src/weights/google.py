"""The names of Google's ViT weights, .npz files that Flax wrote (vision_transformer, and its AugReg set).

A linear layer is y = x · kernel there, and x · weightᵀ with timm. Queries, keys and values have arrays of their own,
[C, heads, C / heads].
"""

import re
from collections.abc import Mapping

import numpy as np

from src.weights.mindspore_file import DamagedError

PREFIXES = ("", "opt/target/")
EMBEDDING = "embedding/kernel"
_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(.+)")
_ENDS = {
    "embedding/bias": "patch_embed.proj.bias",
    "cls": "cls_token",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
    "head/bias": "head.bias",
}
_IN_BLOCK = {
    "LayerNorm_0/scale": "norm1.weight",
    "LayerNorm_0/bias": "norm1.bias",
    "LayerNorm_2/scale": "norm2.weight",
    "LayerNorm_2/bias": "norm2.bias",
    "MultiHeadDotProductAttention_1/out/bias": "attn.proj.bias",
    "MlpBlock_3/Dense_0/bias": "mlp.fc1.bias",
    "MlpBlock_3/Dense_1/bias": "mlp.fc2.bias",
}
_TRANSPOSED = {"MlpBlock_3/Dense_0/kernel": "mlp.fc1.weight", "MlpBlock_3/Dense_1/kernel": "mlp.fc2.weight"}
_ATTENTION = "MultiHeadDotProductAttention_1/"
_QKV = ("query", "key", "value")


def is_google(arrays: Mapping[str, np.ndarray]) -> bool:
    """Return whether the names are those of Google's files."""
    return any(prefix + EMBEDDING in arrays for prefix in PREFIXES)


def to_timm(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights by timm's names; what has no place in a ViT keeps its own name, to be listed as extra.

    Raises:
        DamagedError: An array is of another form than in a ViT.
    """
    renamed: dict[str, np.ndarray] = {}
    parts: dict[str, dict[str, np.ndarray]] = {}
    try:
        for name, array in _without_prefix(arrays).items():
            block, short = match.groups() if (match := _BLOCK.fullmatch(name)) else ("", name)
            kind, _, end = short.removeprefix(_ATTENTION).partition("/")
            if short.startswith(_ATTENTION) and kind in _QKV:
                parts.setdefault(f"blocks.{block}.attn.qkv.{'weight' if end == 'kernel' else end}", {})[kind] = array
            else:
                own, value = _in_block(short, array) if block else _at_ends(short, array)
                renamed[f"blocks.{block}.{own}" if block else own] = value
        for name, three in parts.items():
            columns = [three[kind].reshape(len(three[kind]), -1).T if three[kind].ndim == 3 else three[kind].ravel()
                       for kind in _QKV]  # fmt: skip
            renamed[name] = np.concatenate(columns)
    except (ValueError, KeyError, IndexError) as error:
        raise DamagedError(f"its names are of Google's ViT, its arrays are not: {error}") from error
    return {name: np.ascontiguousarray(array) for name, array in renamed.items()}


def _without_prefix(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = next((prefix for prefix in PREFIXES if prefix + EMBEDDING in arrays), "")
    return {name.removeprefix(prefix): array for name, array in arrays.items()}


def _at_ends(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    if name == EMBEDDING:
        return "patch_embed.proj.weight", array.transpose(3, 2, 0, 1)
    if name == "head/kernel":
        return "head.weight", array.T
    return _ENDS.get(name, name), array


def _in_block(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    if name in _TRANSPOSED:
        return _TRANSPOSED[name], array.T
    if name == f"{_ATTENTION}out/kernel":
        return "attn.proj.weight", array.transpose(2, 0, 1).reshape(array.shape[2], -1)
    return _IN_BLOCK.get(name, name), array
