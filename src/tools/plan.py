"""Find schedules that reach a training speed, with what is known of their accuracy.

Example: python -m src.tools.plan --target-speedup 1.25 --align 16

Speed is ideal (multiply-accumulates) unless it is measured. For each place to drop (one block or two) and to return (or
to fuse), the least ratio in steps of 5% that reaches the target. The paper's schedules come first, the most accurate
first; then those that have results, by the lower end of the interval; then those that take the fewest tokens at once.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Optional

from src import cli
from src.config import Config, load, with_classes
from src.errors import UserError
from src.models.schedule import Geometry, Plan, parse, resolve
from src.tools.experiments import Row, Summary, read_results, summarise
from src.tools.paper import TABLE1
from src.tools.timing import Timing, markdown

ROOT = Path(__file__).resolve().parents[2]
STEP = 5  # percent

Known = Mapping[str, Mapping[Row, Summary]]  # by the name of the experiment


def main(argv: Sequence[str]) -> None:
    args = _parser().parse(argv)
    if args.target_speedup <= 1 or args.max_drop >= 100:
        raise UserError(
            f"--target-speedup {args.target_speedup:g} must be above 1, --max-drop {args.max_drop:g} below 100 percent"
        )
    aligned = [] if args.align is None else [f"model.align_tokens={args.align}"]
    config = load(args.config or ROOT / "configs" / "skipvit_s.yaml", [*args.overrides, "model.tokens=none", *aligned])
    if config.model.num_classes is None:
        config = with_classes(config)
        print(f"model.num_classes is null, for the data decides it: counted with {config.model.num_classes}\n")
    files = [Path(file) for file in args.results] if args.results else sorted((ROOT / "docs/results").glob("*.csv"))
    known = {file.stem: summarise(read_results(file)) for file in files}
    plans = find(geometry_of(config), args.target_speedup - 1, args.max_drop, args.from_block, _specs(known))
    chosen = sorted(plans, key=lambda plan: _place(plan, known))[: args.limit]
    timings = _measure(config, chosen, args.pairs) if args.measure else {}
    print(table(chosen, known, timings))


def geometry_of(config: Config) -> Geometry:
    """The sizes of a configuration's model."""
    from src.models import from_config  # this imports MindSpore

    return from_config(config.model).geometry


def find(
    geometry: Geometry, gain: float, max_drop: float, from_block: int = 1, specs: Sequence[str] = ()
) -> list[Plan]:
    """Plans whose ideal gain is at least `gain` (a fraction) while no drop takes more than `max_drop` percent.

    Args:
        from_block: The first block that may drop, counted from 1.
        specs: Schedules to look at besides those of the search.

    Raises:
        UserError: There is none, or no such block.
    """
    if from_block > geometry.depth:
        raise UserError(f"--from-block {from_block} is out of range: the model has blocks 1 to {geometry.depth}")
    plans = [_least(geometry, gain, max_drop, pattern) for pattern in _patterns(from_block, geometry.depth)]
    for spec in specs:
        schedule = parse(spec)
        blocks = [stage.block for stage in schedule.stages] + [schedule.rejoin or 0]
        if schedule.stages and blocks[0] >= from_block and max(blocks) <= geometry.depth:
            plan = resolve(schedule, geometry)
            drops = [100 * float(stage.ratio) for stage in schedule.stages]
            plans.append(plan if plan.ideal_gain >= gain and max(drops) <= max_drop else None)
    found = {str(plan.schedule): plan for plan in plans if plan is not None}
    if not found:
        raise UserError(
            f"no schedule with drops of up to {max_drop:g}% is {1 + gain:g} times as fast; lower --target-speedup, or"
            " raise --max-drop"
        )
    return list(found.values())


def _patterns(from_block: int, depth: int) -> Iterator[str]:
    """One or two drops, and where tokens return: with {0} for each drop's ratio."""
    blocks = range(from_block, depth + 1)
    for first, rejoin in itertools.combinations(blocks, 2):
        yield f"{first}({{0}}%)+{rejoin}"
    for first, second, rejoin in itertools.combinations(blocks, 3):
        yield f"{first},{second}({{0}}%,{{0}}%)+{rejoin}"
    for first in blocks:
        yield f"{first}({{0}}%)+fused"


def _least(geometry: Geometry, gain: float, max_drop: float, pattern: str) -> Optional[Plan]:
    for percent in range(STEP, int(min(max_drop, 99)) + 1, STEP):
        plan = resolve(parse(pattern.format(percent)), geometry)
        if plan.ideal_gain >= gain:
            return plan
    return None


def tokens_gone(plan: Plan) -> float:
    """The largest share of the tokens that is out of the sequence at once."""
    return 1 - min(plan.tokens_out) / max(plan.tokens_in)


def table(plans: Sequence[Plan], known: Known, timings: Mapping[str, Timing]) -> str:
    """The plans as Markdown; accuracies are differences of top-1 to the dense model, in percentage points."""
    header = ["schedule", "tokens", "most gone", "ideal gain", *(["measured gain"] if timings else []), "paper: top-1",
              *(f"{name}: top-1 (95% interval)" for name in known)]  # fmt: skip
    lines = []
    for plan in plans:
        spec = str(plan.schedule)
        published = f"{TABLE1[spec].top1 - TABLE1['none'].top1:+.2f}" if spec in TABLE1 else ""
        lines.append(
            [
                f"`{spec}`",
                " ".join(map(str, dict.fromkeys(plan.tokens_out))),
                f"{100 * tokens_gone(plan):.0f}%",
                f"{100 * plan.ideal_gain:+.1f}%",
                *([_gain(timings[spec])] if timings else []),
                published,
                *(_accuracy(summaries.get(Row(spec))) for summaries in known.values()),
            ]
        )
    note = "Top-1: difference to the dense model of the same experiment, percentage points."
    if timings:
        note += " Measured gain: the median over rounds (the least to the greatest)."
    return f"{markdown(header, lines)}\n{note}\n"


def _gain(timing: Timing) -> str:
    return f"{100 * timing.gain:+.1f}% ({100 * min(timing.gains):+.1f} to {100 * max(timing.gains):+.1f})"


def _accuracy(summary: Optional[Summary]) -> str:
    if summary is None or summary.difference is None:
        return ""
    margin = "" if summary.margin is None else f" ± {summary.margin:.2f}"
    return f"{summary.difference:+.2f}{margin}"


def _specs(known: Known) -> list[str]:
    rows = [row for summaries in known.values() for row in summaries if not row.overrides]
    return list(dict.fromkeys([*TABLE1, *(row.tokens for row in rows if not parse(row.tokens).random)]))


def _place(plan: Plan, known: Known) -> tuple[bool, float, float, float]:
    """What plans are sorted by; small data sets do not overrule ImageNet, nor one's luck a schedule that is sure."""
    spec = str(plan.schedule)
    paper = TABLE1[spec].top1 if spec in TABLE1 else 0.0
    own = [rows[Row(spec)] for rows in known.values() if Row(spec) in rows]
    least = [found.difference - found.margin for found in own if found.margin is not None]
    return spec not in TABLE1, -paper, -max(least, default=-math.inf), tokens_gone(plan)


def _measure(config: Config, plans: Sequence[Plan], pairs: int) -> dict[str, Timing]:
    """Training steps and dense ones on this device, as src.tools.benchmark measures them."""
    from src.tools.benchmark import time_training

    cli.start_log()
    specs = ["none", *(str(plan.schedule) for plan in plans)]
    return time_training(config, specs, pairs, steps=1)


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--target-speedup", type=cli.real, required=True, metavar="X", help="times as fast as dense")
    parser.add_argument("--max-drop", type=cli.real, default=60, metavar="PERCENT", help="most that a drop takes (60)")
    parser.add_argument(
        "--from-block", type=cli.positive, default=4, metavar="N", help="first block that may drop (4, as in the paper)"
    )
    parser.add_argument("--align", type=cli.positive, metavar="N", help="sets model.align_tokens; 16 suits Ascend")
    parser.add_argument("--limit", type=cli.positive, default=15, metavar="N", help="schedules to list (15)")
    parser.add_argument("--results", nargs="+", metavar="FILE", help="results.csv of src.tools.table1 (docs/results)")
    parser.add_argument("--measure", action="store_true", help="measure those that are listed, on this device")
    parser.add_argument("--pairs", type=cli.positive, default=5, metavar="N", help="rounds of measuring (5)")
    return parser


if __name__ == "__main__":
    cli.run(main)
