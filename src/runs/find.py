"""Find a checkpoint and its configuration."""

from pathlib import Path
from typing import TYPE_CHECKING, Optional

from src.config import Config, load, parse
from src.config.files import Overrides
from src.errors import UserError
from src.runs.folder import RUNS, RunFolder

if TYPE_CHECKING:
    from src.weights import Checkpoint


def latest_best() -> Path:
    """Return the best checkpoint of the newest run below runs/.

    Raises:
        UserError: There is none.
    """
    found = sorted(RUNS.glob("*/checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            f"there is no run below {RUNS}/ yet; train one with: python train.py --config configs/quickstart.yaml"
        )
    return found[-1]


def class_names(checkpoint: "Checkpoint") -> tuple[str, ...]:
    """Return the names of a checkpoint's classes: its own, or those of the run that it lies in; none if unknown."""
    run = RunFolder.of_checkpoint(checkpoint.path)
    return checkpoint.classes or (run.read_classes() if run else ())


def find_checkpoint(config: Optional[str], checkpoint: Optional[str], overrides: Overrides) -> tuple[Config, Path]:
    """Find the checkpoint to use (by default the newest run's best) and its configuration (by default its run's).

    Raises:
        UserError: Either is missing or refused.
    """
    path = Path(checkpoint) if checkpoint else latest_best()
    if path.is_dir():
        raise UserError(f"checkpoint {path} is a folder; name a file with --ckpt FILE, such as checkpoints/best.ckpt")
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; name one with --ckpt FILE")
    run = RunFolder.of_checkpoint(path)
    if config:
        return load(config, overrides), path
    if run:
        return load(run.config, overrides), path
    from src.weights import read_checkpoint

    text = read_checkpoint(path).config
    if text is None:
        raise UserError(
            f"checkpoint {path} holds no configuration; name one with --config FILE, or convert it with"
            " python -m src.tools.convert"
        )
    return parse(text, f"the configuration in {path}", overrides), path
