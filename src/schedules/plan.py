"""A schedule resolved for a model's geometry: tokens of each block, MACs and ideal gain, before any tensor exists."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Optional

from src.config import IMAGENET_CLASSES, ImageSize, ModelConfig, sides
from src.config.variants import sizes_of
from src.errors import UserError
from src.schedules.notation import Route, Schedule, parse, refusal
from src.schedules.rankings import BY_CLS, FIXED, RANKINGS, fixed_positions

POOLS = ("cls", "avg")
BACKBONES = ("vit", "lvvit")
STEM_CHANNELS = 64  # of LV-ViT's convolutions, in all its sizes but the largest
DISTILLED_SCORES = {"cls": 1, "mean": 2}


@dataclass(frozen=True)
class Geometry:
    """The sizes of a ViT that decide its tokens, MACs and parameters.

    Attributes:
        grid: Rows and columns of patches.
        patch_size: Pixels of a patch's side.
        mlp_dim: Hidden channels of the MLP.
        align_tokens: Every drop leaves a multiple of so many tokens, [CLS] and fused token included.
        pool: What the head reads: `cls`, the [CLS] token, or `avg`, the mean of all tokens of a model without one.
        distilled: Whether a distillation token follows the [CLS] token, with a head of its own (arXiv 2012.12877).
        score_rows: Tokens whose attention makes the [CLS] scores: the [CLS] token, or it and the distillation token.
        backbone: `vit`; or `lvvit`, with a stem of convolutions, no bias of Q, K and V, and a head for patch tokens.
        residual_divisor: What a block's attention and MLP are divided by before they are added.
        predictors: DynamicViT's predictors of who stays, one a stage.
    """

    grid: tuple[int, int]
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    num_classes: int
    in_channels: int = 3
    align_tokens: int = 1
    pool: str = "cls"
    distilled: bool = False
    score_rows: int = 1
    backbone: str = "vit"
    residual_divisor: float = 1.0
    predictors: int = 0

    @property
    def has_stem(self) -> bool:
        """Whether convolutions come before the patch embedding, which then reads half as many pixels each way."""
        return self.backbone == "lvvit"

    @property
    def qkv_bias(self) -> bool:
        return self.backbone == "vit"

    @property
    def labels_tokens(self) -> bool:
        """Whether a second head classifies the patch tokens (LV-ViT)."""
        return self.backbone == "lvvit"

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches, which never leave."""
        return 1 + self.distilled if self.pool == "cls" else 0

    @property
    def classifiers(self) -> int:
        """Classifiers, whose logits are averaged."""
        return 1 + self.distilled

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    @property
    def cut_size(self) -> int:
        """The side of what the patch embedding cuts out: a patch, or what the stem has made half as large."""
        return self.patch_size // 2 if self.has_stem else self.patch_size

    @property
    def patch_dim(self) -> int:
        """Numbers that the patch embedding reads of a patch: its pixels, or what the stem makes of them."""
        return (STEM_CHANNELS if self.has_stem else self.in_channels) * self.cut_size**2

    @property
    def parameters(self) -> int:
        """The number of weights; of all schedules, predictors' alone add some."""
        dim, hidden = self.embed_dim, self.mlp_dim
        block = 4 * dim + (dim + 1) * 3 * dim + (dim + 1) * dim + (dim + 1) * hidden + (hidden + 1) * dim
        block -= 3 * dim * (not self.qkv_bias)
        ends = (self.patch_dim + 1) * dim + (2 * self.prefix_tokens + self.num_patches) * dim + 2 * dim
        ends += (self.classifiers + self.labels_tokens) * (dim + 1) * self.num_classes
        ends += self.has_stem * sum(kernel + 2 * STEM_CHANNELS for kernel in self.stem_kernels)
        predictor = 2 * dim + sum((inputs + 1) * outputs for inputs, outputs in self.predictor_layers)
        return ends + self.depth * block + self.predictors * predictor

    @property
    def stem_kernels(self) -> tuple[int, int, int]:
        """The weights of the stem's convolutions: 7x7 of stride 2, and twice 3x3."""
        return 49 * self.in_channels * STEM_CHANNELS, 9 * STEM_CHANNELS**2, 9 * STEM_CHANNELS**2

    @property
    def predictor_layers(self) -> tuple[tuple[int, int], ...]:
        """Channels in and out of each linear layer of a predictor."""
        dim = self.embed_dim
        return (dim, dim), (dim, dim // 2), (dim // 2, dim // 4), (dim // 4, 2)

    def at(self, image_size: ImageSize) -> "Geometry":
        """Return the geometry of the same model for images of another size.

        Raises:
            UserError: The size is no multiple of the patch size.
        """
        return replace(self, grid=_grid(image_size, self.patch_size, "image_size"))

    @classmethod
    def from_config(cls, config: ModelConfig) -> "Geometry":
        """Return the geometry of a configuration's model; `num_classes` left to the data counts as ImageNet's.

        Raises:
            UserError: The model is unknown, or sizes do not fit together.
        """
        sizes = sizes_of(config.name)
        sizes.update({name: value for name in sizes if (value := getattr(config, name, None)) is not None})
        classes = config.num_classes or IMAGENET_CLASSES
        return cls.from_sizes(
            image_size=config.image_size, num_classes=classes, align_tokens=config.align_tokens,
            patch_size=int(sizes["patch_size"]), embed_dim=int(sizes["embed_dim"]), depth=int(sizes["depth"]),
            num_heads=int(sizes["num_heads"]), mlp_ratio=sizes["mlp_ratio"], pool=config.pool,
            distilled=bool(sizes["distilled"]), distilled_score=config.distilled_score, backbone=sizes["backbone"],
            residual_divisor=sizes["residual_divisor"], predictors=count_predictors(config.predictors, config.tokens),
        )  # fmt: skip

    @classmethod
    def from_sizes(
        cls,
        image_size: ImageSize,
        patch_size: int,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        num_classes: int,
        in_channels: int = 3,
        align_tokens: int = 1,
        pool: str = "cls",
        distilled: bool = False,
        distilled_score: str = "cls",
        backbone: str = "vit",
        residual_divisor: float = 1.0,
        predictors: int = 0,
    ) -> "Geometry":
        """Return the geometry of a model's keyword arguments.

        Raises:
            UserError: Sizes do not fit together.
        """
        _check_backbone(backbone, patch_size, pool, distilled)
        grid = _grid(image_size, patch_size, "model.image_size")
        if embed_dim % num_heads:
            raise UserError(f"model.embed_dim {embed_dim} is not a multiple of model.num_heads {num_heads}")
        mlp_dim = int(embed_dim * mlp_ratio)
        if mlp_dim < 1:
            raise UserError(f"model.mlp_ratio {mlp_ratio:g} leaves no channel in the MLP of width {embed_dim}")
        if num_classes < 1:
            what = "a network has a head; for its tokens without one call network.features(images)"
            raise UserError(f"num_classes {num_classes}: {what}")
        if pool not in POOLS:
            raise UserError(f"model.pool {pool!r} is unknown; choose one of {', '.join(POOLS)}")
        score_rows = _score_rows(distilled_score, distilled, pool)
        if predictors and embed_dim % 4:
            raise UserError(f"model.embed_dim {embed_dim}: predictors halve it twice; choose a multiple of 4")
        return cls(
            grid, patch_size, embed_dim, depth, num_heads, mlp_dim, num_classes, in_channels, align_tokens, pool,
            distilled, score_rows, backbone, residual_divisor, predictors,
        )  # fmt: skip


@dataclass(frozen=True)
class Drop:
    """What leaves in one block.

    Attributes:
        keep: Patch tokens that stay.
        present: Patch tokens among which it is chosen, fused ones included.
        before: Whether it is before the block's attention rather than after it.
        fused: Whether those that leave are fused to one token.
        ranking: What decides which leave: a word of `src.schedules.rankings`.
        fixed: Which of those present stay, as ascending positions, if that does not depend on the image; else none.
    """

    keep: int
    present: int
    before: bool
    fused: bool
    ranking: str
    fixed: tuple[int, ...] = ()

    @property
    def left(self) -> int:
        """Patch tokens present after the drop."""
        return self.keep + self.fused


def count_predictors(predictors: Optional[int], tokens: str) -> int:
    """Return the predictors of a model: as many as it says, else as its schedule asks.

    Raises:
        UserError: The schedule is refused.
    """
    return parse(tokens).predictors if predictors is None else predictors


def _check_backbone(backbone: str, patch_size: int, pool: str, distilled: bool) -> None:
    if backbone not in BACKBONES:
        raise UserError(f"model.backbone {backbone!r} is unknown; choose one of {', '.join(BACKBONES)}")
    if backbone != "lvvit":
        return
    if patch_size % 2:
        raise UserError(
            f"model.patch_size {patch_size}: the stem of model.backbone lvvit halves it; choose an even one"
        )
    if pool != "cls" or distilled:
        what = "a distillation token" if distilled else f"model.pool {pool}"
        raise UserError(f"model.backbone lvvit has a [CLS] token and a head for it, not {what}; choose another")


def _score_rows(distilled_score: str, distilled: bool, pool: str) -> int:
    if distilled_score not in DISTILLED_SCORES:
        known = ", ".join(DISTILLED_SCORES)
        raise UserError(f"model.distilled_score {distilled_score!r} is unknown; choose one of {known}")
    if distilled and pool != "cls":
        raise UserError(f"model.pool {pool}: a distilled model's heads read their own tokens; leave it at cls")
    if distilled_score == "mean" and not distilled:
        raise UserError(
            "model.distilled_score mean: the model has no distillation token; leave it at cls, or choose a distilled"
            " model.name"
        )
    return DISTILLED_SCORES[distilled_score]


def _grid(image_size: ImageSize, patch_size: int, name: str) -> tuple[int, int]:
    height, width = sides(image_size)
    if height % patch_size or width % patch_size or min(height, width) < patch_size:
        nearest = "x".join(str(max(1, round(side / patch_size)) * patch_size) for side in (height, width))
        raise UserError(
            f"{name} {height}x{width} is not a multiple of the patch size {patch_size}; the nearest is {nearest}"
        )
    return height // patch_size, width // patch_size


@dataclass(frozen=True)
class Plan:
    """A schedule for one geometry as static integers, an entry a block.

    Attributes:
        num_patches: Patch tokens of the image.
        prefix: Tokens before the patches, which never leave: [CLS], and the distillation token where there is one.
        drops: The drop in this block; None where nothing is dropped.
        rejoins: Whether the skipped tokens return before this block.
        tokens_in: Tokens that enter the block's attention, those of the prefix included.
        tokens_out: Tokens that enter the block's MLP and leave the block, those of prefix and fusion included.
        macs: Multiply-accumulates of one forward pass of one image.
        ideal_gain: MACs of the dense model divided by `macs`, minus 1 (a fraction).
        trained_macs: MACs of a forward pass in training: `macs`, but with predictors those of all tokens in every
            block, for they learn under masks.
    """

    schedule: Schedule
    num_patches: int
    prefix: int
    drops: tuple[Optional[Drop], ...]
    rejoins: tuple[bool, ...]
    tokens_in: tuple[int, ...]
    tokens_out: tuple[int, ...]
    macs: int
    ideal_gain: float
    trained_macs: int

    @property
    def kept(self) -> tuple[int, ...]:
        """Patch tokens kept by the drop in each block; 0 where nothing is dropped."""
        return tuple(drop.keep if drop else 0 for drop in self.drops)

    @property
    def masked(self) -> bool:
        """Whether it trains with all tokens in every block, under masks: where predictors rank."""
        return any(predictor is not None for predictor in self.predictor_of)

    @property
    def training_gain(self) -> float:
        """MACs of the dense model divided by `trained_macs`, minus 1 (a fraction)."""
        return (1 + self.ideal_gain) * self.macs / self.trained_macs - 1 if self.masked else self.ideal_gain

    @property
    def predictor_of(self) -> tuple[Optional[int], ...]:
        """The predictor that each block asks, by its stage's place in the schedule; None where none is asked."""
        stages = [stage.block for stage in self.schedule.stages]
        asks = (drop is not None and drop.ranking == "predictor" for drop in self.drops)
        return tuple(stages.index(block) if asked else None for block, asked in enumerate(asks, 1))

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of all patch tokens that each predictor which is asked is to leave."""
        asked = [block for block, predictor in enumerate(self.predictor_of, 1) if predictor is not None]
        return tuple(float(_share(self.schedule.routes[0], block)) for block in asked)


def resolve(schedule: Schedule, geometry: Geometry) -> Plan:
    """Resolve a schedule to static integers for a model of this geometry.

    With n patch tokens present, a drop keeps ceil((1 - ratio) * n) of them, in exact arithmetic, and as many more as
    `align_tokens` asks for; a drop that would drop nothing does nothing.

    Raises:
        UserError: A block lies outside the model, fewer than one token would be kept, or the model has nothing to rank
            tokens by.
    """
    _check(schedule, geometry)
    stages = {stage.block: (route, stage.ratio) for route in schedule.routes for stage in route.stages}
    returns = {route.rejoin for route in schedule.routes}
    returns |= {stage.block + 1 for route in schedule.routes for stage in route.stages if route.each}
    prefix, patches = geometry.prefix_tokens, geometry.num_patches
    indices: Sequence[int] = range(geometry.num_patches)
    drops, rejoins, tokens_in, tokens_out = [], [], [], []
    for block in range(1, geometry.depth + 1):
        rejoins.append(block in returns and patches < geometry.num_patches)
        if rejoins[-1]:
            patches, indices = geometry.num_patches, range(geometry.num_patches)
        drop = None
        if block in stages:
            drop = _drop(schedule, *stages[block], block, patches, indices, geometry)
        if drop and drop.fixed:
            indices = [indices[i] for i in drop.fixed] + [geometry.num_patches] * drop.fused
        drops.append(drop)
        tokens_in.append(prefix + (drop.left if drop and drop.before else patches))
        patches = drop.left if drop else patches
        tokens_out.append(prefix + patches)
    full = [prefix + geometry.num_patches] * geometry.depth
    dense = _count_macs(geometry, full, full)
    asked = [drop.present for drop in drops if drop and drop.ranking == "predictor"]
    macs = _count_macs(geometry, tokens_in, tokens_out) + sum(asked) * _predictor_macs(geometry)
    trained = dense + len(asked) * geometry.num_patches * _predictor_macs(geometry) if asked else macs
    return Plan(
        schedule, geometry.num_patches, prefix, tuple(drops), tuple(rejoins), tuple(tokens_in), tuple(tokens_out), macs,
        dense / macs - 1, trained,
    )  # fmt: skip


def _check(schedule: Schedule, geometry: Geometry) -> None:
    """Refuse a schedule that this model cannot run, whatever the number of its tokens."""
    if schedule.last_block > geometry.depth:
        last = schedule.last_block
        raise refusal(str(schedule), f"block {last} is out of range: the model has blocks 1 to {geometry.depth}")
    if schedule.predictors > geometry.predictors:
        raise refusal(
            str(schedule), f"it asks {schedule.predictors} predictors, the model has {geometry.predictors}; choose"
            f" another ranking, or train with model.predictors={schedule.predictors}"
        )  # fmt: skip
    for route in schedule.routes:
        if route.ranking == "centre" and route.fused and len(route.stages) > 1:
            raise refusal(
                str(schedule), "a fused token has no place to rank it by; drop once, or choose another ranking"
            )
        if not geometry.prefix_tokens and (route.ranking in BY_CLS or route.fused):
            others = ", ".join(word for word in RANKINGS if word not in BY_CLS)
            raise refusal(
                str(schedule),
                f"with model.pool avg there is no [CLS] token to rank or to fuse by; rank by one of {others}",
            )


def _drop(
    schedule: Schedule, route: Route, ratio: Fraction, block: int, patches: int, indices: Sequence[int],
    geometry: Geometry,
) -> Optional[Drop]:  # fmt: skip
    """Return the drop in a block; None if it drops nothing.

    Args:
        patches: Patch tokens present.
        indices: The patch of each, as far as fixed rankings have left them.
    """
    keep = math.ceil((1 - ratio) * patches)
    if route.ranking == "predictor":
        keep = math.floor(_share(route, block) * geometry.num_patches)
    if keep < 1:
        raise refusal(str(schedule), f"it keeps {keep} of {patches} tokens in block {block}; lower the ratio")
    keep = _align(keep, geometry.prefix_tokens + route.fused, geometry.align_tokens)
    if keep >= patches:
        return None
    fixed: tuple[int, ...] = ()
    if route.ranking in FIXED:
        rows, columns = geometry.grid
        fixed = fixed_positions(route.ranking, indices, keep, columns, rows)
    return Drop(keep, patches, route.before, route.fused, route.ranking, fixed)


def _share(route: Route, block: int) -> Fraction:
    """Return the share of all patch tokens that a route leaves in a block."""
    return math.prod((1 - stage.ratio for stage in route.stages if stage.block <= block), start=Fraction(1))


def _align(keep: int, others: int, multiple: int) -> int:
    """Return the least number, at least `keep`, that comes to a multiple together with `others`."""
    return -(-(keep + others) // multiple) * multiple - others


def _count_macs(geometry: Geometry, tokens_in: Sequence[int], tokens_out: Sequence[int]) -> int:
    """Count patch embedding, QKV, attention, projection, MLP and head, as Table 1's ideal gains do.

    LV-ViT's head for patch tokens reads those that leave the last block, a fused one included.
    """
    dim = geometry.embed_dim
    attention = sum(4 * t * dim * dim + 2 * t * t * dim for t in tokens_in)
    mlp = sum(2 * t * dim * geometry.mlp_dim for t in tokens_out)
    heads = geometry.classifiers * dim * geometry.num_classes
    if geometry.labels_tokens:
        heads += (tokens_out[-1] - geometry.prefix_tokens) * dim * geometry.num_classes
    stem = sum(geometry.stem_kernels) * geometry.num_patches * geometry.cut_size**2 * geometry.has_stem
    return stem + geometry.num_patches * geometry.patch_dim * dim + attention + mlp + heads


def _predictor_macs(geometry: Geometry) -> int:
    """Count the multiply-accumulates of a predictor for a token."""
    return sum(inputs * outputs for inputs, outputs in geometry.predictor_layers)
