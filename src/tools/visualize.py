"""Draw which patches a network keeps, where its [CLS] token looks, and what it predicts.

Example: python -m src.tools.visualize
Example: python -m src.tools.visualize --tokens none --tokens "6(55%)+11" --output sheet.png photos
Example: python -m src.tools.visualize --epochs runs/NAME

Without --ckpt: the best checkpoint of the newest run. Without --config: the configuration of the checkpoint's run.
Without IMAGE or FOLDER: images of the validation set. Without --output: tokens.png in the run's folder, or beside the
checkpoint. --epochs needs a run that was trained with run.save_every_epochs; it writes epochs.png, with a column for
each of up to 12 epochs, and beside it a GIF of all of them.
"""

from collections.abc import Sequence

from src import cli

MOST_IMAGES = 100


def main(argv: Sequence[str]) -> None:
    """Refuse what can be refused at once, and draw."""
    args = _parser().parse(argv)
    cli.start_log()
    from src.config import load
    from src.data.datasets import find_images
    from src.errors import UserError
    from src.runs import RunFolder, find_checkpoint
    from src.schedules import Geometry, parse, resolve

    if not 1 <= args.limit <= MOST_IMAGES:
        raise UserError(f"--limit {args.limit}: a sheet shows 1 to {MOST_IMAGES} images")
    for spec in args.tokens:
        parse(spec)
    if args.epochs and (args.ckpt or len(args.tokens) > 1):
        raise UserError("--epochs takes the checkpoints of its run, and at most one --tokens")
    if args.epochs:
        run = RunFolder.open(args.epochs)
        if not run.kept_epochs():
            raise UserError(f"run {run.path} has kept no weights of epochs; train with run.save_every_epochs=N")
        found = [(load(args.config or run.config, args.overrides), run.path)]
    else:
        found = [find_checkpoint(args.config, path, args.overrides) for path in args.ckpt or [None]]
    for config, _ in found:
        for spec in args.tokens or [config.model.tokens]:
            resolve(parse(spec), Geometry.from_config(config.model))
    images = find_images(args.files)
    from src.visuals.draw import Request, draw_epochs, draw_sheet

    request = Request(args.tokens, images, args.output, args.limit, args.seed)
    if args.epochs:
        draw_epochs(request, run, found[0][0])
    else:
        draw_sheet(request, found)


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__, files="IMAGE|FOLDER")
    count = cli.nonnegative_int
    parser.add_argument("--ckpt", metavar="FILE", action="append", default=[], help="checkpoint; repeat to compare")
    parser.add_argument("--tokens", metavar="SPEC", action="append", default=[], help="schedule; repeat to compare")
    parser.add_argument("--epochs", metavar="RUN", help="run folder whose epochs are compared")
    parser.add_argument("--output", metavar="FILE.png", help="file to write")
    parser.add_argument("--limit", type=count, default=8, metavar="N", help="images, evenly chosen (default: 8)")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="seed of a random ranking")
    return parser


if __name__ == "__main__":
    cli.run(main)
