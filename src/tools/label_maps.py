"""Write what a trained network sees in each patch of every training image, as labels of patch tokens.

Example: python -m src.tools.label_maps --ckpt runs/NAME/checkpoints/best.ckpt --output data/labels
Example: python train.py --config configs/quickstart.yaml model.backbone=lvvit token_labels.maps=data/labels

Without --ckpt: the best checkpoint of the newest run. Without --config: the configuration of the checkpoint's run, or
the one in the checkpoint; name the images of another set by data.root=FOLDER. No token is dropped, whatever the
schedule. A folder that is there is complete: one that was stopped leaves none.
"""

from collections.abc import Sequence
from pathlib import Path

from src import cli


def main(argv: Sequence[str]) -> None:
    """Find the checkpoint, and write the maps."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--ckpt", metavar="FILE", help="checkpoint of the network")
    parser.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="folder to write")
    args = parser.parse(argv)
    cli.start_log()
    from src import commands
    from src.runs import find_checkpoint

    config, checkpoint = find_checkpoint(args.config, args.ckpt, args.overrides)
    images = commands.write_label_maps(config, checkpoint, args.output)
    print(f"label maps of {images} images: {args.output}; train with token_labels.maps={args.output}")


if __name__ == "__main__":
    cli.run(main)
