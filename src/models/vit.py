"""The Vision Transformer with token skipping.

Shape letters: B images, T tokens with [CLS] first, N patches, C channels.
"""

from typing import Any, NamedTuple, Optional

import numpy as np
from mindspore import Parameter, Tensor, jit, mutable, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import TruncatedNormal, initializer

from src.config import ImageSize
from src.models.layers import Block, PatchEmbed, dense
from src.models.ops import choose_target, layer_norm, matmul, multiply
from src.models.router import TokenRouter
from src.schedules import Geometry, Plan, parse, resolve
from src.schedules.notation import refuse_oracle
from src.weights.positions import adapt, resampling


class RandomInputs(NamedTuple):
    """The random numbers of a pass, inputs of a network after the images; None for what the pass does not need.

    Attributes:
        drop_path_scale: float32 [B, depth, 2]: stochastic depth's factor of each block's attention and MLP, 0 or
            1 / (1 - rate) (arXiv 1603.09382).
        random_scores: For each drop with a random ranking float32 [B, T], which it ranks by; `src.models.oracle` gives
            what an oracle ranks by in their place.
    """

    drop_path_scale: Optional[Tensor] = None
    random_scores: Optional[tuple[Tensor, ...]] = None


class SkipViT(nn.Cell):
    """A ViT whose unimportant patch tokens skip blocks, or are fused, as a static plan says.

    Images float32 [B, I, H, W] → logits [B, classes]. The plan has no parameters: any plan runs any weights, and
    `with_tokens` gives a second network of another plan, and of another image size, over the very same ones. Without
    the inputs of `sample`, stochastic depth draws as MindCV's layer does.

    Args:
        patch_embed, cls_token, pos_embed, pos_drop, blocks, norm, head: The parts that hold the weights; no `cls_token`
            where the mean of all tokens is what the head reads.
        geometry: The sizes of the parts, and the grid of the images.
        plan: Which tokens leave and return where, resolved for this geometry.
        position_grid: Rows and columns of `pos_embed`, which is resampled where the images' grid is another; None: they
            are the same.
        auto_prefix: False for parts that have their parameters' names already.
        dist_token, head_dist: The distillation token after [CLS] and the head that reads it, in a distilled model. The
            logits are the mean of both heads', in training too: there is no teacher that one of them would learn from.
    """

    def __init__(
        self,
        patch_embed: PatchEmbed,
        cls_token: Optional[Parameter],
        pos_embed: Parameter,
        pos_drop: nn.Cell,
        blocks: nn.CellList,
        norm: nn.Cell,
        head: nn.Dense,
        geometry: Geometry,
        plan: Plan,
        position_grid: Optional[tuple[int, int]] = None,
        auto_prefix: bool = True,
        dist_token: Optional[Parameter] = None,
        head_dist: Optional[nn.Dense] = None,
    ) -> None:
        super().__init__(auto_prefix=auto_prefix)
        self.patch_embed = patch_embed
        self.cls_token = cls_token
        self.pos_embed = pos_embed
        self.pos_drop = pos_drop
        self.blocks = blocks
        self.norm = norm
        self.head = head
        self.dist_token = dist_token
        self.head_dist: Any = head_dist  # None where `distilled` is false
        self.geometry = geometry
        self.grid = geometry.grid
        self.position_grid = position_grid or self.grid
        same = self.position_grid == self.grid
        self.resampling = None if same else Tensor(resampling(self.position_grid, self.grid, plan.prefix))
        self.plan = plan
        self.depth = geometry.depth
        self.has_cls = cls_token is not None
        self.distilled = dist_token is not None
        self.drop_path_rates = [block.drop_path_rate for block in blocks]
        self.router = TokenRouter(plan)

    def construct(
        self, images: Tensor, drop_path_scale: Optional[Tensor] = None, random_scores: Optional[tuple] = None
    ) -> Tensor:
        logits, _, _ = self.forward_with_scores(images, drop_path_scale, random_scores)
        return logits

    @jit
    def features(
        self, images: Tensor, drop_path_scale: Optional[Tensor] = None, random_scores: Optional[tuple] = None
    ) -> Tensor:
        """Return the tokens after the last norm in the order of the grid, float32 [B, H/P, W/P, C].

        They are 0 where the schedule has dropped tokens for good; `features_and_mask` says where.
        """
        features, _ = self.features_and_mask(images, drop_path_scale, random_scores)
        return features

    @jit
    def features_and_mask(
        self, images: Tensor, drop_path_scale: Optional[Tensor] = None, random_scores: Optional[tuple] = None
    ) -> tuple[Tensor, Tensor]:
        """Return `features`, and float32 [B, H/P, W/P] that is 1 where a token is, and 0 where it is missing."""
        x, skipped, _, _ = self.encode(images, drop_path_scale, random_scores)
        x = ops.cast(x, mstype.float32)
        (rows, columns), prefix = self.grid, self.plan.prefix
        features = self.router.spread(x, skipped)[:, prefix:]
        mask = self.router.spread(ops.ones_like(x[:, :, :1]), skipped)[:, prefix:]
        shape = (-1, rows, columns)
        return ops.reshape(features, (*shape, features.shape[2])), ops.reshape(mask, shape)

    def forward_with_scores(
        self, images: Tensor, drop_path_scale: Optional[Tensor] = None, random_scores: Optional[tuple] = None
    ) -> tuple[Tensor, tuple, tuple]:
        """Return logits [B, classes], each block's scores [B, T], and each drop's ids_shuffle [B, T].

        Scores are the [CLS] token's attention, or where there is none the attention that tokens receive.
        """
        x, _, all_scores, all_ids = self.encode(images, drop_path_scale, random_scores)
        return self.classify(x), all_scores, all_ids

    def encode(
        self, images: Tensor, drop_path_scale: Optional[Tensor] = None, random_scores: Optional[tuple] = None
    ) -> tuple[Tensor, tuple, tuple, tuple]:
        """Return the tokens after the last norm [B, T, C], what has not returned, and scores and ids_shuffle."""
        x = self.embed(images)
        skipped: tuple = ()
        all_scores: tuple = ()
        all_ids: tuple = ()
        for i in range(self.depth):
            x, skipped = self.router.rejoin(i, x, skipped)
            x, skipped, ids_before = self.router.drop_before(i, x, skipped, random_scores)
            x, scores, received = self.blocks[i].attn_half(x, self.path_scale(drop_path_scale, i, 0))
            x, skipped, ids_after = self.router.drop(i, x, scores, received, skipped, random_scores)
            x = self.blocks[i].mlp_half(x, self.path_scale(drop_path_scale, i, 1))
            all_scores += (scores if self.has_cls else received,)
            all_ids += ids_before + ids_after
        return self.norm(x), skipped, all_scores, all_ids

    def embed(self, images: Tensor) -> Tensor:
        """Embed images [B, I, H, W] as the prefix, if there is one, and patch tokens with positions, [B, T, C]."""
        x = self.patch_embed(images, self.grid)
        if self.distilled:
            dist = ops.broadcast_to(ops.cast(self.dist_token, x.dtype), (x.shape[0], 1, x.shape[2]))
            x = ops.concat((dist, x), 1)
        if self.has_cls:
            cls = ops.broadcast_to(ops.cast(self.cls_token, x.dtype), (x.shape[0], 1, x.shape[2]))
            x = ops.concat((cls, x), 1)
        return self.pos_drop(x + ops.cast(self.positions(), x.dtype))

    def positions(self) -> Tensor:
        """Return the position embedding of the images' grid, float32 [1, T, C]."""
        if self.resampling is None:
            return self.pos_embed
        _, tokens, channels = self.pos_embed.shape
        return ops.reshape(matmul(self.resampling, ops.reshape(self.pos_embed, (tokens, channels))), (1, -1, channels))

    def classify(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of tokens [B, T, C]."""
        logits = self.head(self.pool(x))
        return multiply(logits + self.head_dist(x[:, 1]), 0.5) if self.distilled else logits

    def pool(self, x: Tensor) -> Tensor:
        """Return what the head reads of tokens [B, T, C]: [CLS], or the mean of those that are there, [B, C]."""
        return x[:, 0] if self.has_cls else ops.cast(ops.reduce_mean(ops.cast(x, mstype.float32), 1), x.dtype)

    def path_scale(self, drop_path_scale: Optional[Tensor], block: int, half: int) -> Optional[Tensor]:
        """Return stochastic depth's factors [B] for half a block; None if none were given."""
        return None if drop_path_scale is None else drop_path_scale[:, block, half]

    def positions_from(self, positions: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """Resample a position embedding of another grid [1, prefix + patches, C] to the one that is stored here.

        One with another number of tokens before the patches is of another model, and returned as it is.
        """
        return adapt(positions, self.plan.prefix, grid, self.position_grid)

    def with_tokens(self, tokens: str, image_size: Optional[ImageSize] = None) -> "SkipViT":
        """Return the network of another schedule over the same parameters; of another image size too, if one is given.

        Raises:
            UserError: The spec is refused for this model, or the size is no multiple of the patch size.
        """
        geometry = self.geometry if image_size is None else self.geometry.at(image_size)
        return SkipViT(
            self.patch_embed, self.cls_token, self.pos_embed, self.pos_drop, self.blocks, self.norm, self.head,
            geometry, resolve(parse(tokens), geometry), self.position_grid, False,
            self.dist_token, self.head_dist,
        )  # fmt: skip

    def sample(self, images: int, *seed: int) -> RandomInputs:
        """Draw the random numbers of a pass over so many images, the same for the same seed.

        Stochastic depth is random in training alone, a random ranking always.

        Raises:
            UserError: The schedule asks an oracle, which only training has.
        """
        if not self.training:
            refuse_oracle(self.plan.schedule)
        generator = np.random.default_rng(seed)
        scale, scores = None, None
        if self.training and max(self.drop_path_rates) > 0:
            rates = np.repeat(self.drop_path_rates, 2)
            drawn = (generator.random((images, len(rates))) >= rates) / (1 - rates)
            scale = Tensor(drawn.reshape(images, self.depth, 2).astype(np.float32))
        lengths = [self.plan.prefix + drop.present for drop in self.plan.drops if drop and drop.ranking == "random"]
        if lengths:
            parts = np.split(generator.random((images, sum(lengths))), np.cumsum(lengths)[:-1], axis=1)
            scores = mutable(tuple(Tensor(part.astype(np.float32)) for part in parts))  # else each pass compiles anew
        return RandomInputs(scale, scores)

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Return the patterns that MindCV's `group_with_matcher` makes layers of, as timm's ViT has them.

        The embedding is layer 0, block i (from 0) layer i + 1, the last norm and the head together are the last layer.
        """
        blocks = r"^blocks" if coarse else r"^blocks\.(\d+)"
        return {"stem": r"^\w+_token|^pos_embed|^patch_embed", "blocks": [(blocks, None)]}

    def no_weight_decay(self) -> set[str]:
        """Return the names that MindCV's `create_optimizer` exempts from weight decay, as timm does."""
        return {"cls_token", "dist_token", "pos_embed"}


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
) -> SkipViT:
    """Build a SkipViT.

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

    Raises:
        UserError: Sizes that do not fit together, an unknown `act`, `pool` or `target`, a refused spec.
    """
    geometry = Geometry.from_sizes(
        image_size, patch_size, embed_dim, depth, num_heads, mlp_ratio, num_classes, in_channels, align_tokens, pool,
        distilled, distilled_score,
    )  # fmt: skip
    return _assemble(
        geometry, resolve(parse(tokens), geometry), drop_rate, drop_path_rate, act, choose_target(target)
    )  # fmt: skip


def _assemble(
    geometry: Geometry, plan: Plan, drop_rate: float, drop_path_rate: float, act: str, target: str
) -> SkipViT:
    """Make the parts of a network, with new weights; arguments as of `build`."""
    dim, depth, prefix = geometry.embed_dim, geometry.depth, geometry.prefix_tokens
    rates = [drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
    block_sizes = (dim, geometry.num_heads, geometry.mlp_dim, act, drop_rate)
    return SkipViT(
        PatchEmbed(geometry.patch_size, geometry.in_channels, dim),
        cls_token=_token_weights("cls_token", 1, dim) if prefix else None,
        pos_embed=_token_weights("pos_embed", prefix + geometry.num_patches, dim),
        pos_drop=nn.Dropout(p=drop_rate) if drop_rate else nn.Identity(),
        blocks=nn.CellList([Block(*block_sizes, rate, target, geometry.score_rows) for rate in rates]),
        norm=layer_norm(dim, target),
        head=dense(dim, geometry.num_classes),
        geometry=geometry,
        plan=plan,
        dist_token=_token_weights("dist_token", 1, dim) if geometry.distilled else None,
        head_dist=dense(dim, geometry.num_classes) if geometry.distilled else None,
    )


def _token_weights(name: str, tokens: int, dim: int) -> Parameter:
    return Parameter(initializer(TruncatedNormal(0.02), (1, tokens, dim)), name=name)
