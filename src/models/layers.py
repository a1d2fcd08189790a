"""The parts of a Vision Transformer block (arXiv 2010.11929), named as timm names them.

Shape letters: B images, T tokens, C channels, N heads, D channels of a head.
"""

from typing import Optional

from mindcv.models.layers.drop_path import DropPath
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import TruncatedNormal

from src.config.variants import NORM_EPSILON
from src.models.ops import gelu, layer_norm, multiply, sum_kept
from src.models.tokens import cls_scores, received_scores

SPREAD = 1e-6  # that a token under masks attends to all, visible or not
UNSEEN = 1e4  # above any difference of products


def dense(in_channels: int, out_channels: int, bias: bool = True) -> nn.Dense:
    """Make a linear layer initialised as timm's ViT: truncated normal of 0.02, zero bias."""
    return nn.Dense(in_channels, out_channels, weight_init=TruncatedNormal(0.02), bias_init="zeros", has_bias=bias)


class PatchEmbed(nn.Cell):
    """Embed images [B, I, H, W] of a grid of H/P rows and W/P columns as patch tokens [B, (H/P)·(W/P), C], row by row.

    The convolution of stride P is written as the matrix product that it is: on CPU Conv2d takes 100 times as long.
    """

    def __init__(self, patch_size: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.patch_dim = in_channels * patch_size**2
        self.proj = dense(self.patch_dim, embed_dim)

    def construct(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.embed(images, grid)

    def embed(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Cut images, or what comes of them, into patches, and project each."""
        rows, columns = grid
        size = self.patch_size
        x = ops.reshape(images, (-1, self.in_channels, rows, size, columns, size))
        x = ops.transpose(x, (0, 2, 4, 1, 3, 5))
        return self.proj(ops.reshape(x, (-1, rows * columns, self.patch_dim)))


class Attention(nn.Cell):
    """Multi-head self-attention: [B, T, C] → ([B, T, C], [CLS] scores [B, T], attention received [B, T]), always all.

    With `score_rows` 2 the scores are the mean of the [CLS] token's and the distillation token's. Scores are float32; a
    graph computes those that it uses. For Ascend the softmax of all rows stays in the type of its input, in which the
    kernel reads and writes (it computes in float32 inside), and only the rows of the scores are made float32, in blocks
    that use them.
    """

    def __init__(
        self, dim: int, num_heads: int, drop_rate: float, target: str, score_rows: int = 1, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.score_rows = score_rows
        self.float32_row_only = target == "ascend"
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = dense(dim, 3 * dim, qkv_bias)
        self.proj = dense(dim, dim)
        self.drop = nn.Dropout(p=drop_rate) if drop_rate else nn.Identity()
        self.weighted_keys = ops.BatchMatMul(transpose_b=True)
        self.weighted_values = ops.BatchMatMul()
        self.highest = ops.ReduceMax(keep_dims=True)

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, v = self.products(x)
        if self.float32_row_only:
            attention = ops.softmax(logits)  # [B, N, T, T]
            scores = cls_scores(ops.softmax(ops.cast(logits[:, :, : self.score_rows], mstype.float32)), self.score_rows)
        else:
            attention = ops.softmax(ops.cast(logits, mstype.float32))
            scores = cls_scores(attention, self.score_rows)
        return self.mix(attention, v), scores, received_scores(attention)

    def masked(self, x: Tensor, visible: Tensor) -> Tensor:
        """Attend to visible tokens alone, [B, T, C] → [B, T, C], by E = exp(P - max P) · visible, in float32.

        A token's attention is (E + ε/T) / (ΣE + ε), as in DynamicViT's code; but the maximum is that of the visible
        keys, where the authors take it of all, so that a key that is not seen can push those that are down to nothing.
        P - max is cut at 1, which no visible key exceeds: the gradient by `visible` of a key that is not is as if it
        weighed at most e times the heaviest of the others.

        Args:
            visible: float32 [B, 1, T, T], 1 where a query sees a key and 0 where not; every query sees some key.
        """
        logits, v = self.products(x)
        logits = ops.cast(logits, mstype.float32)
        highest = ops.stop_gradient(self.highest(logits + multiply(visible - 1.0, UNSEEN), -1))
        apart = logits - highest
        weights = ops.exp(apart - ops.stop_gradient(ops.maximum(apart - 1.0, 0.0))) * visible  # no MinimumGrad
        share = (weights + SPREAD / x.shape[1]) / (sum_kept(weights, -1) + SPREAD)
        return self.mix(share, v)

    def products(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the products of queries and keys [B, N, T, T], and the values [B, N, T, D]."""
        qkv = ops.reshape(self.qkv(x), (-1, x.shape[1], 3, self.num_heads, self.head_dim))
        q, k, v = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)))
        return self.weighted_keys(multiply(q, self.scale), k), v

    def mix(self, attention: Tensor, v: Tensor) -> Tensor:
        """Return the projected sums of values [B, N, T, D] by attention [B, N, T, T]: [B, T, C]."""
        out = self.weighted_values(ops.cast(attention, v.dtype), v)
        out = ops.reshape(ops.transpose(out, (0, 2, 1, 3)), (-1, out.shape[2], self.num_heads * self.head_dim))
        return self.drop(self.proj(out))


class Mlp(nn.Cell):
    """Two linear layers with GELU between: [B, T, C] → [B, T, C] through `hidden` channels."""

    def __init__(self, dim: int, hidden: int, act: str, drop_rate: float, target: str) -> None:
        super().__init__()
        self.fc1 = dense(dim, hidden)
        self.act = gelu(act, target)
        self.fc2 = dense(hidden, dim)
        self.drop = nn.Dropout(p=drop_rate) if drop_rate else nn.Identity()

    def construct(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Block(nn.Cell):
    """A pre-norm transformer block in its two halves, for tokens to leave between them.

    Args:
        qkv_bias, epsilon, residual_divisor: What LV-ViT's differ in: no bias of Q, K and V, LayerNorm's epsilon, and
            what attention and MLP are divided by before they are added.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_dim: int,
        act: str,
        drop_rate: float,
        drop_path_rate: float,
        target: str,
        score_rows: int = 1,
        qkv_bias: bool = True,
        epsilon: float = NORM_EPSILON["vit"],
        residual_divisor: float = 1.0,
    ) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim, target, epsilon)
        self.attn = Attention(dim, num_heads, drop_rate, target, score_rows, qkv_bias)
        self.norm2 = layer_norm(dim, target, epsilon)
        self.mlp = Mlp(dim, mlp_dim, act, drop_rate, target)
        self.share = 1 / residual_divisor
        self.drop_path_rate = drop_path_rate
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def attn_half(self, x: Tensor, scale: Optional[Tensor] = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return x + attention [B, T, C], the [CLS] scores [B, T], and the attention that tokens receive [B, T]."""
        out, scores, received = self.attn(self.norm1(x))
        return x + self.scale_path(out, scale), scores, received

    def masked_half(self, x: Tensor, visible: Tensor, scale: Optional[Tensor] = None) -> Tensor:
        """Return x + attention among visible tokens, as `Attention.masked`, [B, T, C]."""
        return x + self.scale_path(self.attn.masked(self.norm1(x), visible), scale)

    def mlp_half(self, x: Tensor, scale: Optional[Tensor] = None) -> Tensor:
        """Return x + MLP, [B, T, C]."""
        return x + self.scale_path(self.mlp(self.norm2(x)), scale)

    def scale_path(self, out: Tensor, scale: Optional[Tensor]) -> Tensor:
        """Apply the residual's divisor, and stochastic depth by the scale [B], or as MindCV's layer draws it."""
        if scale is None:
            return self.drop_path(out) if self.share == 1 else self.drop_path(multiply(out, self.share))
        return out * ops.cast(ops.reshape(multiply(scale, self.share), (-1, 1, 1)), out.dtype)

    def construct(self, x: Tensor) -> Tensor:
        x, _, _ = self.attn_half(x)
        return self.mlp_half(x)
