"""What an exported file says of itself: no file beside it is needed to use it."""

import dataclasses
import json

from src import __version__
from src.config import Config
from src.data.prepare import Preparation
from src.runs import class_names
from src.schedules import parse
from src.weights import Checkpoint
from src.weights.load import digest_of


def describe(config: Config, checkpoint: Checkpoint) -> dict[str, str]:
    """Return texts by name.

    tokens         the schedule
    model          its sizes and all else that the configuration's `model` says, in JSON
    classes        the names of the outputs, as a list in JSON; empty where neither checkpoint nor run has them
    preprocessing  how an image becomes the input, as a `Preparation` tells it
    version        of this project
    checkpoint     the SHA-256 of the checkpoint's file
    """
    return {
        "tokens": str(parse(config.model.tokens)),
        "model": json.dumps(dataclasses.asdict(config.model)),
        "classes": json.dumps(class_names(checkpoint)),
        "preprocessing": Preparation.of(config).text(),
        "version": __version__,
        "checkpoint": digest_of(checkpoint.path),
    }
