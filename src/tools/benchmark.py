"""Measure the speed of schedules in training and inference; or, of a --config without --specs, its whole training.

Example: python -m src.tools.benchmark --specs none "6(55%)+11" --json bench.json --png bench.png
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src import cli

PEERS = ("transformers", "mindcv", "timm")
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "vit_s.yaml"


def main(argv: Sequence[str]) -> None:
    """Measure, print the table, and write what is asked for."""
    args = _parser().parse(argv)
    cli.start_log()
    from src.benchmarks.settings import check_options
    from src.files import check_output

    for file in filter(None, (args.json, args.markdown, args.png)):
        check_output(Path(file))
    check_options(vars(args))
    report, text = _measure(args)
    print(text)
    for file, content in ((args.json, json.dumps(report, indent=1) + "\n"), (args.markdown, text)):
        if file:
            Path(file).write_text(content, encoding="utf-8")
    if args.png:
        from src.benchmarks.plots import plot

        plot(report, Path(args.png))


def _measure(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from src.benchmarks import data, deploy, measure, run
    from src.benchmarks.settings import benchmark_config, benchmark_settings
    from src.config import load
    from src.schedules.paper import TABLE1

    if args.data:
        report = data.measure_data(load(args.data, args.overrides), args.pairs, args.rate, args.peer)
        return report, data.table(report)
    settings = benchmark_settings(vars(args), bool(args.config))
    config = benchmark_config(args.config or CONFIG, {**settings, **args.overrides}, args.peer, args.specs or ())
    if args.deploy:
        report = deploy.measure_latency(config, args.specs or deploy.SPECS, args.pairs, args.steps)
        return report, deploy.table(report)
    if args.config and not args.specs:
        return (report := run.measure_run(config, args.pairs, args.steps)), run.table(report)
    report = measure.measure(config, args.specs or list(TABLE1), args.pairs, args.steps, args.peer)
    return report, measure.table(report)


def _parser() -> cli.Parser:
    parser, count = cli.Parser(__doc__), cli.positive_int
    parser.add_argument("--specs", nargs="+", metavar="SPEC", help="schedules (Table 1's, or --config's phases)")
    parser.add_argument("--model", metavar="NAME", help="a model of the registry (skipvit_s_16_224, or --config's)")
    parser.add_argument("--image_size", type=count, metavar="N", help="pixels of a side (224, or --config's)")
    parser.add_argument("--batch_size", type=count, metavar="N", help="images of a batch (16, or --config's)")
    parser.add_argument("--precision", choices=("float32", "float16"), help="float32, or --config's")
    parser.add_argument("--pairs", type=count, default=5, metavar="N", help="rounds of turns (5)")
    parser.add_argument("--steps", type=count, default=1, metavar="N", help="timed steps of a turn (1)")
    parser.add_argument("--peer", action="append", default=[], choices=PEERS, help="another (repeatable)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--data", metavar="CONFIG", help="measure the data pipeline of a configuration instead")
    what.add_argument("--deploy", action="store_true", help="measure the latency of exported files instead")
    parser.add_argument("--rate", type=count, default=1000, metavar="N", help="img/s that --data is to feed (1000)")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--markdown", metavar="FILE", help="write the table")
    parser.add_argument("--png", metavar="FILE", help="draw them")
    return parser


if __name__ == "__main__":
    cli.run(main)
