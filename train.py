"""Train a ViT with token skipping.

Example: python train.py --config configs/quickstart.yaml train.epochs=20
"""

from collections.abc import Sequence
from pathlib import Path

from src import cli
from src.config import load


def main(argv: Sequence[str]) -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument("--resume", metavar="RUN_FOLDER", help="go on with a run, under its own configuration")
    parser.add_argument("--distribute", action="store_true", help="train with the other processes that msrun started")
    args = parser.parse(argv)
    if bool(args.config) == bool(args.resume):
        parser.error("give either --config FILE or --resume RUN_FOLDER")
    from src.training.session import begin, go_on  # after the arguments: these import MindSpore

    if args.resume:
        go_on(args.resume, args.overrides, args.distribute)
    else:
        begin(load(args.config, args.overrides), name=Path(args.config).stem, distribute=args.distribute)


if __name__ == "__main__":
    cli.run(main)
