"""Measure the speed of schedules in training and inference.

Example: python -m src.tools.benchmark --specs none "6(55%)+11" --json bench.json --png bench.png
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from src import cli

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "vit_s.yaml"


def main(argv: Sequence[str]) -> None:
    """Measure, print the table, and write what is asked for."""
    args = _parser().parse(argv)
    cli.start_log()
    from src.benchmarks import measure
    from src.benchmarks.settings import benchmark_config, benchmark_settings
    from src.config import load
    from src.files import check_output
    from src.schedules import Geometry, parse, resolve
    from src.schedules.paper import TABLE1

    if args.probe:
        print(json.dumps(measure.probe(load(args.probe))))
        return
    settings = benchmark_settings(args.model, args.image_size, args.batch_size, args.precision)
    config = benchmark_config(args.config or CONFIG, {**settings, **args.overrides})
    specs = list(dict.fromkeys(["none", *(str(parse(spec)) for spec in args.specs or TABLE1)]))
    for spec in specs:
        resolve(parse(spec), Geometry.from_config(config.model))
    if args.data:
        load(args.data)
    for file in filter(None, (args.json, args.markdown, args.png)):
        check_output(Path(file))
    report = measure.measure(config, specs, args.pairs, args.steps, args.peer, args.data)
    print(measure.table(report))
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.markdown:
        Path(args.markdown).write_text(measure.table(report), encoding="utf-8")
    if args.png:
        from src.benchmarks.plots import plot

        plot(report, Path(args.png))


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    count = cli.positive_int
    parser.add_argument("--specs", nargs="+", metavar="SPEC", help="schedules (Table 1's); none is added")
    parser.add_argument("--model", default="skipvit_s_16_224", metavar="NAME", help="skipvit_{ti,s,b}_16_224")
    parser.add_argument("--image_size", type=count, default=224, metavar="N", help="pixels of a side (224)")
    parser.add_argument("--batch_size", type=count, default=16, metavar="N", help="images of a batch (16)")
    parser.add_argument("--precision", choices=("float32", "float16"), default="float32")
    parser.add_argument("--pairs", type=count, default=5, metavar="N", help="rounds of turns (5)")
    parser.add_argument("--steps", type=count, default=1, metavar="N", help="timed steps of a turn (1)")
    parser.add_argument(
        "--peer", action="append", default=[], choices=("transformers", "mindcv"), help="also measure it (repeatable)"
    )
    parser.add_argument("--data", default="", metavar="CONFIG", help="also time the data pipeline of a configuration")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--markdown", metavar="FILE", help="write the table")
    parser.add_argument("--png", metavar="FILE", help="draw them")
    parser.add_argument("--probe", help=argparse.SUPPRESS)  # what measures in another process
    return parser


if __name__ == "__main__":
    cli.run(main)
