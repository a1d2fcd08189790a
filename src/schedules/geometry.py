"""The sizes of a model that decide its tokens, multiply-accumulates and parameters."""

from dataclasses import dataclass, replace
from typing import Optional

from src.config import IMAGENET_CLASSES, ImageSize, ModelConfig, sides
from src.config.variants import sizes_of
from src.errors import UserError
from src.schedules.notation import parse

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
