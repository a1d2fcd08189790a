"""What the order of a run's images depends on beside its configuration. Never imports MindSpore."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Optional

from src.errors import UserError
from src.files import write_text


@dataclass(frozen=True)
class RunImages:
    """The images of a run, and the processes that share them.

    Attributes:
        counts: Images of each split, with those that are left out.
        names: A digest of their names below the data's root.
        left_out: Images of each split that could not be decoded when the run began, by index.
    """

    processes: int
    counts: dict[str, int]
    names: str
    left_out: dict[str, list[int]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write them to a run folder's images.json."""
        write_text(path, json.dumps(asdict(self)) + "\n")

    def check_continues(self, before: "RunImages", run: Path) -> None:
        """Refuse to resume a run with other processes or images: order and learning rates would be others.

        Raises:
            UserError: They are others.
        """
        if self.processes != before.processes:
            raise UserError(
                f"the run {run} was trained by {before.processes} process{'es' if before.processes > 1 else ''}, not"
                f" {self.processes}; resume it with as many"
            )
        if replace(self, left_out={}) != replace(before, left_out={}):
            was, now = (" and ".join(f"{n} {name}" for name, n in x.counts.items()) for x in (before, self))
            raise UserError(
                f"the run {run} was trained on {was} images, and data.root has {now}"
                f"{', of other names' if was == now else ''}; put back those that it began with (for a lost one an"
                " empty file, with data.on_bad_image=skip), or start a new run"
            )


def read_images(path: Path) -> Optional[RunImages]:
    """Read images.json; None where it is missing, as in a run that never began, or spoilt."""
    try:
        return RunImages(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
