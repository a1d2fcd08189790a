"""The schedule notation: the paper's row names as a configuration language.

A schedule is `none`, or routes joined by `;`. Blocks are numbered from 1, as in Table 1 of SkipViT (arXiv 2401.15293).

``6(55%)+11``                     after block 6's attention 55% leave; they return before block 11
``4,7(30%,30%)+10``               30% leave in block 4, 30% of the rest in block 7; one return
``6(55%)`` · ``6(45%)+fused``     they never return · they are fused to one token (EViT, arXiv 2202.07800)
``6(55%,random)+11``              ranked by another word of `src.schedules.rankings` than the [CLS] attention
``2(50%)+6;7(50%)+11``            two routes, one after the other
``<3(50%,random)+10``             they leave before block 3, not after its attention (TREAD, arXiv 2501.04765)
``4,7,10(30%,30%,30%,predictor)`` they leave before the blocks, as predictors say (DynamicViT, arXiv 2106.02034)
``<2..11(50%,random)+next``       each of blocks 2 to 11 for itself, back before the next (random-LTD, arXiv 2211.11586)

`src.schedules.plan` resolves a schedule to static integers.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Optional

from src.errors import UserError
from src.schedules.rankings import BY_ATTENTION, RANKINGS

EXAMPLES = "none, 6(55%)+11, 4,7(30%,30%)+10, 6(45%)+fused, 6(55%), <3(50%,random)+10, 2(50%)+6;7(50%)+11"

_ROUTE = re.compile(
    r"(?P<before><?)"
    r"(?:(?P<first>[0-9]{1,4})\.\.(?P<last>[0-9]{1,4})|(?P<blocks>[0-9]{1,4}(?:,[0-9]{1,4})*))"
    rf"\((?P<ratios>[^()]*?)(?:,(?P<ranking>{'|'.join(RANKINGS)}))?\)"
    r"(?:\+(?P<end>fused|next|[0-9]{1,4}))?"
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
class Route:
    """Where tokens leave, and how they come back: before block `rejoin`, fused to one token, or never.

    Attributes:
        ranking: What decides which tokens leave: a word of `src.schedules.rankings`.
        before: Whether tokens leave before the blocks of the stages rather than between their attention and MLP.
        each: Whether the tokens of each stage return before the next block; `rejoin` is the block after the last.
    """

    stages: tuple[Stage, ...]
    rejoin: Optional[int] = None
    fused: bool = False
    ranking: str = "cls"
    before: bool = False
    each: bool = False

    def __str__(self) -> str:
        stages = self.stages[:1] if self.each else self.stages
        blocks = ",".join(str(stage.block) for stage in stages) + (f"..{self.stages[-1].block}" if self.each else "")
        ratios = ",".join([*map(str, stages), *([] if self.ranking == "cls" else [self.ranking])])
        end = "+next" if self.each else "+fused" if self.fused else f"+{self.rejoin}" if self.rejoin else ""
        return f"{'<' if self.before and self.ranking != 'predictor' else ''}{blocks}({ratios}){end}"


@dataclass(frozen=True)
class Schedule:
    """The routes that tokens take past blocks, first to last; none of them overlaps another."""

    routes: tuple[Route, ...] = ()

    def __str__(self) -> str:
        return ";".join(map(str, self.routes)) or "none"

    @property
    def fused(self) -> bool:
        """Whether dropped tokens are fused to one."""
        return any(route.fused for route in self.routes)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of all routes, first to last."""
        return tuple(stage for route in self.routes for stage in route.stages)

    @property
    def last_block(self) -> int:
        """The last block in which tokens leave or before which they return; 0 without a route."""
        return max([max(route.stages[-1].block, route.rejoin or 0) for route in self.routes], default=0)

    @property
    def predictors(self) -> int:
        """The predictors that it asks, one a stage."""
        return sum(len(route.stages) for route in self.routes if route.ranking == "predictor")

    @property
    def rankings(self) -> tuple[str, ...]:
        """The ranking of each route."""
        return tuple(route.ranking for route in self.routes)


def parse(spec: str) -> Schedule:
    """Parse a spec.

    Raises:
        UserError: The spec is not of the notation, or makes no sense whatever the model.
    """
    text = re.sub(r"\s+", "", spec).lower() if isinstance(spec, str) else ""
    if text == "none":
        return Schedule()
    routes = tuple(_parse_route(spec, part) for part in text.split(";"))
    for route, after in zip(routes, routes[1:]):
        if route.rejoin is None:
            raise refusal(spec, f"the tokens of {route} do not return, so that no route can come after it")
        if after.stages[0].block < route.rejoin:
            raise refusal(
                spec, f"{after} must start in block {route.rejoin} or later, where the tokens of {route} return"
            )
    if len(routes) > 1 and any(route.ranking == "predictor" for route in routes):
        raise refusal(spec, "predictors rank in one route alone: their training knows no other")
    if len({route.ranking == "oracle" for route in routes}) > 1:
        raise refusal(spec, "an oracle ranks in all routes or in none: it cannot know what another ranking leaves")
    return Schedule(routes)


def refuse_oracle(schedule: Schedule) -> None:
    """Refuse a schedule outside training that asks an oracle.

    Raises:
        UserError: It does.
    """
    if "oracle" in schedule.rankings:
        raise UserError(f"{schedule} ranks by an oracle, which only training has; leave the word out")


def without_oracle(spec: str) -> str:
    """Return the schedule that evaluates what trains under a spec: the network ranks where an oracle did.

    Raises:
        UserError: The spec is refused.
    """
    schedule = parse(spec)
    if "oracle" not in schedule.rankings:
        return spec
    return str(Schedule(tuple(replace(route, ranking="cls") for route in schedule.routes)))


def refusal(spec: object, why: str) -> UserError:
    """Return the error that refuses a spec."""
    return UserError(f"tokens spec {spec!r}: {why}")


def _parse_route(spec: str, text: str) -> Route:
    match = _ROUTE.fullmatch(text)
    if not match:
        raise refusal(spec, f"it is not of the notation (examples: {EXAMPLES})")
    ratios = [_parse_ratio(spec, ratio) for ratio in match["ratios"].split(",")]
    each = match["blocks"] is None
    if each:
        blocks = list(range(int(match["first"]), int(match["last"]) + 1))
        if len(blocks) < 2 or len(ratios) != 1:
            raise refusal(spec, "a range of blocks has its first block, a later last one, and one ratio for each")
        ratios *= len(blocks)
    else:
        blocks = [int(block) for block in match["blocks"].split(",")]
    if len(blocks) != len(ratios):
        raise refusal(spec, f"it has {len(blocks)} blocks and {len(ratios)} ratios; give each block its ratio")
    if blocks[0] < 1 or any(a >= b for a, b in zip(blocks, blocks[1:])):
        raise refusal(spec, "its blocks must start at 1 or later and increase")
    if each != (match["end"] == "next"):
        raise refusal(
            spec, "+next goes with a range of blocks, such as <2..11(50%,random)+next, and a range with +next"
        )
    rejoin = blocks[-1] + 1 if each else int(match["end"]) if match["end"] not in (None, "fused") else None
    if rejoin is not None and rejoin <= blocks[-1]:
        raise refusal(spec, f"its rejoin before block {rejoin} must come after the last drop in block {blocks[-1]}")
    ranking, fused = match["ranking"] or "cls", match["end"] == "fused"
    before = bool(match["before"]) or ranking == "predictor"
    if ranking == "predictor" and match["end"]:
        raise refusal(spec, f"what a predictor drops never returns and is not fused; leave out +{match['end']}")
    if before and (ranking in BY_ATTENTION or fused):
        others = ", ".join(word for word in RANKINGS if word not in BY_ATTENTION)
        raise refusal(
            spec, f"before a block (<) there is no attention yet to rank or to fuse by; rank by one of {others}"
        )
    stages = tuple(Stage(block, ratio) for block, ratio in zip(blocks, ratios))
    return Route(stages, rejoin, fused, ranking, before, each)


def _parse_ratio(spec: str, text: str) -> Fraction:
    if text.isalpha():
        raise refusal(spec, f"ranking {text!r} is unknown; choose one of {', '.join(RANKINGS)}, after the ratios")
    match = _RATIO.fullmatch(text)
    ratio = Fraction(match["percent"]) / 100 if match else None
    if ratio is None or not 0 <= ratio < 1:
        raise refusal(spec, f"ratio {text!r} must be a percentage from 0% to below 100%, such as 55%")
    return ratio
