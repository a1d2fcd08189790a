"""Find schedules that reach a training speed; or print a run's phases; or tell whether a schedule pays here.

Example: python -m src.tools.plan --target-speedup 1.25 --align 16

Speed is ideal (multiply-accumulates) unless it is measured. For each choice of blocks to drop in (one or two) and to
rejoin before (or to fuse), the least ratio in steps of 5% that reaches the target. The paper's schedules come first,
the most accurate first; then those that have results, by the interval's lower end; then by the fewest tokens dropped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src import cli

if TYPE_CHECKING:
    from src.config import Config

CONFIG = (ROOT := Path(__file__).resolve().parents[2]) / "configs/skipvit_s.yaml"


def main(argv: Sequence[str]) -> None:
    """Search, sort, measure if asked to, and print the table."""
    args = _parser().parse(argv)
    from src.benchmarks.settings import count_classes, dense_config
    from src.config import load
    from src.schedules import Geometry, parse, resolve
    from src.schedules.costs import run_costs

    if args.phases:
        print(run_costs(count_classes(load(args.config or CONFIG, args.overrides))).table(), end="")
        return
    config = dense_config(args.config or CONFIG, args.overrides, args.align, args.pays or "none")
    if not args.pays:
        _search(args, config)
        return
    resolve(parse(args.pays), Geometry.from_config(config.model))
    cli.start_log()
    from src.benchmarks import pays

    print(pays.table(pays.measure(config, args.pays, args.pairs)), end="")


def _search(args: argparse.Namespace, config: "Config") -> None:
    """Print the schedules that reach a speed."""
    from src.benchmarks.measure import time_training
    from src.config import with_tokens
    from src.experiments import candidates
    from src.experiments.results import read_results, summarise

    files = [Path(file) for file in args.results] if args.results else sorted((ROOT / "docs/results").glob("*.csv"))
    prior = {file.stem: summarise(read_results(file)) for file in files}
    plans = candidates.search(config, args.target_speedup, args.max_drop, args.from_block, args.limit, prior)
    timings = {}
    if args.measure:
        cli.start_log()
        specs = ["none", *(str(plan.schedule) for plan in plans)]
        timings = time_training({spec: with_tokens(config, spec) for spec in specs}, args.pairs, steps=1)
    print(candidates.table(plans, prior, timings))


def _parser() -> cli.Parser:
    parser, number, count = cli.Parser(__doc__), cli.nonnegative_float, cli.positive_int
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--target-speedup", type=number, metavar="X", help="times as fast as dense")
    task.add_argument("--phases", action="store_true", help="print the configuration's phases and costs, no search")
    task.add_argument("--pays", metavar="SPEC", help="measure whether a schedule pays here: steps, and images for them")
    parser.add_argument("--max-drop", type=number, default=60, metavar="PERCENT", help="most that a drop takes (60)")
    parser.add_argument("--from-block", type=count, default=4, metavar="N", help="first block that may drop (4)")
    parser.add_argument("--align", type=count, metavar="N", help="sets model.align_tokens; 16 suits Ascend")
    parser.add_argument("--limit", type=count, default=15, metavar="N", help="schedules to list (15)")
    parser.add_argument("--results", nargs="+", metavar="FILE", help="results.csv of src.tools.table1 (docs/results)")
    parser.add_argument("--measure", action="store_true", help="measure those that are listed, on this device")
    parser.add_argument("--pairs", type=count, default=5, metavar="N", help="rounds of measuring (5)")
    return parser


if __name__ == "__main__":
    cli.run(main)
