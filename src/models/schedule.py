"""The schedule notation: the paper's row names as a configuration language.

``none`` · ``6(55%)+11`` · ``4,7(30%,30%)+10`` · ``6(45%)+fused`` · ``6(55%)`` · ``6(55%,random)+11``

A spec is parsed to a `Schedule`, and a `Schedule` is resolved for a model's geometry to a `Plan` of static
integers (tokens of each block, MACs, ideal gain) before any tensor exists. Blocks are numbered from 1, as in
Table 1 of SkipViT (arXiv 2401.15293).
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Optional

from src.errors import UserError

EXAMPLES = "none, 6(55%)+11, 4,7(30%,30%)+10, 6(45%)+fused, 6(55%), 6(55%,random)+11"

_SPEC = re.compile(
    r"(?P<blocks>[0-9]{1,4}(?:,[0-9]{1,4})*)\((?P<ratios>[^()]*?)(?P<random>,random)?\)(?:\+(?P<end>fused|[0-9]{1,4}))?"
)
_RATIO = re.compile(r"(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,9})?)%")


@dataclass(frozen=True)
class Stage:
    """One drop: `ratio` of the patch tokens that are present leave in block `block` (counted from 1)."""

    block: int
    ratio: Fraction

    def __str__(self) -> str:
        return f"{float(self.ratio * 100):.9f}".rstrip("0").rstrip(".") + "%"


@dataclass(frozen=True)
class Schedule:
    """Where tokens leave, and how they come back: rejoined before block `rejoin`, fused to one token, or never.

    With `random`, chance decides which tokens leave, not the [CLS] token's attention: a control for experiments.
    """

    stages: tuple[Stage, ...] = ()
    rejoin: Optional[int] = None
    fused: bool = False
    random: bool = False

    def __str__(self) -> str:
        if not self.stages:
            return "none"
        blocks = ",".join(str(stage.block) for stage in self.stages)
        ratios = ",".join([*map(str, self.stages), *(["random"] if self.random else [])])
        end = "+fused" if self.fused else f"+{self.rejoin}" if self.rejoin else ""
        return f"{blocks}({ratios}){end}"


@dataclass(frozen=True)
class Geometry:
    """The sizes of a ViT that decide its tokens and MACs.

    Attributes:
        align_tokens: Every drop leaves a multiple of so many tokens, [CLS] and fused token included.
    """

    num_patches: int
    patch_dim: int
    depth: int
    embed_dim: int
    mlp_dim: int
    num_classes: int
    align_tokens: int = 1


@dataclass(frozen=True)
class Plan:
    """A schedule for one geometry, as static integers, an entry a block.

    Attributes:
        schedule: What was resolved.
        kept: Patch tokens kept by the drop in this block; 0 where nothing is dropped.
        rejoins: Whether the skipped tokens return before this block.
        tokens_in: Tokens that enter the block's attention, [CLS] included.
        tokens_out: Tokens that enter the block's MLP and leave the block, [CLS] and fused token included.
        macs: Multiply-accumulates of one forward pass of one image.
        ideal_gain: MACs of the dense model divided by `macs`, minus 1 (a fraction).
    """

    schedule: Schedule
    kept: tuple[int, ...]
    rejoins: tuple[bool, ...]
    tokens_in: tuple[int, ...]
    tokens_out: tuple[int, ...]
    macs: int
    ideal_gain: float


def parse(spec: str) -> Schedule:
    """Read a spec.

    Raises:
        UserError: The spec is not of the notation, or makes no sense whatever the model.
    """
    text = re.sub(r"\s+", "", spec).lower() if isinstance(spec, str) else ""
    if text == "none":
        return Schedule()
    match = _SPEC.fullmatch(text)
    if not match:
        raise _refused(spec, f"it is not of the notation (examples: {EXAMPLES})")
    blocks = [int(block) for block in match["blocks"].split(",")]
    ratios = [_ratio(spec, text) for text in match["ratios"].split(",")]
    if len(blocks) != len(ratios):
        raise _refused(spec, f"it has {len(blocks)} blocks and {len(ratios)} ratios; give each block its ratio")
    if blocks[0] < 1 or any(a >= b for a, b in zip(blocks, blocks[1:])):
        raise _refused(spec, "its blocks must start at 1 or later and increase")
    rejoin = int(match["end"]) if match["end"] not in (None, "fused") else None
    if rejoin is not None and rejoin <= blocks[-1]:
        raise _refused(spec, f"its rejoin before block {rejoin} must come after the last drop in block {blocks[-1]}")
    stages = tuple(Stage(block, ratio) for block, ratio in zip(blocks, ratios))
    return Schedule(stages, rejoin, fused=match["end"] == "fused", random=match["random"] is not None)


def resolve(schedule: Schedule, geometry: Geometry) -> Plan:
    """Turn a schedule into static integers for a model of this geometry.

    With n patch tokens present, a drop keeps ceil((1 - ratio) * n) of them, in exact arithmetic, and as many more as
    `align_tokens` asks for; a drop that would drop nothing does nothing.

    Raises:
        UserError: A block lies outside the model, or fewer than one token would be kept.
    """
    last = max([stage.block for stage in schedule.stages] + [schedule.rejoin or 0])
    if last > geometry.depth:
        raise _refused(str(schedule), f"block {last} is out of range: the model has blocks 1 to {geometry.depth}")
    ratios = {stage.block: stage.ratio for stage in schedule.stages}
    patches = geometry.num_patches
    kept, rejoins, tokens_in, tokens_out = [], [], [], []
    for block in range(1, geometry.depth + 1):
        rejoins.append(block == schedule.rejoin and patches < geometry.num_patches)
        patches = geometry.num_patches if rejoins[-1] else patches
        tokens_in.append(1 + patches)
        keep = math.ceil((1 - ratios.get(block, 0)) * patches)
        if keep < 1:
            raise _refused(str(schedule), f"it keeps {keep} of {patches} tokens in block {block}; lower the ratio")
        keep = _align(keep, 1 + schedule.fused, geometry.align_tokens)
        kept.append(keep if keep < patches else 0)
        if kept[-1]:
            patches = keep + schedule.fused
        tokens_out.append(1 + patches)
    macs = _macs(geometry, tokens_in, tokens_out)
    dense = [1 + geometry.num_patches] * geometry.depth
    gain = _macs(geometry, dense, dense) / macs - 1
    return Plan(schedule, tuple(kept), tuple(rejoins), tuple(tokens_in), tuple(tokens_out), macs, gain)


def _align(keep: int, others: int, multiple: int) -> int:
    """The least number from `keep` on that comes to a multiple together with `others`."""
    return -(-(keep + others) // multiple) * multiple - others


def _macs(geometry: Geometry, tokens_in: list[int], tokens_out: list[int]) -> int:
    """Patch embedding, QKV, attention, projection, MLP and head, as Table 1's ideal gains count them."""
    dim = geometry.embed_dim
    attention = sum(4 * t * dim * dim + 2 * t * t * dim for t in tokens_in)
    mlp = sum(2 * t * dim * geometry.mlp_dim for t in tokens_out)
    return geometry.num_patches * geometry.patch_dim * dim + attention + mlp + dim * geometry.num_classes


def _ratio(spec: str, text: str) -> Fraction:
    match = _RATIO.fullmatch(text)
    ratio = Fraction(match["percent"]) / 100 if match else None
    if ratio is None or not 0 <= ratio < 1:
        raise _refused(spec, f"ratio {text!r} must be a percentage from 0% to below 100%")
    return ratio


def _refused(spec: object, why: str) -> UserError:
    return UserError(f"tokens spec {spec!r}: {why}")
