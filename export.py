"""Export a checkpoint as MindIR or ONNX, verified against the network.

Example: python export.py --format onnx --batch_sizes 1,8,0

Without --ckpt: the best checkpoint of the newest run. Without --config: the configuration of the checkpoint's run, or
the one in the checkpoint. Without --output: next to the checkpoint. For an Ascend from a laptop: --target ascend.
"""

import argparse
from collections.abc import Sequence

from src import cli


def sizes(text: str) -> tuple[int, ...]:
    """Parse batch sizes: 1,8,32."""
    return tuple(dict.fromkeys(cli.nonnegative_int(part) for part in text.split(",")))


def main(argv: Sequence[str]) -> None:
    """Parse the arguments, find the checkpoint, and export it."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--ckpt", metavar="FILE", help="checkpoint to export")
    parser.add_argument("--output", metavar="FILE", help="file to write, FILE.mindir or FILE.onnx")
    parser.add_argument("--format", choices=("mindir", "onnx"), help="by default that of --output, or mindir")
    number = parser.add_mutually_exclusive_group()
    number.add_argument(
        "--batch_size", type=cli.nonnegative_int, metavar="N", help="images of a batch (default: 1); 0: any number"
    )
    number.add_argument("--batch_sizes", type=sizes, metavar="N,N", help="several files, FILE-bN and so on")
    parser.add_argument(
        "--tolerance", type=cli.nonnegative_float, default=1e-4, help="largest difference of logits to accept"
    )
    parser.add_argument(
        "--target", choices=("cpu", "ascend"), help="of MindIR: device whose kernels it holds (the configured device's)"
    )
    parser.add_argument("--float16", action="store_true", help="of ONNX: store weights in half the size")
    parser.add_argument("--kept", action="store_true", help="kept tokens as further outputs")
    parser.add_argument("--uint8", action="store_true", help="take uint8 [B, H, W, 3], and normalise it")
    args = parser.parse(argv)
    export(args, args.batch_sizes or (1 if args.batch_size is None else args.batch_size,))


def export(args: argparse.Namespace, batch_sizes: Sequence[int]) -> None:
    """Export a checkpoint as the arguments say."""
    from pathlib import Path

    from src.errors import UserError
    from src.export.checks import name_outputs
    from src.runs import find_checkpoint

    config, checkpoint = find_checkpoint(args.config, args.ckpt, args.overrides)
    suffix = Path(args.output or "").suffix[1:]
    kind = args.format or (suffix if suffix == "onnx" else "mindir")
    output = Path(args.output) if args.output else checkpoint.with_suffix(f".{kind}")
    outputs = name_outputs(output, batch_sizes)
    if kind == "mindir" and args.float16:
        raise UserError("--float16 is for ONNX; add --format onnx, or leave it out")
    if kind == "onnx" and args.target:
        raise UserError("--target is for MindIR: ONNX holds no device's kernels; leave it out")
    from src.export import mindir
    from src.export.form import Form
    from src.export.onnx import export as onnx

    form = Form(kept=args.kept, uint8=args.uint8, float16=args.float16)
    if kind == "onnx":
        onnx.export_checkpoint(config, checkpoint, outputs, form, args.tolerance)
    else:
        mindir.export_checkpoint(config, checkpoint, outputs, form, args.tolerance, args.target)


if __name__ == "__main__":
    cli.run(main)
