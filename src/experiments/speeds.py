"""Training speeds of an experiment's schedules, measured in turns and kept in speeds.json."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from src.config import Config, ImageSize, Role, keys_with, with_tokens
from src.errors import UserError, short_message
from src.experiments.variants import Variant
from src.files import write_text
from src.runtime.environment import environment, one_line

ROUNDS, STEPS = 15, 3


@dataclass(frozen=True)
class Speeds:
    """Training images per second by kind of step (`kind_of`), and the conditions of the measurement."""

    img_s: dict[str, float]
    where: str


def kind_of(tokens: str, image_size: ImageSize, config: Config) -> str:
    """Return the name of a training step: its schedule, and its image size where that is not the experiment's."""
    return tokens if image_size == config.model.image_size else f"{tokens} at {image_size}"


def check_measurable(variants: Sequence[Variant], config: Config) -> None:
    """Refuse variants whose speeds cannot be compared.

    Raises:
        UserError: One has a model or data of its own, or images are not square.
    """
    for variant in variants:
        if not is_of_one_model(variant):
            raise UserError(f"--measure compares schedules of one model and data; the row {variant} has others")
    if not isinstance(config.model.image_size, int):
        raise UserError("--measure: the images measured with are square; model.image_size must be one number")


def measure_speeds(steps: Iterable[tuple[str, ImageSize]], config: Config, output: Path) -> None:
    """Measure training steps, of a schedule and an image size each, in turns, and write speeds.json."""
    from src.benchmarks.measure import time_training

    dense = ("none", config.model.image_size)  # first: all others are compared with it
    configs = {kind_of(*step, config): with_tokens(config, *step) for step in [dense, *steps]}
    timings = time_training(configs, ROUNDS, STEPS)
    rounds = f"{ROUNDS} rounds of {STEPS} steps in turns, batch {config.data.batch_size}"
    where = f"{rounds}, {one_line(environment(config))}"
    img_s = {kind: round(config.data.batch_size / timing.median, 2) for kind, timing in timings.items()}
    write_text(output / "speeds.json", json.dumps(asdict(Speeds(img_s, where)), indent=1) + "\n")


def read_speeds(output: Path) -> Optional[Speeds]:
    """Read speeds.json; None if nothing was measured.

    Raises:
        UserError: It is not what `measure_speeds` wrote.
    """
    path = output / "speeds.json"
    try:
        return Speeds(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not what --measure wrote; remove it: {short_message(error)}") from error


def is_of_one_model(variant: Variant) -> bool:
    """Tell whether a variant's training steps differ from the dense one's by schedule and image size alone."""
    timed = {*keys_with(Role.STEP_TIME)} - {"model.tokens"}
    return not timed & variant.settings.keys()
