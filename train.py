"""Train a ViT with token skipping.

Example: python train.py --config configs/quickstart.yaml train.epochs=20
"""

from collections.abc import Sequence

from src import cli


def main(argv: Sequence[str]) -> None:
    """Parse the arguments, load the configuration, and train or resume."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--resume", metavar="RUN_FOLDER", help="resume RUN_FOLDER with its saved configuration")
    parser.add_argument("--distribute", action="store_true", help="train with the other processes that msrun started")
    parser.add_argument("--print", action="store_true", help="print the resolved configuration, and train nothing")
    args = parser.parse(argv)
    if bool(args.config) == bool(args.resume):
        parser.error("give either --config FILE or --resume RUN_FOLDER")
    if args.print and not args.config:
        parser.error("--print goes with --config FILE; a run folder has its whole configuration in config.yaml")
    from pathlib import Path

    from src import commands
    from src.config import dump, resolve

    if args.resume:
        commands.resume(args.resume, args.overrides, args.distribute)
        return
    resolved = resolve(args.config, args.overrides)
    if args.print:
        commands.check(resolved.config)
        print(dump(resolved.config, resolved.origins), end="")
    else:
        commands.train(resolved.config, Path(args.config).stem, args.distribute, resolved.left_open())


if __name__ == "__main__":
    cli.run(main)
