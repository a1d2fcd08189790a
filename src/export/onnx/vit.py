"""The network as nodes of an ONNX graph: what src/models/vit.py, layers.py and predictor.py are, by their names.

Shape letters: B images, T tokens with the prefix first, N patches, C channels, H heads, D channels of a head.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Optional

import numpy as np

from src.config.variants import NORM_EPSILON, PREDICTOR_EPSILON
from src.export.onnx.tokens import FLOAT, TokenRouter, for_each
from src.schedules import Geometry, Plan

if TYPE_CHECKING:
    from onnx_ir import Value
    from onnxscript import GraphBuilder

APPROXIMATE = {"gelu_tanh": "tanh", "gelu_erf": "none"}  # of ONNX's Gelu


class SkipViT:
    """A ViT whose unimportant patch tokens skip blocks, or are fused, as a static plan says.

    Args:
        builder: Of the graph to write to.
        images: Its input, float32 [B, I, H, W], normalised.
        weights: By our names, as `lay_out` returns them.
        act: `gelu_tanh` or `gelu_erf`.
        float16: Whether the weights are stored so; what is computed stays float32.
    """

    def __init__(
        self,
        builder: "GraphBuilder",
        images: "Value",
        weights: Mapping[str, np.ndarray],
        geometry: Geometry,
        plan: Plan,
        act: str,
        float16: bool = False,
    ) -> None:
        self.builder = builder
        self.op = builder.op
        self.images = images
        self.weights = weights
        self.geometry = geometry
        self.plan = plan
        self.approximate = APPROXIMATE[act]
        self.float16 = float16
        self.router = TokenRouter(self.op, images, plan, geometry.score_rows)

    def construct(self) -> "tuple[Value, tuple]":
        """Return logits [B, classes], and each drop's ids_shuffle [B, T]."""
        x, all_ids = self.encode(self.images)
        return self.classify(x, all_ids), all_ids

    def encode(self, images: "Value") -> "tuple[Value, tuple]":
        """Return the tokens after the last norm [B, T, C], and each drop's ids_shuffle."""
        x = self.embed(images)
        skipped: tuple = ()
        all_ids: tuple = ()
        for i in range(self.geometry.depth):
            x, skipped = self.router.rejoin(i, x, skipped)
            x, skipped, ids_before = self.router.drop_before(i, x, self.predict(i, x), skipped)
            x, attention = self.attn_half(i, x)
            x, skipped, ids_after = self.router.drop(i, x, attention, skipped)
            x = self.mlp_half(i, x)
            all_ids += ids_before + ids_after
        return self.norm("norm", x), all_ids

    def embed(self, images: "Value") -> "Value":
        """Embed images [B, I, H, W] as the prefix, if there is one, and patch tokens with positions, [B, T, C]."""
        op = self.op
        x = self.patch_embed(images)
        x = op.Transpose(op.Reshape(x, [0, self.geometry.embed_dim, self.geometry.num_patches]), perm=[0, 2, 1])
        names = ["cls_token", "dist_token"][: self.geometry.prefix_tokens]
        prefix = [for_each(op, images, self.weight(name), 1, self.geometry.embed_dim) for name in names]
        if prefix:
            x = op.Concat(*prefix, x, axis=1)
        return op.Add(x, self.weight("pos_embed"))

    def patch_embed(self, images: "Value") -> "Value":
        """Embed the patches of images: [B, C, rows, columns]."""
        return self.convolve("patch_embed.proj", images, self.geometry.cut_size)

    def convolve(self, name: str, x: "Value", stride: int, padding: int = 0) -> "Value":
        pads = [padding] * 4
        return self.op.Conv(
            x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), strides=[stride, stride], pads=pads
        )

    def predict(self, i: int, x: "Value") -> "Optional[Value]":
        """Return the logarithm of the probability that each token [B, T, C] stays, where a predictor is asked.

        It is float32 [B, T], and 0 for the prefix. What half of the channels have in common over all tokens goes
        through its own rows of the layer, rather than to each token.
        """
        drop, predictor, op = self.plan.drops[i], self.plan.predictor_of[i], self.op
        if drop is None or predictor is None:
            return None
        name, prefix = f"predictors.{predictor}", self.plan.prefix
        x = op.Slice(x, [prefix], [prefix + drop.present], [1])
        x = self.gelu(self.dense(f"{name}.in_proj", self.norm(f"{name}.in_norm", x, PREDICTOR_EPSILON)))
        own, shared = op.Split(x, num_outputs=2, axis=2, _outputs=2)
        shared = op.ReduceMean(shared, [1], keepdims=1)
        of_own, of_shared = op.Split(self.weight(f"{name}.out1.weight"), num_outputs=2, axis=0, _outputs=2)
        x = op.Add(op.MatMul(own, of_own), op.Add(op.MatMul(shared, of_shared), self.weight(f"{name}.out1.bias")))
        x = self.dense(f"{name}.out3", self.gelu(self.dense(f"{name}.out2", self.gelu(x))))
        stays = op.Gather(op.LogSoftmax(x, axis=-1), 0, axis=2)
        return op.Pad(stays, [0, prefix, 0, 0], 0.0) if prefix else stays

    def attn_half(self, i: int, x: "Value") -> "tuple[Value, Value]":
        """Return x + attention [B, T, C], and the attention of a block's heads [B, H, T, T]."""
        out, attention = self.attention(f"blocks.{i}.attn", self.norm(f"blocks.{i}.norm1", x))
        return self.op.Add(x, out), attention

    def attention(self, name: str, x: "Value") -> "tuple[Value, Value]":
        """Attend: [B, T, C] → [B, T, C], [B, H, T, T]."""
        op, heads = self.op, self.geometry.num_heads
        head_dim = self.geometry.embed_dim // heads
        parts = op.Split(self.dense(f"{name}.qkv", x), num_outputs=3, axis=2, _outputs=3)
        q, k, v = (op.Transpose(op.Reshape(part, [0, 0, heads, head_dim]), perm=[0, 2, 1, 3]) for part in parts)
        logits = op.MatMul(op.Mul(q, head_dim**-0.5), op.Transpose(k, perm=[0, 1, 3, 2]))
        attention = op.Softmax(logits, axis=-1)
        out = op.Transpose(op.MatMul(attention, v), perm=[0, 2, 1, 3])
        return self.dense(f"{name}.proj", op.Reshape(out, [0, 0, self.geometry.embed_dim])), attention

    def mlp_half(self, i: int, x: "Value") -> "Value":
        """Return x + MLP, [B, T, C]."""
        hidden = self.dense(f"blocks.{i}.mlp.fc1", self.norm(f"blocks.{i}.norm2", x))
        return self.op.Add(x, self.dense(f"blocks.{i}.mlp.fc2", self.gelu(hidden)))

    def classify(self, x: "Value", all_ids: tuple) -> "Value":
        """Return the logits [B, classes] of tokens [B, T, C], that each drop's ids_shuffle left."""
        logits = self.dense("head", self.pool(x))
        if not self.geometry.distilled:
            return logits
        return self.op.Mul(self.op.Add(logits, self.dense("head_dist", self.op.Gather(x, 1, axis=1))), 0.5)

    def pool(self, x: "Value") -> "Value":
        """Return what the head reads of tokens [B, T, C]: [CLS], or the mean of those that are there, [B, C]."""
        return self.op.Gather(x, 0, axis=1) if self.plan.prefix else self.op.ReduceMean(x, [1], keepdims=0)

    def norm(self, name: str, x: "Value", epsilon: Optional[float] = None) -> "Value":
        gamma, beta = self.weight(f"{name}.gamma"), self.weight(f"{name}.beta")
        epsilon = epsilon or NORM_EPSILON[self.geometry.backbone]
        return self.op.LayerNormalization(x, gamma, beta, axis=-1, epsilon=epsilon)

    def gelu(self, x: "Value") -> "Value":
        return self.op.Gelu(x, approximate=self.approximate)

    def dense(self, name: str, x: "Value") -> "Value":
        product = self.op.MatMul(x, self.weight(f"{name}.weight"))
        return self.op.Add(product, self.weight(f"{name}.bias")) if f"{name}.bias" in self.weights else product

    def weight(self, name: str) -> "Value":
        """Return a weight as float32."""
        import onnx_ir as ir

        stored = self.weights[name].astype(np.float16 if self.float16 else np.float32)
        value = self.builder.initializer(ir.tensor(stored, name=name))
        return self.op.Cast(value, to=FLOAT) if self.float16 else value


def lay_out(arrays: Mapping[str, np.ndarray], geometry: Geometry) -> dict[str, np.ndarray]:
    """Return arrays as the graph reads them: matrices [in, out], the patch embedding's kernel [C, I, P, P]."""
    size, laid_out = geometry.cut_size, dict(arrays)
    for name, array in arrays.items():
        if name == "patch_embed.proj.weight":
            laid_out[name] = array.reshape(len(array), -1, size, size)
        elif array.ndim == 2:
            laid_out[name] = np.ascontiguousarray(array.T)
    return laid_out
