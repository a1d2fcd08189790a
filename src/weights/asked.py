"""The frozen networks that a training asks, by the keys that name their files."""

from collections.abc import Sequence

from src.config import Config
from src.weights.frozen import Frozen
from src.weights.oracle import read_oracle
from src.weights.teacher import read_teacher

ORACLE, TEACHER = "train.oracle", "predictor.teacher"


def read_asked(config: Config, classes: Sequence[str] = ()) -> dict[str, Frozen]:
    """Read the files that `train.oracle` and `predictor.teacher` name, as far as they do.

    Args:
        classes: Of the data, where they are known.

    Raises:
        UserError: A file is missing, unreadable or damaged, or its network is none to ask.
    """
    asked = {}
    if config.train.oracle is not None:
        asked[ORACLE] = read_oracle(config.train.oracle, config)
    if config.predictor.teacher is not None:
        asked[TEACHER] = read_teacher(config.predictor.teacher, config, classes)
    return asked
