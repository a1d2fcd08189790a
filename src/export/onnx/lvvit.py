"""LV-ViT as nodes of an ONNX graph: what src/models/lvvit.py and stem.py are in MindSpore, by their names.

BatchNorm is folded into the convolutions before it, and the residual's divisor into the layers that end attention and
MLP, so neither is in the graph. Shape letters: B images, T tokens with [CLS] first, C channels.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from src.config.variants import BATCH_NORM_EPSILON, TOKENS_SHARE
from src.export.onnx import vit
from src.export.onnx.tokens import LOWEST_FLOAT16, follow
from src.schedules import Geometry

if TYPE_CHECKING:
    from onnx_ir import Value

STRIDES = {"conv1": 2, "conv2": 1, "conv3": 1}


class LVViT(vit.SkipViT):
    """A `SkipViT` with a stem, whose logits are those of [CLS] and half of the largest of the patch tokens'."""

    def patch_embed(self, images: "Value") -> "Value":
        x = images
        for name, stride in STRIDES.items():
            padding = self.weights[f"patch_embed.{name}.weight"].shape[2] // 2
            x = self.op.Relu(self.convolve(f"patch_embed.{name}", x, stride, padding))
        return super().patch_embed(x)

    def classify(self, x: "Value", all_ids: tuple) -> "Value":
        """Return the logits [B, classes]; a fused token is left out of the largest, for none was ever labelled."""
        op, plan = self.op, self.plan
        own = self.dense("aux_head", op.Slice(x, [plan.prefix], [plan.tokens_out[-1]], [1]))
        places = follow(op, plan, all_ids)[1] if plan.schedule.fused else None
        if places is not None:
            own = op.Where(op.Unsqueeze(op.Less(places, plan.num_patches), [2]), own, LOWEST_FLOAT16)
        return op.Add(super().classify(x, all_ids), op.Mul(op.ReduceMax(own, [1], keepdims=0), TOKENS_SHARE))


def lay_out(arrays: Mapping[str, np.ndarray], geometry: Geometry) -> dict[str, np.ndarray]:
    """Return arrays as the graph reads them, as `vit.lay_out`, with BatchNorm and the residual's divisor folded in."""
    folded = {name: array for name, array in arrays.items() if not name.startswith("patch_embed.bn")}
    for name in STRIDES:
        norm = f"patch_embed.{name.replace('conv', 'bn')}"
        gamma, beta, mean, variance = (
            arrays[f"{norm}.{part}"].astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        folded[f"patch_embed.{name}.weight"] = arrays[f"patch_embed.{name}.weight"] * scale[:, None, None, None]
        folded[f"patch_embed.{name}.bias"] = beta - mean * scale
    for name, array in arrays.items():
        if name.startswith("blocks.") and (".attn.proj." in name or ".mlp.fc2." in name):
            folded[name] = array / geometry.residual_divisor
    return vit.lay_out(folded, geometry)
