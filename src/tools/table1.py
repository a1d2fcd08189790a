"""Train every row of the paper's Table 1 (and of ablations), with several seeds, and write the table and its plots.

Example: python -m src.tools.table1 --config configs/quickstart.yaml --seeds 2 --specs none "6(45%)+fused" "6(55%)+11"

Each training is one process on one device: start this without msrun.

Trainings that are finished are not repeated, and one that was stopped is resumed. results.csv has a line a training,
table.md the table; accuracy.png, costs.png, cost-curves.png, curves.png, ablations.png and distance.png are the plots.
All are of the rows and seeds that this call names, whatever an earlier one named; with --finished they are of what is
finished, and nothing is trained. Training speeds are those of the trainings, or with --measure taken in turns when all
are done, on a machine that should be idle then; speeds.json keeps them for the next time.
"""

from collections.abc import Sequence

from src import cli


def main(argv: Sequence[str]) -> None:
    """Train what is not finished, and write and print the table."""
    args = _parser().parse(argv)
    cli.start_log()
    from pathlib import Path

    from src.config import load
    from src.errors import UserError
    from src.experiments.experiment import Experiment
    from src.experiments.paired import Rule
    from src.experiments.variants import Variant, read_rows

    if args.pairs < Rule.pairs:
        raise UserError(f"--pairs {args.pairs}: a test takes at least {Rule.pairs} pairs")
    if not args.config:
        raise UserError("--config is missing; name a configuration with --config FILE")
    config = load(args.config, args.overrides)
    groups = {"schedules": [Variant(spec) for spec in args.specs]} if args.specs else read_rows(Path(args.rows))
    output = Path(args.output) if args.output else None
    rule = Rule(args.margin, args.pairs)
    experiment = Experiment.plan(args.config, config, args.overrides, groups, args.seeds, output, rule)
    if args.measure:
        experiment.check_measurable()
    if not args.finished:
        experiment.train(args.jobs)
    experiment.keep_finished()
    if args.measure:
        experiment.measure_speeds()
    experiment.write()
    experiment.draw()
    print(experiment.table_file.read_text(encoding="utf-8"))


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    count = cli.positive_int
    parser.add_argument(
        "--rows", default="configs/tables/table1.yaml", metavar="FILE", help="rows (configs/tables/table1.yaml)"
    )
    parser.add_argument("--specs", nargs="+", metavar="SPEC", help="these schedules instead of --rows")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="trainings of a row (3)")
    parser.add_argument(
        "--margin", type=cli.nonnegative_float, default=1.0, metavar="POINTS", help="loss of top-1 to be excluded (1.0)"
    )
    parser.add_argument("--pairs", type=count, default=2, metavar="N", help="fewest pairs with dense for a verdict (2)")
    parser.add_argument("--output", metavar="FOLDER", help="where to write (runs/table1-NAME)")
    parser.add_argument(
        "--jobs", type=count, default=1, metavar="N", help="trainings at a time, each on its part of the cores (1)"
    )
    parser.add_argument(
        "--measure", action="store_true", help="at the end, measure training speeds in turns, on an idle machine"
    )
    parser.add_argument("--finished", action="store_true", help="train nothing: table and plots of what is finished")
    return parser


if __name__ == "__main__":
    cli.run(main)
