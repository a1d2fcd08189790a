"""Schedules that reach a speed, in the order of what is known of their accuracy."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Optional

from src import markdown
from src.benchmarks.timing import gain_text
from src.config import Config
from src.errors import UserError
from src.experiments.results import Summary
from src.experiments.variants import Variant
from src.schedules import Geometry, Plan, parse
from src.schedules.paper import RELATIVES, TABLE1
from src.schedules.search import find, share_dropped

if TYPE_CHECKING:
    from src.benchmarks.timing import Timing

PriorResults = Mapping[str, Mapping[Variant, Summary]]  # by the name of the experiment


def known_specs(prior: PriorResults) -> list[str]:
    """Return the schedules of papers and of earlier experiments, without controls and without other settings."""
    variants = [variant for summaries in prior.values() for variant in summaries if not variant.overrides]
    ranked = [variant.tokens for variant in variants if {*parse(variant.tokens).rankings} <= {"cls"}]
    return list(dict.fromkeys([*TABLE1, *ranked, *RELATIVES]))


def search(
    config: Config, speedup: float, max_drop: float, from_block: int, limit: int, prior: PriorResults
) -> list[Plan]:
    """Return the first schedules that are ideally so many times as fast as dense; as `src.schedules.search.find`.

    Args:
        limit: How many to return.

    Raises:
        UserError: None can be.
    """
    if speedup <= 1:
        raise UserError(f"--target-speedup {speedup:g}: name a number above 1, the speed of the dense model")
    if max_drop >= 100:
        raise UserError(f"--max-drop {max_drop:g}: name a percentage below 100, or no token would be kept")
    plans = find(Geometry.from_config(config.model), speedup - 1, max_drop, from_block, known_specs(prior))
    return sorted(plans, key=lambda plan: sort_key(plan, prior))[:limit]


def sort_key(plan: Plan, prior: PriorResults) -> tuple[bool, float, float, float]:
    """Return what plans are sorted by: small data sets do not overrule ImageNet, nor a lucky seed a proven schedule."""
    spec = str(plan.schedule)
    paper = TABLE1[spec].top1 if spec in TABLE1 else 0.0
    own = [summaries[Variant(spec)] for summaries in prior.values() if Variant(spec) in summaries]
    least = [
        found.difference - found.margin for found in own if found.margin is not None and found.difference is not None
    ]
    return spec not in TABLE1, -paper, -max(least, default=-math.inf), share_dropped(plan)


def table(plans: Sequence[Plan], prior: PriorResults, timings: "Mapping[str, Timing]") -> str:
    """Return the plans as Markdown; accuracies are differences of top-1 to the dense model, in percentage points."""
    header = ["schedule", "tokens", "most gone", "ideal gain", *(["measured gain"] if timings else []), "paper: top-1",
              *(f"{name}: top-1 (95% interval)" for name in prior)]  # fmt: skip
    rows = []
    for plan in plans:
        spec = str(plan.schedule)
        published = f"{TABLE1[spec].top1 - TABLE1['none'].top1:+.2f}" if spec in TABLE1 else ""
        rows.append(
            [
                f"`{spec}`",
                " ".join(map(str, dict.fromkeys(plan.tokens_out))),
                f"{100 * share_dropped(plan):.0f}%",
                f"{100 * plan.training_gain:+.1f}%",
                *([gain_text(timings[spec].gain_figures)] if timings else []),
                published,
                *(_accuracy(summaries.get(Variant(spec))) for summaries in prior.values()),
            ]
        )
    note = "Top-1: difference to the dense model of the same experiment, percentage points."
    note += " The paper's and those of docs/results are of ViTs."
    if timings:
        note += " Measured gain: the median over rounds (the least to the greatest)."
    return f"{markdown.table(header, rows)}\n{note}\n"


def _accuracy(summary: Optional[Summary]) -> str:
    if summary is None or summary.difference is None:
        return ""
    margin = "" if summary.margin is None else f" ± {summary.margin:.2f}"
    return f"{summary.difference:+.2f}{margin}"
