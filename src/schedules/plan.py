"""A schedule resolved for a model's geometry: tokens of each block, MACs and ideal gain, before any tensor exists."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Optional

from src.schedules.geometry import Geometry
from src.schedules.notation import Route, Schedule, refusal
from src.schedules.rankings import BY_CLS, FIXED, RANKINGS, fixed_positions


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
