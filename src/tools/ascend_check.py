"""Check what Ascend 910A has for each operator of a configuration's graphs; nothing is run on one.

Example: python -m src.tools.ascend_check --config configs/skipvit_s.yaml --specs table1

Without --config: configs/skipvit_s.yaml.
"""

from collections.abc import Sequence
from pathlib import Path

from src import cli

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "skipvit_s.yaml"


def main(argv: Sequence[str]) -> None:
    """Check the graphs, or estimate a step, and print the report."""
    args = _parser().parse(argv)
    cli.start_log()
    from src.ascend.graphs import dump_ir
    from src.config import load, with_classes
    from src.files import check_output
    from src.schedules import Geometry, parse, plan_phases, resolve
    from src.schedules.paper import TABLE1
    from src.schedules.phases import with_predictors

    config = with_classes(load(args.config or CONFIG, args.overrides))
    given = args.specs or [config.model.tokens]
    specs = [spec for text in given for spec in (TABLE1 if text == "table1" else (text,))]
    config = with_predictors(config, *specs)
    for spec in specs:
        resolve(parse(spec), Geometry.from_config(config.model))
    if args.markdown:
        check_output(Path(args.markdown))
    with dump_ir() as folder:
        from src.ascend import check, cost_model, memory

        if args.estimate:
            text = cost_model.table(config, specs, folder)
        elif args.bytes:
            text = memory.report(config, specs, folder)
        else:
            size = config.model.image_size
            wanted = [(spec, size) for spec in specs] if args.specs else [phase.graph for phase in plan_phases(config)]
            text = check.check_config(config, list(dict.fromkeys(wanted)), args.batch_size, folder)
    print(text)
    if args.markdown:
        Path(args.markdown).write_text(text, encoding="utf-8")


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--specs", nargs="+", metavar="SPEC", help="schedules (those of the phases); table1: all of the paper's Table 1"
    )
    parser.add_argument("--batch_size", type=cli.positive_int, default=2, metavar="N", help="images of a batch (2)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--estimate", action="store_true", help="instead: what a step would take, on paper")
    instead.add_argument("--bytes", action="store_true", help="instead: bytes an image that the operators move")
    parser.add_argument("--markdown", metavar="FILE", help="write the report")
    return parser


if __name__ == "__main__":
    cli.run(main)
