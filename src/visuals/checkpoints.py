"""The checkpoints of a picture, and their networks under several schedules."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from src.config import Config, flatten
from src.errors import UserError
from src.models import TokenTracer, from_config
from src.runs import RunFolder, class_names
from src.runtime import device
from src.weights import Checkpoint, read_checkpoint

SIGHT = (  # keys that decide which pixels a network sees
    "model.image_size", "data.name", "data.mean", "data.std", "data.interpolation", "data.resize", "data.crop_pct",
)  # fmt: skip


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint with its configuration, its run, and the class names where either has them."""

    config: Config
    checkpoint: Checkpoint
    run: Optional[RunFolder]
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        file = self.checkpoint.path.name
        return f"{self.run.name}, {file}" if self.run else file


def load_checkpoint(config: Config, path: Path) -> LoadedCheckpoint:
    """Read a checkpoint, and fill in the number of classes.

    Raises:
        UserError: The file is unreadable.
    """
    checkpoint = read_checkpoint(path)
    run = RunFolder.of_checkpoint(path)
    return LoadedCheckpoint(checkpoint.fill_in(config), checkpoint, run, class_names(checkpoint))


def tracers(loaded: LoadedCheckpoint, specs: Sequence[str]) -> list[TokenTracer]:
    """Return a checkpoint's network under each schedule (by default its own), on its configuration's device.

    Raises:
        UserError: The checkpoint does not fit its configuration, or a schedule does not fit the model.
    """
    config = loaded.config
    device.set_up(config.runtime.device_target, "off", config.train.amp_level)  # fused kernels are for long work
    network = from_config(config.model, config.train.amp_level)
    loaded.checkpoint.load_into(network)
    return [TokenTracer(network.with_tokens(spec)) for spec in specs or [config.model.tokens]]


def check_same_sight(all_loaded: Sequence[LoadedCheckpoint]) -> None:
    """Refuse to compare networks that do not see the same pixels.

    Raises:
        UserError: Two do not.
    """
    first = flatten(all_loaded[0].config)
    for loaded in all_loaded[1:]:
        other = flatten(loaded.config)
        differing = [key for key in SIGHT if other[key] != first[key]]
        if differing:
            both = f"{all_loaded[0].checkpoint.path} and {loaded.checkpoint.path}"
            raise UserError(f"{both} do not see images alike ({', '.join(differing)} differ); make a sheet of each")
