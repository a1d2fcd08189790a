"""Draw pictures of checkpoints and runs, and write them to files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np

from src.config import Config
from src.errors import UserError
from src.runs import RunFolder
from src.schedules import plan_phases
from src.schedules.notation import without_oracle
from src.visuals.checkpoints import LoadedCheckpoint, check_same_sight, load_checkpoint, tracers
from src.visuals.images import load_images
from src.visuals.pictures import save_picture
from src.visuals.sheet import contact_sheet, epoch_strip
from src.visuals.tokens import look
from src.weights import read_checkpoint

MOST_COLUMNS = 12


@dataclass(frozen=True)
class Request:
    """What is to be drawn.

    Attributes:
        tokens: Schedules; none for each checkpoint's own.
        images: Image files; none for validation images.
        output: The PNG to write; None for tokens.png or epochs.png in the run folder.
        limit: Images at most.
        seed: Seed of a random ranking.
    """

    tokens: Sequence[str]
    images: Sequence[Path]
    output: Optional[str]
    limit: int
    seed: int


def draw_sheet(request: Request, checkpoints: Sequence[tuple[Config, Path]]) -> None:
    """Draw a row an image and a group of columns for each checkpoint and schedule.

    Args:
        checkpoints: Files with their configurations, as `src.runs.find_checkpoint` finds them.

    Raises:
        UserError: A checkpoint, an image or the output is refused.
    """
    loaded = [load_checkpoint(config, path) for config, path in checkpoints]
    output = _output(request.output, loaded[0], "tokens.png")
    check_same_sight(loaded)
    pairs = [(each, tracer) for each in loaded for tracer in tracers(each, request.tokens)]
    first = loaded[0]
    batch = load_images(request.images, first.config, first.classes, request.limit)
    columns = [
        look(tracer, batch.inputs, each.classes, each.name if len(loaded) > 1 else "", request.seed)
        for each, tracer in pairs
    ]
    heading = first.name if len(loaded) == 1 else ""
    save_picture("--output", output, contact_sheet(batch.pixels, columns, batch.titles, batch.truths, heading))


def draw_epochs(request: Request, run: RunFolder, config: Config) -> None:
    """Draw a column for each epoch whose weights a run kept, and a GIF of their sheets.

    Raises:
        UserError: An image or the output is refused.
    """
    kept = run.kept_epochs()
    loaded = load_checkpoint(config, next(iter(kept.values())))
    output = _output(request.output, loaded, "epochs.png")
    (tracer,) = tracers(loaded, request.tokens)
    batch = load_images(request.images, loaded.config, loaded.classes, request.limit)
    columns = []
    for path in kept.values():
        read_checkpoint(path).load_into(tracer.network)
        columns.append(look(tracer, batch.inputs, loaded.classes, seed=request.seed))
    trained = {epoch: _trained(loaded.config, epoch) for epoch in kept}
    titled = [replace(column, title=f"epoch {epoch}", note=trained[epoch]) for epoch, column in zip(kept, columns)]
    indices = np.linspace(0, len(kept) - 1, min(len(kept), MOST_COLUMNS)).round().astype(int)  # first and last too
    chosen = [titled[index] for index in indices]
    strip = epoch_strip(batch.pixels, chosen, batch.titles, batch.truths, f"{run.name}, {columns[0].title}")
    frames = [
        contact_sheet(batch.pixels, [column], batch.titles, batch.truths, f"{run.name}, epoch {epoch}")
        for epoch, column in zip(kept, columns)
    ]
    save_picture("--output", output, strip)
    save_picture("--output", output.with_suffix(".gif"), *frames)


def _trained(config: Config, epoch: int) -> str:
    """Return how an epoch was trained if not under the schedule that trains and evaluates at the end."""
    tokens = next((phase.tokens for phase in plan_phases(config) if phase.first <= epoch <= phase.last), "")
    if not tokens or without_oracle(tokens) == config.model.tokens:
        return ""
    return "dense warm-up" if tokens == "none" and config.train.phases is None else f"trained under {tokens}"


def _output(named: Optional[str], loaded: LoadedCheckpoint, name: str) -> Path:
    """Return the file to write, checked before there is anything to lose.

    Raises:
        UserError: The name does not end in .png, or the folder does not exist.
    """
    path = Path(named) if named else (loaded.run.path if loaded.run else loaded.checkpoint.path.parent) / name
    if path.suffix.lower() != ".png" or path.is_dir():
        raise UserError(f"--output {path} must be a file that ends in .png")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: the folder {path.parent} does not exist")
    return path
