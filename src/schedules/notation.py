"""The schedule notation: the paper's row names as a configuration language.

``none`` · ``6(55%)+11`` · ``4,7(30%,30%)+10`` · ``6(45%)+fused`` · ``6(55%)`` · ``6(55%,random)+11``

Blocks are numbered from 1, as in Table 1 of SkipViT (arXiv 2401.15293). `src.schedules.rankings` lists the words that
may follow the ratios; `src.schedules.plan` resolves a schedule to static integers.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Optional

from src.errors import UserError
from src.schedules.rankings import RANKINGS

EXAMPLES = "none, 6(55%)+11, 4,7(30%,30%)+10, 6(45%)+fused, 6(55%), 6(55%,random)+11"

_SPEC = re.compile(
    r"(?P<blocks>[0-9]{1,4}(?:,[0-9]{1,4})*)"
    rf"\((?P<ratios>[^()]*?)(?:,(?P<ranking>{'|'.join(RANKINGS)}))?\)"
    r"(?:\+(?P<end>fused|[0-9]{1,4}))?"
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

    Attributes:
        ranking: What decides which tokens leave: a word of `src.schedules.rankings`.
    """

    stages: tuple[Stage, ...] = ()
    rejoin: Optional[int] = None
    fused: bool = False
    ranking: str = "cls"

    def __str__(self) -> str:
        if not self.stages:
            return "none"
        blocks = ",".join(str(stage.block) for stage in self.stages)
        ratios = ",".join([*map(str, self.stages), *([] if self.ranking == "cls" else [self.ranking])])
        end = "+fused" if self.fused else f"+{self.rejoin}" if self.rejoin else ""
        return f"{blocks}({ratios}){end}"


def parse(spec: str) -> Schedule:
    """Parse a spec.

    Raises:
        UserError: The spec is not of the notation, or makes no sense whatever the model.
    """
    text = re.sub(r"\s+", "", spec).lower() if isinstance(spec, str) else ""
    if text == "none":
        return Schedule()
    match = _SPEC.fullmatch(text)
    if not match:
        raise refusal(spec, f"it is not of the notation (examples: {EXAMPLES})")
    blocks = [int(block) for block in match["blocks"].split(",")]
    ratios = [_parse_ratio(spec, text) for text in match["ratios"].split(",")]
    if len(blocks) != len(ratios):
        raise refusal(spec, f"it has {len(blocks)} blocks and {len(ratios)} ratios; give each block its ratio")
    if blocks[0] < 1 or any(a >= b for a, b in zip(blocks, blocks[1:])):
        raise refusal(spec, "its blocks must start at 1 or later and increase")
    rejoin = int(match["end"]) if match["end"] not in (None, "fused") else None
    if rejoin is not None and rejoin <= blocks[-1]:
        raise refusal(spec, f"its rejoin before block {rejoin} must come after the last drop in block {blocks[-1]}")
    stages = tuple(Stage(block, ratio) for block, ratio in zip(blocks, ratios))
    return Schedule(stages, rejoin, match["end"] == "fused", match["ranking"] or "cls")


def refusal(spec: object, why: str) -> UserError:
    """Return the error that refuses a spec."""
    return UserError(f"tokens spec {spec!r}: {why}")


def _parse_ratio(spec: str, text: str) -> Fraction:
    if text.isalpha():
        raise refusal(spec, f"ranking {text!r} is unknown; choose one of {', '.join(RANKINGS)}, after the ratios")
    match = _RATIO.fullmatch(text)
    ratio = Fraction(match["percent"]) / 100 if match else None
    if ratio is None or not 0 <= ratio < 1:
        raise refusal(spec, f"ratio {text!r} must be a percentage from 0% to below 100%, such as 55%")
    return ratio
