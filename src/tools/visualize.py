"""Pictures of which patches a network keeps, where its [CLS] token looks, and what it predicts.

Example: python -m src.tools.visualize
Example: python -m src.tools.visualize --tokens none --tokens "6(55%)+11" --output sheet.png photos
Example: python -m src.tools.visualize --epochs runs/NAME

Without --ckpt: the best checkpoint of the newest run. Without --config: the configuration of the checkpoint's run.
Without IMAGE or FOLDER: images of the validation set. Without --output: tokens.png in the run's folder, or beside the
checkpoint. --epochs needs a run that was trained with run.save_every_epochs; it writes epochs.png, with a column for
each of up to 12 epochs, and beside it a GIF of all of them.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Optional

import numpy as np
from PIL import Image

from src import cli, runtime
from src.config import Config, load
from src.data import evenly, read_images, val_images
from src.errors import UserError, first_line
from src.models import Tracer, from_config
from src.models.schedule import parse
from src.pictures import contact_sheet, epoch_strip, look, pixels
from src.scan import problem_of, usable
from src.sources import EXTENSIONS, files_of, open_source
from src.training.run_folder import RunFolder, locate
from src.weights import Checkpoint, read_checkpoint

MOST_IMAGES = 100
MOST_COLUMNS = 12
MILLISECONDS_A_FRAME, MILLISECONDS_AT_THE_END = 600, 2500

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class Subject:
    """A checkpoint with its configuration, its run, and the names of its outputs where the run tells them."""

    config: Config
    checkpoint: Checkpoint
    run: Optional[RunFolder]
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        file = self.checkpoint.path.name
        return f"{self.run.name}, {file}" if self.run else file


@dataclass(frozen=True)
class Shown:
    """The images of a picture, normalised float32 [B, 3, H, W] and as pixels uint8 [B, H, W, 3].

    Attributes:
        titles: What they are called.
        truths: Their classes, where known.
    """

    inputs: np.ndarray
    pixels: np.ndarray
    titles: list[str]
    truths: list[Optional[str]]


def main(argv: Sequence[str]) -> None:
    args = _parser().parse(argv)
    cli.start_log()
    if not 1 <= args.limit <= MOST_IMAGES:
        raise UserError(f"--limit {args.limit}: a sheet shows 1 to {MOST_IMAGES} images")
    for spec in args.tokens:
        parse(spec)
    if args.epochs:
        _draw_epochs(args)
    else:
        _draw_sheet(args)


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__, files="IMAGE|FOLDER")
    parser.add_argument("--ckpt", metavar="FILE", action="append", default=[], help="checkpoint; repeat to compare")
    parser.add_argument("--tokens", metavar="SPEC", action="append", default=[], help="schedule; repeat to compare")
    parser.add_argument("--epochs", metavar="RUN", help="run folder whose epochs are compared")
    parser.add_argument("--output", metavar="FILE.png", help="file to write")
    parser.add_argument("--limit", type=cli.whole, default=8, metavar="N", help="images, evenly chosen (default: 8)")
    parser.add_argument("--seed", type=cli.whole, default=0, metavar="N", help="of a random ranking")
    return parser


def _draw_sheet(args: argparse.Namespace) -> None:
    """A row an image, a group of columns for each checkpoint and schedule."""
    subjects = [_subject(*locate(args.config, checkpoint, args.overrides)) for checkpoint in args.ckpt or [None]]
    output = _output(args.output, subjects[0], "tokens.png")
    _check_alike(subjects)
    tracers = [(subject, tracer) for subject in subjects for tracer in _tracers(subject, args.tokens)]
    shown = _images(args.files, subjects[0], args.limit)
    columns = []
    for subject, tracer in tracers:
        note = subject.name if len(subjects) > 1 else ""
        columns.append(look(tracer, shown.inputs, subject.classes, note, args.seed))
    heading = subjects[0].name if len(subjects) == 1 else ""
    _save(output, contact_sheet(shown.pixels, columns, shown.titles, shown.truths, heading))


def _draw_epochs(args: argparse.Namespace) -> None:
    """A column an epoch whose weights the run has kept, and a film of their sheets."""
    if args.ckpt or len(args.tokens) > 1:
        raise UserError("--epochs takes the checkpoints of its run, and at most one --tokens")
    run = RunFolder.open(args.epochs)
    kept = run.kept_epochs()
    if not kept:
        raise UserError(f"run {run.path} has kept no weights of epochs; train with run.save_every_epochs=N")
    subject = _subject(load(args.config or run.config, args.overrides), next(iter(kept.values())))
    output = _output(args.output, subject, "epochs.png")
    (tracer,) = _tracers(subject, args.tokens)
    shown = _images(args.files, subject, args.limit)
    columns = []
    for path in kept.values():
        read_checkpoint(path).load_into(tracer.network)
        columns.append(look(tracer, shown.inputs, subject.classes, seed=args.seed))
    name, warmup = run.name, subject.config.train.warmup_dense_epochs
    titled = [
        replace(column, title=f"epoch {epoch}", note="dense warm-up" if epoch <= warmup else "")
        for epoch, column in zip(kept, columns)
    ]
    places = np.linspace(0, len(kept) - 1, min(len(kept), MOST_COLUMNS)).round().astype(int)  # both ends among them
    chosen = [titled[place] for place in places]
    strip = epoch_strip(shown.pixels, chosen, shown.titles, shown.truths, f"{name}, {columns[0].title}")
    frames = [
        contact_sheet(shown.pixels, [column], shown.titles, shown.truths, f"{name}, epoch {epoch}")
        for epoch, column in zip(kept, columns)
    ]
    _save(output, strip)
    _save(output.with_suffix(".gif"), *frames)


def _subject(config: Config, path: Path) -> Subject:
    checkpoint = read_checkpoint(path)
    run = RunFolder.of_checkpoint(path)
    return Subject(checkpoint.fill_in(config), checkpoint, run, run.read_classes() if run else ())


def _tracers(subject: Subject, specs: Sequence[str]) -> list[Tracer]:
    """A checkpoint's network under each schedule (by default, its own), on the device of its configuration."""
    config = subject.config
    runtime.set_up(config.runtime.device_target, "off", config.train.amp_level)  # fused kernels are for long work
    network = from_config(config.model, config.train.amp_level)
    subject.checkpoint.load_into(network)
    return [Tracer(network.with_tokens(spec)) for spec in specs or [config.model.tokens]]


def _check_alike(subjects: Sequence[Subject]) -> None:
    """Refuse to show networks beside each other that do not see the same pixels."""

    def sight(config: Config) -> dict[str, object]:
        data = asdict(config.data)
        keys = ("name", "mean", "std", "interpolation", "crop_pct")
        return {"model.image_size": config.model.image_size, **{f"data.{key}": data[key] for key in keys}}

    first = sight(subjects[0].config)
    for subject in subjects[1:]:
        differing = [key for key, value in sight(subject.config).items() if value != first[key]]
        if differing:
            both = f"{subjects[0].checkpoint.path} and {subject.checkpoint.path}"
            raise UserError(f"{both} do not see images alike ({', '.join(differing)} differ); make a sheet of each")


def _images(named: Sequence[str], subject: Subject, limit: int) -> Shown:
    """The images to look at: those that are named, or some of the validation set."""
    shown, total = _of_files(_files(named), subject, limit) if named else _of_validation(subject, limit)
    count = len(shown.inputs)
    log.info("%d of %d images%s", count, total, "; --limit N shows more" if count < total else "")
    return shown


def _of_files(files: Sequence[Path], subject: Subject, limit: int) -> tuple[Shown, int]:
    """Evenly chosen files, and out of how many. An image's class is its folder, if that is one."""
    chosen = [files[place] for place in evenly(len(files), limit)]
    for file in chosen:
        problem = problem_of(file)
        if problem:
            raise UserError(f"image {file} cannot be used: {problem}")
    inputs = read_images(chosen, subject.config)
    folders = [file.resolve().parent.name for file in chosen]
    truths = [folder if folder in subject.classes else None for folder in folders]
    return Shown(inputs, _pixels(inputs, subject), [file.name for file in chosen], truths), len(files)


def _of_validation(subject: Subject, limit: int) -> tuple[Shown, int]:
    """Evenly chosen images of the validation set, and out of how many."""
    source = open_source(subject.config.data, ("val",))
    source.check_fits(subject.config.model.num_classes)
    if subject.run is not None:
        subject.run.check_classes(source.classes)
    source = usable(source, subject.config.data.on_bad_image, runtime.cache_folder())
    split = source.splits["val"]
    places = evenly(split.images, limit)
    inputs, labels = val_images(source, subject.config, places)
    files = files_of(split, source.classes)
    titles = [files[place].name if files else f"number {place}" for place in places]
    truths = [source.classes[label] for label in labels.ravel()]
    return Shown(inputs, _pixels(inputs, subject), titles, truths), split.images


def _pixels(inputs: np.ndarray, subject: Subject) -> np.ndarray:
    return pixels(inputs, subject.config.data.mean, subject.config.data.std)


def _files(named: Sequence[str]) -> list[Path]:
    """The files that are named, and those below the folders that are, in order of name.

    Raises:
        UserError: One is missing, or a folder holds no image.
    """
    files = []
    for path in map(Path, named):
        found = [path]
        if path.is_dir():
            walk = os.walk(path, followlinks=True)
            found = sorted(Path(folder, name) for folder, _, names in walk for name in names)
            found = [file for file in found if _is_image(file.relative_to(path))]
            if not found:
                raise UserError(f"folder {path} holds no images ({', '.join(EXTENSIONS)})")
        elif not path.is_file():
            raise UserError(f"image {path} does not exist; to compare several schedules, repeat --tokens")
        files += found
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not any(part.startswith(".") for part in path.parts)


def _output(named: Optional[str], subject: Subject, name: str) -> Path:
    """Where to write: checked before there is anything to be lost.

    Raises:
        UserError: The name does not end in .png, or the folder does not exist.
    """
    path = Path(named) if named else (subject.run.path if subject.run else subject.checkpoint.path.parent) / name
    if path.suffix.lower() != ".png" or path.is_dir():
        raise UserError(f"--output {path} must be a file that ends in .png")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: the folder {path.parent} does not exist")
    return path


def _save(path: Path, *pictures: Image.Image) -> None:
    """Write a picture, or, as a GIF, several: beside the file's place, then moved there."""
    film = {}
    if path.suffix == ".gif":
        times = [MILLISECONDS_A_FRAME] * (len(pictures) - 1) + [MILLISECONDS_AT_THE_END]
        pictures = [picture.quantize(method=Image.Quantize.MAXCOVERAGE) for picture in pictures]  # 256 colours
        film = {"save_all": True, "append_images": pictures[1:], "duration": times, "loop": 0}
    partial = path.with_name(f"{path.name}.partial")
    try:
        pictures[0].save(partial, format=path.suffix[1:], **film)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"--output {path} cannot be written: {error.strerror or first_line(error)}") from error
    finally:
        partial.unlink(missing_ok=True)
    print(f"wrote {path}, {pictures[0].width}x{pictures[0].height}" + (f", {len(pictures)} frames" if film else ""))


if __name__ == "__main__":
    cli.run(main)
