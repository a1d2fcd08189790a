"""Evaluate a checkpoint: top-1 and top-5, under its own or another schedule.

Example: python eval.py model.tokens=none

Without --ckpt: the best checkpoint of the newest run. Without --config: the configuration of the checkpoint's run, or
the one in the checkpoint.
"""

import json
from collections.abc import Sequence

from src import cli


def main(argv: Sequence[str]) -> None:
    """Parse the arguments, find the checkpoint, and evaluate it."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--ckpt", metavar="FILE", help="checkpoint to evaluate")
    parser.add_argument("--distribute", action="store_true", help="share the images with the processes of msrun")
    args = parser.parse(argv)
    from src import commands
    from src.runs import find_checkpoint

    config, checkpoint = find_checkpoint(args.config, args.ckpt, args.overrides)
    result = commands.evaluate(config, checkpoint, args.distribute)
    if result is None:
        return
    print(f"checkpoint {checkpoint} on {config.data.root}")
    print(json.dumps(result))


if __name__ == "__main__":
    cli.run(main)
