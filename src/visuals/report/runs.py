"""What a report says of a run, read from its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Optional

from src.config import IMAGENET_CLASSES, Config, load, read_side, side_text, with_classes
from src.config.files import Overrides
from src.runs import Metrics, RunFolder, throughput
from src.schedules import Geometry, Phase, Plan, parse, resolve


@dataclass(frozen=True)
class Run:
    """A run as far as it has come.

    Attributes:
        name: What sets it apart from the others of the report.
        config: The configuration that it was trained with.
        here: The same, with the data and the device to draw with.
    """

    name: str
    folder: RunFolder
    config: Config
    here: Config
    classes: tuple[str, ...]
    rows: tuple[Metrics, ...]

    @property
    def geometry(self) -> Geometry:
        return Geometry.from_config(self.config.model)

    @property
    def plan(self) -> Plan:
        return resolve(parse(self.config.model.tokens), self.geometry)

    @property
    def done(self) -> int:
        """Epochs done."""
        return self.rows[-1].epoch if self.rows else 0

    @property
    def best(self) -> Optional[Metrics]:
        """The epoch of the best top-1, in the last phase that was evaluated: best.ckpt is of it."""
        evaluated = [row for row in self.rows if row.top1 is not None]
        return max(evaluated, key=lambda row: (row.phase, row.top1, -row.epoch), default=None)

    @property
    def final(self) -> Optional[Metrics]:
        """The last epoch that was evaluated."""
        return next((row for row in reversed(self.rows) if row.top1 is not None), None)

    @property
    def phases(self) -> list[Phase]:
        """The phases that have begun, up to the last epoch done."""
        spans = [(phase, list(rows)) for phase, rows in groupby(self.rows, key=lambda row: row.phase)]
        final = side_text(self.config.model.image_size)
        return [
            Phase(phase, rows[0].tokens, rows[0].epoch, rows[-1].epoch, read_side(rows[0].image_size or final))
            for phase, rows in spans
        ]

    @property
    def img_s(self) -> Optional[float]:
        """Training images per second in the last phase."""
        return throughput(self.rows)


def read_runs(paths: Sequence[str], overrides: Optional[Overrides] = None) -> list[Run]:
    """Read the runs of different folders.

    Args:
        overrides: Values by key, where data has moved or the device is another.

    Raises:
        UserError: A folder holds no run, or what it holds cannot be read.
    """
    folders = {Path(path).resolve(): RunFolder.open(path) for path in paths}
    return [_read(folder, name, overrides) for folder, name in zip(folders.values(), _names(list(folders)))]


def _read(folder: RunFolder, name: str, overrides: Optional[Overrides]) -> Run:
    config = load(folder.config)
    here = load(folder.config, overrides)
    classes = folder.read_classes()
    config, here = (with_classes(c, len(classes) or IMAGENET_CLASSES) for c in (config, here))
    rows = tuple(folder.read_metrics())
    return Run(name, folder, config, here, classes, rows)


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths, of equally many parts, that differ."""
    names: list[str] = []
    for parts in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names
