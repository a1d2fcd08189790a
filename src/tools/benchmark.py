"""Measure the speed of schedules in training and inference; or, of a --config without --specs, its whole training.

Example: python -m src.tools.benchmark --specs none "6(55%)+11" --json bench.json --png bench.png
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src import cli

PEERS, DATA_PEERS = ("transformers", "mindcv"), ("timm",)  # of the model, and of the data pipeline with --data
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "vit_s.yaml"


def main(argv: Sequence[str]) -> None:
    """Measure, print the table, and write what is asked for."""
    args = _parser().parse(argv)
    cli.start_log()
    from src.errors import UserError
    from src.files import check_output

    for file in filter(None, (args.json, args.markdown, args.png)):
        check_output(Path(file))
    schedules = not args.data and (args.specs or not args.config)
    if args.png and not schedules:
        raise UserError("--png draws schedules, not a data pipeline or a run; leave it out, or name --specs alone")
    if unfit := set(args.peer) - set(DATA_PEERS if args.data else PEERS if schedules else ()):
        what = "a data pipeline; add --data CONFIG" if min(unfit) in DATA_PEERS else "a model; add --specs, not --data"
        raise UserError(f"--peer {min(unfit)} is {what}")
    report, text = _measure(args)
    print(text)
    for file, content in ((args.json, json.dumps(report, indent=1) + "\n"), (args.markdown, text)):
        if file:
            Path(file).write_text(content, encoding="utf-8")
    if args.png:
        from src.benchmarks.plots import plot  # matplotlib

        plot(report, Path(args.png))


def _measure(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from src.benchmarks import data, measure, run
    from src.benchmarks.settings import benchmark_config, benchmark_settings
    from src.config import load
    from src.schedules.paper import TABLE1

    if args.data:
        report = data.measure_data(load(args.data, args.overrides), args.pairs, args.rate, args.peer)
        return report, data.table(report)
    settings = benchmark_settings(vars(args), bool(args.config))
    config = benchmark_config(args.config or CONFIG, {**settings, **args.overrides})
    if args.config and not args.specs:
        return (report := run.measure_run(config, args.pairs, args.steps)), run.table(report)
    report = measure.measure(config, args.specs or list(TABLE1), args.pairs, args.steps, args.peer)
    return report, measure.table(report)


def _parser() -> cli.Parser:
    parser, count = cli.Parser(__doc__), cli.positive_int
    parser.add_argument("--specs", nargs="+", metavar="SPEC", help="schedules (Table 1's, or --config's phases)")
    parser.add_argument("--model", metavar="NAME", help="skipvit_{ti,s,b}_16_224 (s, or --config's)")
    parser.add_argument("--image_size", type=count, metavar="N", help="pixels of a side (224, or --config's)")
    parser.add_argument("--batch_size", type=count, metavar="N", help="images of a batch (16, or --config's)")
    parser.add_argument("--precision", choices=("float32", "float16"), help="float32, or --config's")
    parser.add_argument("--pairs", type=count, default=5, metavar="N", help="rounds of turns (5)")
    parser.add_argument("--steps", type=count, default=1, metavar="N", help="timed steps of a turn (1)")
    parser.add_argument("--peer", action="append", default=[], choices=PEERS + DATA_PEERS, help="another (repeatable)")
    parser.add_argument("--data", metavar="CONFIG", help="measure the data pipeline of a configuration instead")
    parser.add_argument("--rate", type=count, default=1000, metavar="N", help="img/s that --data is to feed (1000)")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    parser.add_argument("--markdown", metavar="FILE", help="write the table")
    parser.add_argument("--png", metavar="FILE", help="draw them")
    return parser


if __name__ == "__main__":
    cli.run(main)
