"""Predict the classes of images, by a checkpoint or an exported file.

Example: python -m src.tools.predict best.onnx photos
Example: python -m src.tools.predict runs/NAME/checkpoints/best.ckpt --json a.png b.png model.tokens=none

The first FILE is the network: .ckpt, .mindir or .onnx, the last of which needs no MindSpore; what follows are images,
or folders of them. Images are prepared alike for all three. With --json, a line of JSON for each image: its name, the
five most likely classes with their probabilities, and the schedule.
"""

import json
from collections.abc import Sequence

from src import cli


def main(argv: Sequence[str]) -> None:
    """Parse the arguments, open the network, and print a line for each image."""
    parser = cli.Parser(__doc__, files="FILE IMAGE|FOLDER")
    parser.add_argument("--json", action="store_true", help="print lines of JSON")
    parser.add_argument(
        "--batch_size", type=cli.positive_int, default=16, metavar="N", help="images at once (default: 16)"
    )
    args = parser.parse(argv)
    from pathlib import Path

    from src.data.datasets import find_images
    from src.errors import UserError
    from src.export.predictor import open_predictor
    from src.progress import Progress

    if len(args.files) < 2:
        raise UserError("predict takes a network's FILE and images; see --help")
    files = find_images(args.files[1:])
    predictor = open_predictor(Path(args.files[0]), args.config, args.overrides, args.batch_size)
    with Progress(len(files), "predicting", unit="image", leave=False) as progress:
        for first in range(0, len(files), args.batch_size):
            batch = files[first : first + args.batch_size]
            for result in predictor.predict(batch):
                print(json.dumps(result, ensure_ascii=False) if args.json else _line(result))
            progress.advance(len(batch))


def _line(result: dict) -> str:
    """Return what was found of an image as it is read."""
    return f"{result['image']}: " + ", ".join(f"{name} {100 * share:.1f}%" for name, share in result["top5"])


if __name__ == "__main__":
    cli.run(main)
