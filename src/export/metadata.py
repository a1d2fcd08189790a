"""What an exported file says of itself: no file beside it is needed to use it."""

import json

from src import __version__
from src.config import Config, sides
from src.runs import RunFolder
from src.schedules import parse
from src.weights import Checkpoint
from src.weights.load import digest_of


def describe(config: Config, checkpoint: Checkpoint) -> dict[str, str]:
    """Return texts by name.

    tokens         the schedule
    classes        the names of the outputs, as a list in JSON; empty where neither checkpoint nor run has them
    preprocessing  how an image becomes the input, in JSON: the keys of `data` that decide it, and `image_size`
    version        of this project
    checkpoint     the SHA-256 of the checkpoint's file
    """
    run = RunFolder.of_checkpoint(checkpoint.path)
    classes = checkpoint.classes or (run.read_classes() if run else ())
    keys = ("name", "crop_pct", "interpolation", "resize", "mean", "std")
    preprocessing = {"image_size": sides(config.model.image_size), **{key: getattr(config.data, key) for key in keys}}
    return {
        "tokens": str(parse(config.model.tokens)),
        "classes": json.dumps(classes),
        "preprocessing": json.dumps(preprocessing),
        "version": __version__,
        "checkpoint": digest_of(checkpoint.path),
    }
