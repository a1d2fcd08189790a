"""Build a network of new weights."""

from typing import Optional

from mindspore import Parameter, nn
from mindspore.common.initializer import TruncatedNormal, initializer

from src.config import ImageSize
from src.config.variants import NORM_EPSILON
from src.models.layers import Block, PatchEmbed, dense
from src.models.lvvit import LVViT
from src.models.ops import choose_target, layer_norm
from src.models.predictor import Predictor
from src.models.stem import ConvStem
from src.models.vit import Parts, SkipViT
from src.schedules import Geometry, parse, resolve
from src.schedules.geometry import count_predictors

NETWORKS = {"vit": SkipViT, "lvvit": LVViT}


def build(
    tokens: str = "none",
    image_size: ImageSize = 224,
    patch_size: int = 16,
    embed_dim: int = 384,
    depth: int = 12,
    num_heads: int = 6,
    mlp_ratio: float = 4.0,
    num_classes: int = 1000,
    in_channels: int = 3,
    pool: str = "cls",
    distilled: bool = False,
    distilled_score: str = "cls",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    act: str = "gelu_tanh",
    align_tokens: int = 1,
    target: Optional[str] = None,
    backbone: str = "vit",
    residual_divisor: float = 1.0,
    predictors: Optional[int] = None,
) -> SkipViT:
    """Build a network with token skipping.

    Args:
        tokens: The schedule, as `src.schedules.parse` reads it.
        image_size: Pixels, of a square's side or (height, width).
        patch_size: Pixels of a patch's side.
        pool: `cls`, or `avg` for a model without a [CLS] token whose head reads the mean of all tokens.
        distilled: Whether there is a distillation token, with a head of its own (DeiT).
        distilled_score: `cls`, or `mean` for [CLS] scores that are the mean of the [CLS] and distillation tokens'.
        drop_rate: Dropout after position embedding, projection and MLP layers.
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0 (arXiv 1603.09382).
        act: `gelu_tanh` or `gelu_erf`.
        align_tokens: Drops leave a multiple of so many tokens; 16 is what Ascend's cube unit works in.
        target: `cpu` or `ascend`, whose kernels the network is written for; by default the device that is set.
        backbone: `vit`, or `lvvit` (arXiv 2104.10858).
        residual_divisor: What a block's attention and MLP are divided by before they are added.
        predictors: DynamicViT's; None: as many as the schedule asks.

    Raises:
        UserError: Sizes that do not fit together, an unknown `act`, `pool`, `target` or `backbone`, a refused spec.
    """
    geometry = Geometry.from_sizes(
        image_size, patch_size, embed_dim, depth, num_heads, mlp_ratio, num_classes, in_channels, align_tokens, pool,
        distilled, distilled_score, backbone, residual_divisor, count_predictors(predictors, tokens),
    )  # fmt: skip
    plan = resolve(parse(tokens), geometry)
    parts = _make_parts(geometry, drop_rate, drop_path_rate, act, choose_target(target))
    return NETWORKS[backbone](parts, geometry, plan)


def _make_parts(geometry: Geometry, drop_rate: float, drop_path_rate: float, act: str, target: str) -> Parts:
    """Make the parts of a network, with new weights; arguments as of `build`."""
    dim, prefix = geometry.embed_dim, geometry.prefix_tokens
    patches = (geometry.patch_size, geometry.in_channels, dim)
    epsilon = NORM_EPSILON[geometry.backbone]

    def head(has: bool = True) -> Optional[nn.Dense]:
        return dense(dim, geometry.num_classes) if has else None

    return Parts(
        patch_embed=ConvStem(*patches, target) if geometry.has_stem else PatchEmbed(*patches),
        cls_token=_token_weights("cls_token", 1, dim) if prefix else None,
        pos_embed=_token_weights("pos_embed", prefix + geometry.num_patches, dim),
        pos_drop=nn.Dropout(p=drop_rate) if drop_rate else nn.Identity(),
        blocks=_make_blocks(geometry, drop_rate, drop_path_rate, act, target),
        norm=layer_norm(dim, target, epsilon),
        head=head(),
        dist_token=_token_weights("dist_token", 1, dim) if geometry.distilled else None,
        head_dist=head(geometry.distilled),
        aux_head=head(geometry.labels_tokens),
        predictors=_make_predictors(geometry, act, target),
    )


def _make_blocks(geometry: Geometry, drop_rate: float, drop_path_rate: float, act: str, target: str) -> nn.CellList:
    sizes = (geometry.embed_dim, geometry.num_heads, geometry.mlp_dim, act, drop_rate)
    rates = [drop_path_rate * i / max(geometry.depth - 1, 1) for i in range(geometry.depth)]
    rest = (geometry.score_rows, geometry.qkv_bias, NORM_EPSILON[geometry.backbone], geometry.residual_divisor)
    return nn.CellList([Block(*sizes, rate, target, *rest) for rate in rates])


def _make_predictors(geometry: Geometry, act: str, target: str) -> Optional[nn.CellList]:
    if not geometry.predictors:
        return None
    return nn.CellList([Predictor(geometry.embed_dim, act, target) for _ in range(geometry.predictors)])


def _token_weights(name: str, tokens: int, dim: int) -> Parameter:
    return Parameter(initializer(TruncatedNormal(0.02), (1, tokens, dim)), name=name)
