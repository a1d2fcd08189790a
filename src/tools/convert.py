"""Convert weights of timm, DeiT, EViT, LV-ViT, DynamicViT, MindCV or Google's ViT to a checkpoint of ours, and back.

Example: python -m src.tools.convert deit_small_patch16_224.pth deit_s.ckpt
Example: python -m src.tools.convert runs/NAME/checkpoints/best.ckpt skipvit_s.safetensors --to timm

IN: .safetensors (timm), .pth or .pt (PyTorch; of a training's checkpoint the weights), .npz (Google), .ckpt (ours, or
MindCV's). OUT: .ckpt, or with --to timm .safetensors, which for LV-ViT and DynamicViT has the names of their own code.
What a file does not tell, such as the pixels that its training saw, is assumed and printed; name another with
section.key=value. No pickle is run.
"""

from collections.abc import Sequence

from src import cli

SUFFIX = {"ours": ".ckpt", "timm": ".safetensors"}


def main(argv: Sequence[str]) -> None:
    """Read, compare with the model, and write."""
    args = _parser().parse(argv)
    from pathlib import Path

    from src.errors import UserError
    from src.files import check_output
    from src.weights import convert

    if len(args.files) != 2:
        raise UserError(f"convert takes two files, IN and OUT, not {len(args.files)}; see --help")
    source, target = (Path(file) for file in args.files)
    if target.suffix != SUFFIX[args.to]:
        raise UserError(f"OUT {target} must end in {SUFFIX[args.to]} with --to {args.to}")
    check_output(target)
    if target.exists() and target.samefile(source):
        raise UserError(f"OUT {target} is the same file as IN; name another")
    weights = convert.read(source, args.overrides, args.part, args.num_classes, args.in_channels)
    convert.write(target, weights)
    print("\n".join(weights.summary()))
    print(f"load with: {convert.loaded_by(weights)}" if args.to == "timm" else f"written: {target}")


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__, files="IN OUT", config=False)
    parser.add_argument("--to", choices=("ours", "timm"), default="ours", help="what to write (ours)")
    parser.add_argument(
        "--part", default="", metavar="NAME", help="of a .pth what to read, such as model_ema (the weights)"
    )
    parser.add_argument("--num_classes", type=cli.positive_int, metavar="N", help="fresh heads of N classes")
    parser.add_argument("--in_channels", type=cli.positive_int, metavar="N", help="for images of N channels")
    return parser


if __name__ == "__main__":
    cli.run(main)
