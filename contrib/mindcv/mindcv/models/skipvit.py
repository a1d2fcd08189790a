"""
MindSpore implementation of `SkipViT`.
Refer to SkipViT: Speeding Up Vision Transformers with a Token-Level Skip Connection.
"""

import functools
import math
from typing import Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops

from .helpers import load_pretrained
from .registry import register_model
from .vit import Attention, Block, VisionTransformer

__all__ = [
    "SkipViT",
    "skipvit_base",
    "skipvit_small",
    "skipvit_small_fused",
    "skipvit_tiny",
]


def _cfg(url="", **kwargs):
    return {
        "url": url,
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        **kwargs,
    }


default_cfgs = {
    "skipvit_tiny": _cfg(),
    "skipvit_small": _cfg(),
    "skipvit_base": _cfg(),
    "skipvit_small_fused": _cfg(),
}


def rank(scores: Tensor, keep: int) -> tuple:
    """
    Find the permutation that brings [CLS] and the `keep` best patch tokens to the front, both groups in their order.

    Every pair of scores is compared: exact in any type, and of equal scores the lower index is kept. NaN counts as
    -65504 and a subnormal number as 0, so that the result is a permutation whatever the scores are.

    Args:
        scores (Tensor): The score of each token, shape (B, T), [CLS] first.
        keep (int): The number of patch tokens that stay, 0 < keep < T - 1.

    Returns:
        Tuple of two int32 Tensors of shape (B, T): where each token of the new order comes from, and where each token
        of the old order goes to.
    """
    scores = ops.stop_gradient(scores)[:, 1:].astype(ms.float32)
    scores = ops.select(ops.equal(scores, scores), scores, ops.full_like(scores, -65504.0))
    subnormal = ops.less(ops.abs(scores), ops.full_like(scores, 2.0**-126))
    scores = ops.select(subnormal, ops.zeros_like(scores), scores)
    index = ops.cumsum(ops.ones_like(scores).astype(ms.int32), 1)  # 1, 2, 3, ...: the place after [CLS]

    own, other = ops.expand_dims(scores, 2), ops.expand_dims(scores, 1)
    earlier = ops.less(ops.expand_dims(index, 1), ops.expand_dims(index, 2))
    better = ops.logical_or(ops.greater(other, own), ops.logical_and(ops.equal(other, own), earlier))
    better = ops.reduce_sum(better.astype(ms.float32), 2)
    kept = ops.less(better, ops.full_like(better, float(keep)))

    kept_so_far = ops.cumsum(kept.astype(ms.int32), 1)
    restore = ops.select(kept, kept_so_far, index - kept_so_far + keep)
    restore = ops.concat((ops.zeros_like(restore[:, :1]), restore), axis=1)
    return invert(restore), restore


def invert(permutation: Tensor) -> Tensor:
    """Invert the permutation in each row of an int32 Tensor of shape (B, T)."""
    b, t = permutation.shape
    ones = ops.ones_like(permutation)
    row, column = ops.cumsum(ones, 0) - 1, ops.cumsum(ones, 1) - 1
    places = ops.reshape(row * t + permutation, (-1, 1))
    return ops.reshape(ops.scatter_nd(places, ops.reshape(column, (-1,)), (b * t,)), (b, t))


class Permute(nn.Cell):
    """Reorder tokens by a permutation of each image's; the gradient is reordered by its inverse, never scattered."""

    def construct(self, x: Tensor, permutation: Tensor, inverse: Tensor) -> Tensor:
        return ops.gather(x, permutation, 1, 1)

    def bprop(self, x, permutation, inverse, out, dout):
        return ops.gather(dout, inverse, 1, 1), ops.zeros_like(permutation), ops.zeros_like(inverse)


class SkipAttention(Attention):
    """Attention of ViT that also returns each token's score: the attention of [CLS] to it, mean over heads."""

    def construct(self, x: Tensor) -> tuple:
        b, n, c = x.shape
        qkv = self.reshape(self.qkv(x), (b, n, 3, self.num_heads, self.head_dim))
        q, k, v = self.unstack(self.transpose(qkv, (2, 0, 3, 1, 4)))
        q, k = self.q_norm(q), self.k_norm(k)

        attn = self.mul(self.q_matmul_k(q, k), self.scale)
        attn = ops.softmax(attn.astype(ms.float32), axis=-1)
        scores = ops.reduce_mean(attn[:, :, 0], 1)

        out = self.attn_matmul_v(self.attn_drop(attn).astype(v.dtype), v)
        out = self.reshape(self.transpose(out, (0, 2, 1, 3)), (b, n, c))
        return self.proj_drop(self.proj(out)), scores


class SkipBlock(Block):
    """Block of ViT in its two halves, between which tokens leave."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool,
        qk_norm: bool,
        proj_drop: float,
        attn_drop: float,
        norm_layer: nn.Cell,
        **kwargs,
    ) -> None:
        attention = dict(
            dim=dim,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
            norm_layer=norm_layer,
        )
        super().__init__(**attention, **kwargs)
        self.attn = SkipAttention(**attention)

    def attend(self, x: Tensor) -> tuple:
        out, scores = self.attn(self.norm1(x))
        return x + self.drop_path1(self.ls1(out)), scores

    def feed_forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class SkipViT(VisionTransformer):
    r"""SkipViT model class, based on
    `"SkipViT: Speeding Up Vision Transformers with a Token-Level Skip Connection" <https://arxiv.org/abs/2401.15293>`_

    Patch tokens to which [CLS] pays little attention skip the blocks in the middle. With `fuse` they are fused to one
    token for good instead, as in `"EViT" <https://arxiv.org/abs/2202.07800>`_. No parameter is added: any schedule runs
    any weights of a ViT of the same size. Without `drop_blocks` this is a ViT.

    Args:
        drop_blocks (Sequence[int]): Blocks, counted from 1, after whose attention tokens leave. Default: ().
        drop_ratios (Sequence[float]): The share of the patch tokens present that leaves in each. Default: ().
        rejoin_block (int): The block before which they return to their places; 0: never. Default: 0.
        fuse (bool): Whether those that leave a block are fused to one token that stays. Default: False.
        image_size (int): The size of the input image. Default: 224.
        patch_size (int): The size of a patch. Default: 16.
        in_channels (int): The number of channels of the input. Default: 3.
        embed_dim (int): The dimension of embedding. Default: 384.
        depth (int): The number of blocks. Default: 12.
        num_heads (int): The number of attention heads. Default: 6.
        mlp_ratio (float): The hidden dimension of the MLP by that of embedding. Default: 4.
        drop_rate (float): The drop rate before the classifier. Default: 0.
        drop_path_rate (float): The stochastic depth rate of the last block. Default: 0.
        num_classes (int): The number of classes. Default: 1000.
    """

    def __init__(
        self,
        drop_blocks: Sequence[int] = (),
        drop_ratios: Sequence[float] = (),
        rejoin_block: int = 0,
        fuse: bool = False,
        image_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        num_classes: int = 1000,
    ) -> None:
        super().__init__(
            image_size=image_size,
            patch_size=patch_size,
            in_channels=in_channels,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            num_classes=num_classes,
            block_fn=SkipBlock,
            norm_layer=functools.partial(nn.LayerNorm, epsilon=1e-6),
        )
        self.depth = depth
        self.fuse = fuse
        self.keep = self._resolve(drop_blocks, drop_ratios, rejoin_block)
        self.rejoin = tuple(block + 1 == rejoin_block for block in range(depth))
        self.permute = Permute()

    def _resolve(self, drop_blocks: Sequence[int], drop_ratios: Sequence[float], rejoin_block: int) -> tuple:
        """Return the number of patch tokens that stay in each block, 0 where none leave: before any tensor exists."""
        blocks = tuple(drop_blocks)
        if len(blocks) != len(drop_ratios) or blocks != tuple(sorted(set(blocks))):
            raise ValueError(f"drop_blocks {blocks} must ascend, and have a ratio each, but got {tuple(drop_ratios)}")
        if blocks and not (blocks[0] >= 1 and blocks[-1] <= self.depth):
            raise ValueError(f"drop_blocks {blocks} must be of blocks 1 to {self.depth}")
        if rejoin_block and not (blocks and blocks[-1] < rejoin_block <= self.depth and not self.fuse):
            raise ValueError(f"rejoin_block {rejoin_block} must follow the last of drop_blocks {blocks}, without fuse")
        keep, patches = [0] * self.depth, self.patch_embed.num_patches
        for block, ratio in zip(blocks, drop_ratios):
            leave = math.floor(ratio * patches + 1e-6)  # 0.29 * 100 is 28.999999999999996
            if not 0 <= leave < patches:
                raise ValueError(f"ratio {ratio} keeps {patches - leave} of {patches} tokens in block {block}")
            if leave:
                keep[block - 1] = patches - leave
                patches = patches - leave + self.fuse
        return tuple(keep)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self._pos_embed(self.patch_embed(x))
        skipped = ()
        for i in range(self.depth):
            if self.rejoin[i]:
                for dropped, order, restore in skipped:
                    x = self.permute(ops.concat((x, dropped), axis=1), restore, order)
            x, scores = self.blocks[i].attend(x)
            if self.keep[i]:
                x, left = self.drop(x, scores, self.keep[i])
                skipped = (left,) + skipped
            x = self.blocks[i].feed_forward(x)
        return self.norm(x)

    def drop(self, x: Tensor, scores: Tensor, keep: int) -> tuple:
        """Take out all patch tokens but the `keep` best; return what stays, and what a return of the rest needs."""
        order, restore = rank(scores, keep)
        x = self.permute(x, order, restore)
        kept, dropped = x[:, : keep + 1], x[:, keep + 1 :]
        if self.fuse:
            weights = self.permute(ops.expand_dims(scores, -1), order, restore)[:, keep + 1 :]
            fused = ops.expand_dims(ops.reduce_sum(dropped.astype(ms.float32) * weights, 1), 1)
            kept = ops.concat((kept, fused.astype(kept.dtype)), axis=1)
        return kept, (dropped, order, restore)

    def no_weight_decay(self):
        return {"pos_embed", "cls_token"}


def _create_skipvit(name: str, pretrained: bool, num_classes: int, in_channels: int, **kwargs):
    model = SkipViT(num_classes=num_classes, in_channels=in_channels, **kwargs)
    if pretrained:
        load_pretrained(model, default_cfgs[name], num_classes=num_classes, in_channels=in_channels)
    return model


@register_model
def skipvit_tiny(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs):
    """SkipViT of DeiT-Ti's size: 55% of the patch tokens skip from block 6 to block 11."""
    model_args = dict(embed_dim=192, num_heads=3, drop_blocks=(6,), drop_ratios=(0.55,), rejoin_block=11)
    return _create_skipvit("skipvit_tiny", pretrained, num_classes, in_channels, **dict(model_args, **kwargs))


@register_model
def skipvit_small(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs):
    """SkipViT of DeiT-S's size, the paper's: 55% of the patch tokens skip from block 6 to block 11."""
    model_args = dict(embed_dim=384, num_heads=6, drop_blocks=(6,), drop_ratios=(0.55,), rejoin_block=11)
    return _create_skipvit("skipvit_small", pretrained, num_classes, in_channels, **dict(model_args, **kwargs))


@register_model
def skipvit_base(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs):
    """SkipViT of DeiT-B's size: 55% of the patch tokens skip from block 6 to block 11."""
    model_args = dict(embed_dim=768, num_heads=12, drop_blocks=(6,), drop_ratios=(0.55,), rejoin_block=11)
    return _create_skipvit("skipvit_base", pretrained, num_classes, in_channels, **dict(model_args, **kwargs))


@register_model
def skipvit_small_fused(pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3, **kwargs):
    """ViT of DeiT-S's size in which 45% of the patch tokens are fused to one in block 6, after EViT."""
    model_args = dict(embed_dim=384, num_heads=6, drop_blocks=(6,), drop_ratios=(0.45,), fuse=True)
    return _create_skipvit("skipvit_small_fused", pretrained, num_classes, in_channels, **dict(model_args, **kwargs))
