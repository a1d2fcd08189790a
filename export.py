"""Export a checkpoint as MindIR, verified against the network.

Example: python export.py --batch_size 0

Without --ckpt: the best checkpoint of the newest run. Without --config: the configuration of the checkpoint's run, or
the one in the checkpoint. Without --output: next to the checkpoint. For an Ascend from a laptop: --target ascend.
"""

from collections.abc import Sequence

from src import cli


def main(argv: Sequence[str]) -> None:
    """Parse the arguments, find the checkpoint, and export it."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--ckpt", metavar="FILE", help="checkpoint to export")
    parser.add_argument("--output", metavar="FILE.mindir", help="file to write")
    parser.add_argument(
        "--batch_size", type=cli.nonnegative_int, default=1, metavar="N", help="images of a batch; 0: any number"
    )
    parser.add_argument(
        "--tolerance", type=cli.nonnegative_float, default=1e-4, help="largest difference of logits to accept"
    )
    parser.add_argument(
        "--target", choices=("cpu", "ascend"), help="device whose kernels the file holds (the configured device's)"
    )
    args = parser.parse(argv)
    from pathlib import Path

    from src.export.mindir import export_checkpoint
    from src.runs import find_checkpoint

    config, checkpoint = find_checkpoint(args.config, args.ckpt, args.overrides)
    output = Path(args.output) if args.output else checkpoint.with_suffix(".mindir")
    export_checkpoint(config, checkpoint, output, args.batch_size, args.tolerance, args.target)


if __name__ == "__main__":
    cli.run(main)
