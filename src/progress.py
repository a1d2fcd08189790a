"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

import logging
import sys
import time
from typing import Any, Optional

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

SECONDS_BETWEEN_LINES = 30

log = logging.getLogger("skipvit")


class Progress:
    """Count work done out of `total` while the block runs, with rate and time left.

    Args:
        total: Units of work.
        title: The work's name.
        unit: The unit's name.
        done: Units that were done before.
        leave: Whether the finished bar stays on the terminal.
    """

    def __init__(self, total: int, title: str, unit: str, done: int = 0, leave: bool = True) -> None:
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=total, desc=title, unit=f" {unit}", unit_scale=True, initial=done, leave=leave,
            disable=not self.terminal, dynamic_ncols=True, smoothing=0.1,
        )  # fmt: skip
        self.title, self.unit, self.total, self.done, self.before = title, unit, total, done, done
        self.started: Optional[float] = None
        self.last_line = time.monotonic()
        self.redirect = logging_redirect_tqdm([log]) if self.terminal else None

    def __enter__(self) -> "Progress":
        if self.redirect:
            self.redirect.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.bar.close()
        if self.redirect:
            self.redirect.__exit__(*exception)

    def advance(self, units: int, note: str = "") -> None:
        """Count units as done and show `note` beside them."""
        self.done += units
        if self.started is None:  # the first work done may have compiled a graph: the rate is of what follows
            self.started, self.before = time.monotonic(), self.done
        if self.terminal:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(units)
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            what = f"{self.unit} {note}".rstrip()
            log.info("%s %d/%d %s, %s left", self.title, self.done, self.total, what, self.left())

    def left(self) -> str:
        """Return the time left at the mean rate so far, as mm:ss or h:mm:ss."""
        if self.started is None or self.done == self.before:
            return "?"
        rate = (self.done - self.before) / (time.monotonic() - self.started)
        return tqdm.format_interval((self.total - self.done) / rate)
