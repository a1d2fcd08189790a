"""Search for the schedules that reach a speed."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Optional

from src.errors import UserError
from src.schedules.geometry import Geometry
from src.schedules.notation import parse
from src.schedules.plan import Plan, resolve

STEP = 5  # percent


def find(
    geometry: Geometry, gain: float, max_drop: float, from_block: int = 1, specs: Sequence[str] = ()
) -> list[Plan]:
    """Find plans whose ideal gain is at least `gain` (a fraction) while no drop takes more than `max_drop` percent.

    For each choice of blocks to drop in (one or two) and to rejoin before (or to fuse), the least ratio in steps of
    5% that reaches the gain is taken.

    Args:
        from_block: The first block that may drop, counted from 1.
        specs: Schedules to consider besides those of the search.

    Raises:
        UserError: There is none, or no such block.
    """
    if from_block > geometry.depth:
        raise UserError(f"--from-block {from_block} is out of range: the model has blocks 1 to {geometry.depth}")
    plans = [_least_ratio(geometry, gain, max_drop, pattern) for pattern in _patterns(from_block, geometry.depth)]
    for spec in specs:
        schedule = parse(spec)
        stages = schedule.stages
        if stages and stages[0].block >= from_block and schedule.last_block <= geometry.depth:
            plan = resolve(schedule, geometry)
            most = max(100 * float(stage.ratio) for stage in stages)
            plans.append(plan if plan.training_gain >= gain and most <= max_drop else None)
    found = {str(plan.schedule): plan for plan in plans if plan is not None}
    if not found:
        raise UserError(
            f"no schedule with drops of up to {max_drop:g}% is {1 + gain:g} times as fast; lower --target-speedup or"
            " --align, or raise --max-drop"
        )
    return list(found.values())


def share_dropped(plan: Plan) -> float:
    """Return the largest share of the tokens that is out of the sequence at once."""
    return 1 - min(plan.tokens_out) / (plan.prefix + plan.num_patches)


def _patterns(from_block: int, depth: int) -> Iterator[str]:
    """Yield one or two drops with a rejoin, or one with fusion; {0} stands for each drop's ratio."""
    blocks = range(from_block, depth + 1)
    for first, rejoin in itertools.combinations(blocks, 2):
        yield f"{first}({{0}}%)+{rejoin}"
    for first, second, rejoin in itertools.combinations(blocks, 3):
        yield f"{first},{second}({{0}}%,{{0}}%)+{rejoin}"
    for first in blocks:
        yield f"{first}({{0}}%)+fused"


def _least_ratio(geometry: Geometry, gain: float, max_drop: float, pattern: str) -> Optional[Plan]:
    for percent in range(STEP, int(min(max_drop, 99)) + 1, STEP):
        plan = resolve(parse(pattern.format(percent)), geometry)
        if plan.ideal_gain >= gain:
            return plan
    return None
