"""Ctrl-C and SIGTERM: a training saves before it stops, anything else stops, and a second signal stops at once.

Ctrl-C is blocked in every thread and taken by one of our own: MindSpore's C++ replaces Python's handler for it. It has
a handler too, for threads of libraries that were imported before, which do not block it. SIGTERM has a handler of
Python's, which runs when MindSpore comes back from what it does; it cannot be blocked, since the processes in which AKG
compiles inherit that, and end each other by it.
"""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

SECONDS_BETWEEN = 1  # some send a signal to a process and to its group: that is one


class Stop:
    """What has asked this process to stop.

    Attributes:
        asked: The signal; None as long as there was none.
    """

    def __init__(self) -> None:
        self.asked: Optional[signal.Signals] = None
        self.heeded = False
        self.taken = False
        self.when = 0.0

    def watch(self) -> None:
        """Take the signals from now on. Before any other thread is started: before MindSpore is imported.

        Who starts this process may have it ignore Ctrl-C, as a script does with its background jobs: that stays so.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._handle)
            threading.Thread(target=self._take_interrupts, name="signals", daemon=True).start()
        signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def heed(self) -> Iterator["Stop"]:
        """A context that looks at `asked` now and then; outside of one, a signal is a KeyboardInterrupt."""
        self.heeded = True
        try:
            yield self
        finally:
            self.heeded = False

    def _take_interrupts(self) -> None:
        while True:
            if self._take(signal.Signals(signal.sigwait({signal.SIGINT}))):
                self.taken = True
                _thread.interrupt_main()  # this calls the handler

    def _handle(self, number: int, frame: object) -> None:
        taken, self.taken = self.taken, False
        if taken or self._take(signal.Signals(number)):
            raise KeyboardInterrupt

    def _take(self, number: signal.Signals) -> bool:
        """Note a signal; whether the main thread is to be interrupted."""
        if self.asked is not None and time.monotonic() - self.when < SECONDS_BETWEEN:
            return False
        if self.asked is not None:
            print(f"{number.name}: stopped at once; what was saved before is whole", file=sys.stderr, flush=True)
            os._exit(128 + number)
        self.asked, self.when = number, time.monotonic()
        if self.heeded:
            print(f"{number.name}: stopping after this step; once more to stop at once", file=sys.stderr, flush=True)
        return not self.heeded


STOP = Stop()  # signals are the process's, so there is one
