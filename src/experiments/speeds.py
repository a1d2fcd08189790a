"""Training speeds of an experiment's schedules, measured in turns and kept in speeds.json."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Optional

from src.config import Config, Role, keys_with
from src.errors import UserError, short_message
from src.experiments.results import TrainingResult, Variant
from src.files import write_text
from src.runtime.environment import environment, one_line

ROUNDS, STEPS = 15, 3


@dataclass(frozen=True)
class Speeds:
    """Training images per second by schedule, and the conditions of the measurement."""

    img_s: dict[str, float]
    where: str


def check_measurable(variants: Sequence[Variant], config: Config) -> None:
    """Refuse variants whose speeds cannot be compared.

    Raises:
        UserError: One has a model or data of its own, or images are not square.
    """
    for variant in variants:
        if not _is_of_one_model(variant):
            raise UserError(f"--measure compares schedules of one model and data; the row {variant} has others")
    if not isinstance(config.model.image_size, int):
        raise UserError("--measure: the images measured with are square; model.image_size must be one number")


def measure_speeds(variants: Iterable[Variant], config: Config, output: Path) -> None:
    """Measure the training step of every schedule in turns, and write speeds.json."""
    from src.benchmarks.measure import time_training

    timings = time_training(config, list(dict.fromkeys(variant.tokens for variant in variants)), ROUNDS, STEPS)
    rounds = f"{ROUNDS} rounds of {STEPS} steps in turns, batch {config.data.batch_size}"
    where = f"{rounds}, {one_line(environment(config))}"
    img_s = {spec: round(config.data.batch_size / timing.median, 2) for spec, timing in timings.items()}
    write_text(output / "speeds.json", json.dumps(asdict(Speeds(img_s, where)), indent=1) + "\n")


def with_speeds(results: Sequence[TrainingResult], output: Path) -> tuple[list[TrainingResult], str]:
    """Return the results with measured speeds where speeds.json has them all, and a note on where speeds are from."""
    speeds = _read(output)
    if speeds and all(_is_of_one_model(result.variant) and result.tokens in speeds.img_s for result in results):
        measured = [replace(result, img_s=speeds.img_s[result.tokens]) for result in results]
        return measured, f" Training speed: {speeds.where}."
    return list(results), (
        " Training speed: of the trainings themselves, beside whatever ran then; --measure compares better."
    )


def _read(output: Path) -> Optional[Speeds]:
    path = output / "speeds.json"
    try:
        return Speeds(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not what --measure wrote; remove it: {short_message(error)}") from error


def _is_of_one_model(variant: Variant) -> bool:
    """Tell whether a variant's training step differs from the dense one's by its schedule alone."""
    timed = {*keys_with(Role.STEP_TIME)} - {"model.tokens"}
    return not timed & variant.settings.keys()
