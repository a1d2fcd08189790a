"""Predict the classes of images, by a checkpoint or an exported file.

Example: python -m src.tools.predict best.onnx photos
Example: python -m src.tools.predict runs/NAME/checkpoints/best.ckpt --json a.png b.png model.tokens=none

The first FILE is the network: .ckpt, .mindir or .onnx, the last of which needs no MindSpore; what follows are images,
or folders of them. Images are prepared alike for all three. With --json, a line of JSON for each image: its name, the
five most likely classes with their probabilities, and the schedule. --save draws the tokens that each drop keeps, of a
checkpoint or of ONNX that was exported with --kept.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from src import cli


def main(argv: Sequence[str]) -> None:
    """Parse the arguments, open the network, and print a line for each image."""
    parser = cli.Parser(__doc__, files="FILE IMAGE|FOLDER")
    parser.add_argument("--json", action="store_true", help="print lines of JSON")
    parser.add_argument("--save", metavar="FILE.png", type=Path, help="draw the tokens that are kept")
    parser.add_argument(
        "--batch_size", type=cli.positive_int, default=16, metavar="N", help="images at once (default: 16)"
    )
    args = parser.parse(argv)
    from src.data.datasets import find_images
    from src.errors import UserError
    from src.export.predictor import joined, open_predictor
    from src.progress import Progress

    if len(args.files) < 2:
        raise UserError("predict takes a network's FILE and images; see --help")
    files = find_images(args.files[1:])
    if args.save:
        from src.visuals.predictions import check_sheet, draw_predictions  # matplotlib

        check_sheet(args.save, len(files))
    predictor = open_predictor(Path(args.files[0]), args.config, args.overrides, args.batch_size)
    known, answers = predictor.known, []
    with Progress(len(files), "predicting", unit="image", leave=False) as progress:
        for first in range(0, len(files), args.batch_size):
            batch = files[first : first + args.batch_size]
            answer = predictor.ask(batch)
            answers += [answer] if args.save else []
            for file, logits in zip(batch, answer.trace.logits):
                _tell(predictor.line(str(file), logits), args.json)
            progress.advance(len(batch))
    if args.save:
        pixels, trace = joined(answers)
        titles = [file.name for file in files]
        draw_predictions(args.save, titles, pixels, trace, known.plan, known.geometry.grid, known.classes)


def _tell(line: dict, as_json: bool) -> None:
    """Print what was found of an image."""
    if as_json:
        print(json.dumps(line, ensure_ascii=False))
    else:
        print(f"{line['image']}: " + ", ".join(f"{name} {100 * share:.1f}%" for name, share in line["top5"]))


if __name__ == "__main__":
    cli.run(main)
