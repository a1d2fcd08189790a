"""Evaluate a checkpoint: top-1 and top-5, under its own or another schedule.

Example: python eval.py model.tokens=none

Without --ckpt: the best checkpoint of the newest run. Without --config: the configuration of the checkpoint's run, or
the one in the checkpoint. --tokens evaluates it under many schedules in one start: what a schedule costs without
training for it, and what its ranking is worth. The last lines are JSON, one a schedule.
"""

import json
from collections.abc import Sequence

from src import cli


def main(argv: Sequence[str]) -> None:
    """Parse the arguments, find the checkpoint, and evaluate it."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--ckpt", metavar="FILE", help="checkpoint to evaluate")
    parser.add_argument("--tokens", nargs="+", metavar="SPEC", help="schedules to evaluate (model.tokens)")
    parser.add_argument("--rows", metavar="FILE", help="a file of schedules, such as configs/tables/shares.yaml")
    parser.add_argument("--output", metavar="FOLDER", help="write tables, a plot and each image's prediction to FOLDER")
    parser.add_argument("--save_tokens", action="store_true", help="write tokens and scores of each image too")
    parser.add_argument("--distribute", action="store_true", help="share the images with the processes of msrun")
    args = parser.parse(argv)
    from pathlib import Path

    from src import commands
    from src.experiments.variants import read_specs
    from src.runs import find_checkpoint

    if args.rows and args.tokens:
        parser.error("--tokens and --rows both name schedules; give one")
    specs = read_specs(Path(args.rows)) if args.rows else args.tokens or ()
    config, checkpoint = find_checkpoint(args.config, args.ckpt, args.overrides)
    output = Path(args.output) if args.output else None
    results = commands.evaluate(config, checkpoint, args.distribute, specs, output, args.save_tokens)
    if results:
        print(f"checkpoint {checkpoint} on {config.data.root}")
    if output is not None:
        print(f"tables, plot and predictions are in {output}")
    for result in results:
        print(json.dumps(result))


if __name__ == "__main__":
    cli.run(main)
