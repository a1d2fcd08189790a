"""The Vision Transformer with token skipping.

Shape letters: B images, T tokens with [CLS] first, N patches, C channels.
"""

from typing import Any, NamedTuple, Optional

import numpy as np
from mindspore import Parameter, Tensor, jit, mutable, nn, ops
from mindspore import dtype as mstype

from src.config import ImageSize
from src.models.layers import PatchEmbed
from src.models.ops import matmul, multiply
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


class Parts(NamedTuple):
    """The cells and parameters that hold a network's weights; None for what it does not have.

    Attributes:
        cls_token: None where the mean of all tokens is what the head reads.
        dist_token, head_dist: The distillation token after [CLS] and the head that reads it, in a distilled model. The
            logits are the mean of both heads', in training too: there is no teacher that one of them would learn from.
        aux_head: LV-ViT's head for patch tokens.
        predictors: DynamicViT's, one a stage.
    """

    patch_embed: PatchEmbed
    cls_token: Optional[Parameter]
    pos_embed: Parameter
    pos_drop: nn.Cell
    blocks: nn.CellList
    norm: nn.Cell
    head: nn.Dense
    dist_token: Optional[Parameter] = None
    head_dist: Any = None
    aux_head: Any = None
    predictors: Any = None


class SkipViT(nn.Cell):
    """A ViT whose unimportant patch tokens skip blocks, or are fused, as a static plan says.

    Images float32 [B, I, H, W] → logits [B, classes]. The plan has no parameters: any plan runs any weights, and
    `with_tokens` gives a second network of another plan, and of another image size, over the very same ones. Without
    the inputs of `sample`, stochastic depth draws as MindCV's layer does.

    Args:
        parts: What holds the weights.
        geometry: The sizes of the parts, and the grid of the images.
        plan: Which tokens leave and return where, resolved for this geometry.
        position_grid: Rows and columns of `pos_embed`, which is resampled where the images' grid is another; None: they
            are the same.
        auto_prefix: False for parts that have their parameters' names already.
    """

    def __init__(
        self,
        parts: Parts,
        geometry: Geometry,
        plan: Plan,
        position_grid: Optional[tuple[int, int]] = None,
        auto_prefix: bool = True,
    ) -> None:
        super().__init__(auto_prefix=auto_prefix)
        for name, part in parts._asdict().items():
            setattr(self, name, part)
        self.parts = parts
        self.geometry = geometry
        self.grid = geometry.grid
        self.position_grid = position_grid or self.grid
        same = self.position_grid == self.grid
        self.resampling = None if same else Tensor(resampling(self.position_grid, self.grid, plan.prefix))
        self.plan = plan
        self.depth = geometry.depth
        self.has_cls = parts.cls_token is not None
        self.distilled = parts.dist_token is not None
        self.drop_path_rates = [block.drop_path_rate for block in parts.blocks]
        self.router = TokenRouter(plan)
        self.predictor_of = plan.predictor_of

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
        x, skipped, _, _ = self.encode(self.embed(images), drop_path_scale, random_scores)
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
        x, _, all_scores, all_ids = self.encode(self.embed(images), drop_path_scale, random_scores)
        return self.classify(x, all_ids), all_scores, all_ids

    def encode(
        self, x: Tensor, drop_path_scale: Optional[Tensor] = None, random_scores: Optional[tuple] = None
    ) -> tuple[Tensor, tuple, tuple, tuple]:
        """Pass embedded tokens [B, T, C] through the blocks.

        Returns:
            The tokens after the last norm, those that have not returned, and scores and ids_shuffle as of
            `forward_with_scores`.
        """
        skipped: tuple = ()
        all_scores: tuple = ()
        all_ids: tuple = ()
        for i in range(self.depth):
            x, skipped = self.router.rejoin(i, x, skipped)
            x, skipped, ids_before = self.router.drop_before(i, x, self.predict(i, x), skipped, random_scores)
            x, scores, received = self.blocks[i].attn_half(x, self.path_scale(drop_path_scale, i, 0))
            x, skipped, ids_after = self.router.drop(i, x, scores, received, skipped, random_scores)
            x = self.blocks[i].mlp_half(x, self.path_scale(drop_path_scale, i, 1))
            all_scores += (scores if self.has_cls else received,)
            all_ids += ids_before + ids_after
        return self.norm(x), skipped, all_scores, all_ids

    def embed(self, images: Tensor) -> Tensor:
        """Embed images [B, I, H, W] as the prefix, if there is one, and patch tokens with positions, [B, T, C]."""
        return self.with_prefix(self.patch_embed(images, self.grid))

    def with_prefix(self, x: Tensor) -> Tensor:
        """Put the prefix, if there is one, before patch tokens [B, N, C], and add positions: [B, T, C]."""
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

    def predict(self, block: int, x: Tensor) -> Optional[Tensor]:
        """Return what a predictor expects of the tokens [B, T, C] that stand before a block, where one is asked.

        It is the logarithm of the probability to stay, float32 [B, T], and 0 for the prefix (DynamicViT).
        """
        if self.predictor_of[block] is None:
            return None
        prefix = self.plan.prefix
        stays = self.predictors[self.predictor_of[block]](x[:, prefix:])[:, :, 0]
        return ops.concat((ops.zeros_like(stays[:, :prefix]), stays), 1) if prefix else stays

    def classify(self, x: Tensor, all_ids: tuple) -> Tensor:
        """Return the logits [B, classes] of the last tokens [B, T, C].

        Args:
            all_ids: As of `forward_with_scores`; where the tokens that are left come from, for a head that asks.
        """
        return self.class_logits(x)

    def class_logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of the heads of whole images."""
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
        return type(self)(self.parts, geometry, resolve(parse(tokens), geometry), self.position_grid, False)

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

        The embedding is layer 0, block i (from 0) layer i + 1; the last norm, heads and predictors are the last layer.
        """
        blocks = r"^blocks" if coarse else r"^blocks\.(\d+)"
        return {"stem": r"^\w+_token|^pos_embed|^patch_embed", "blocks": [(blocks, None)]}

    def no_weight_decay(self) -> set[str]:
        """Return the names that MindCV's `create_optimizer` exempts from weight decay, as timm does."""
        return {"cls_token", "dist_token", "pos_embed"}
