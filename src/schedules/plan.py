"""A schedule resolved for a model's geometry: tokens of each block, MACs and ideal gain, before any tensor exists."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from src.config import IMAGENET_CLASSES, ImageSize, ModelConfig, sides
from src.config.variants import sizes_of
from src.errors import UserError
from src.schedules.notation import Schedule, refusal
from src.schedules.rankings import FIXED, fixed_positions


@dataclass(frozen=True)
class Geometry:
    """The sizes of a ViT that decide its tokens, MACs and parameters.

    Attributes:
        grid: Rows and columns of patches.
        patch_size: Pixels of a patch's side.
        mlp_dim: Hidden channels of the MLP.
        align_tokens: Every drop leaves a multiple of so many tokens, [CLS] and fused token included.
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

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def patch_dim(self) -> int:
        return self.in_channels * self.patch_size**2

    @property
    def parameters(self) -> int:
        """The number of weights; schedules add none."""
        dim, hidden = self.embed_dim, self.mlp_dim
        block = 4 * dim + (dim + 1) * 3 * dim + (dim + 1) * dim + (dim + 1) * hidden + (hidden + 1) * dim
        ends = (self.patch_dim + 1) * dim + (2 + self.num_patches) * dim + 2 * dim + (dim + 1) * self.num_classes
        return ends + self.depth * block

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
        sizes.update({name: value for name in sizes if (value := getattr(config, name)) is not None})
        classes = config.num_classes or IMAGENET_CLASSES
        return cls.from_sizes(
            image_size=config.image_size, num_classes=classes, align_tokens=config.align_tokens,
            patch_size=int(sizes["patch_size"]), embed_dim=int(sizes["embed_dim"]), depth=int(sizes["depth"]),
            num_heads=int(sizes["num_heads"]), mlp_ratio=sizes["mlp_ratio"],
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
    ) -> "Geometry":
        """Return the geometry of a model's keyword arguments.

        Raises:
            UserError: Sizes do not fit together.
        """
        grid = _grid(image_size, patch_size, "model.image_size")
        if embed_dim % num_heads:
            raise UserError(f"model.embed_dim {embed_dim} is not a multiple of model.num_heads {num_heads}")
        mlp_dim = int(embed_dim * mlp_ratio)
        if mlp_dim < 1:
            raise UserError(f"model.mlp_ratio {mlp_ratio:g} leaves no channel in the MLP of width {embed_dim}")
        return cls(grid, patch_size, embed_dim, depth, num_heads, mlp_dim, num_classes, in_channels, align_tokens)


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
        kept: Patch tokens kept by the drop in this block; 0 where nothing is dropped.
        fixed: Which of the patch tokens present the drop in this block keeps, as ascending positions, if that does not
            depend on the image; else none.
        rejoins: Whether the skipped tokens return before this block.
        tokens_in: Tokens that enter the block's attention, [CLS] included.
        tokens_out: Tokens that enter the block's MLP and leave the block, [CLS] and fused token included.
        macs: Multiply-accumulates of one forward pass of one image.
        ideal_gain: MACs of the dense model divided by `macs`, minus 1 (a fraction).
    """

    schedule: Schedule
    kept: tuple[int, ...]
    fixed: tuple[tuple[int, ...], ...]
    rejoins: tuple[bool, ...]
    tokens_in: tuple[int, ...]
    tokens_out: tuple[int, ...]
    macs: int
    ideal_gain: float


def resolve(schedule: Schedule, geometry: Geometry) -> Plan:
    """Resolve a schedule to static integers for a model of this geometry.

    With n patch tokens present, a drop keeps ceil((1 - ratio) * n) of them, in exact arithmetic, and as many more as
    `align_tokens` asks for; a drop that would drop nothing does nothing.

    Raises:
        UserError: A block lies outside the model, fewer than one token would be kept, or a token to be ranked by its
            place has none.
    """
    last = max([stage.block for stage in schedule.stages] + [schedule.rejoin or 0])
    if last > geometry.depth:
        raise refusal(str(schedule), f"block {last} is out of range: the model has blocks 1 to {geometry.depth}")
    if schedule.ranking == "centre" and schedule.fused and len(schedule.stages) > 1:
        raise refusal(str(schedule), "a fused token has no place to rank it by; drop once, or choose another ranking")
    ratios = {stage.block: stage.ratio for stage in schedule.stages}
    patches = geometry.num_patches
    kept, rejoins, tokens_in, tokens_out = [], [], [], []
    for block in range(1, geometry.depth + 1):
        rejoins.append(block == schedule.rejoin and patches < geometry.num_patches)
        patches = geometry.num_patches if rejoins[-1] else patches
        tokens_in.append(1 + patches)
        keep = math.ceil((1 - ratios.get(block, 0)) * patches)
        if keep < 1:
            raise refusal(str(schedule), f"it keeps {keep} of {patches} tokens in block {block}; lower the ratio")
        keep = _align(keep, 1 + schedule.fused, geometry.align_tokens)
        kept.append(keep if keep < patches else 0)
        if kept[-1]:
            patches = keep + schedule.fused
        tokens_out.append(1 + patches)
    fixed = _fix(schedule.ranking, geometry, kept, rejoins, schedule.fused)
    macs = _count_macs(geometry, tokens_in, tokens_out)
    dense = [1 + geometry.num_patches] * geometry.depth
    gain = _count_macs(geometry, dense, dense) / macs - 1
    return Plan(schedule, tuple(kept), fixed, tuple(rejoins), tuple(tokens_in), tuple(tokens_out), macs, gain)


def _fix(
    ranking: str, geometry: Geometry, kept: Sequence[int], rejoins: Sequence[bool], fused: bool
) -> tuple[tuple[int, ...], ...]:
    """Return which tokens each block's drop keeps under a fixed ranking."""
    if ranking not in FIXED:
        return ((),) * geometry.depth
    rows, columns = geometry.grid
    indices, fixed = list(range(geometry.num_patches)), []
    for keep, returns in zip(kept, rejoins):
        indices = list(range(geometry.num_patches)) if returns else indices
        stay = fixed_positions(ranking, indices, keep, columns, rows) if keep else ()
        if stay:
            indices = [indices[i] for i in stay] + [geometry.num_patches] * fused
        fixed.append(stay)
    return tuple(fixed)


def _align(keep: int, others: int, multiple: int) -> int:
    """Return the least number, at least `keep`, that comes to a multiple together with `others`."""
    return -(-(keep + others) // multiple) * multiple - others


def _count_macs(geometry: Geometry, tokens_in: Sequence[int], tokens_out: Sequence[int]) -> int:
    """Count patch embedding, QKV, attention, projection, MLP and head, as Table 1's ideal gains do."""
    dim = geometry.embed_dim
    attention = sum(4 * t * dim * dim + 2 * t * t * dim for t in tokens_in)
    mlp = sum(2 * t * dim * geometry.mlp_dim for t in tokens_out)
    return geometry.num_patches * geometry.patch_dim * dim + attention + mlp + dim * geometry.num_classes
