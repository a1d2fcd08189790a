"""Ctrl-C, SIGTERM and SIGHUP: a training saves before it stops, anything else stops, and a second signal stops at once.

SIGINT is blocked in every thread and received by a thread of ours, because MindSpore's C++ replaces Python's handler.
A handler is set as well, for threads of libraries that were started before and do not block SIGINT. SIGTERM has a
Python handler, which runs when MindSpore returns from C++; it cannot be blocked, because the processes in which AKG
compiles inherit the mask and terminate each other by it.
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

from src.errors import Interrupted

SECONDS_BETWEEN = 1  # a signal to a process and to its group counts once


class StopRequest:
    """The signal that has asked this process to stop.

    Attributes:
        requested: The signal; None as long as there was none.
        is_ending: The command has done what it had to: a first signal changes nothing any more.
    """

    def __init__(self) -> None:
        self.requested: Optional[signal.Signals] = None
        self.is_graceful = False
        self.is_ending = False
        self.forwarded = False
        self.received_at = 0.0

    def install(self) -> None:
        """Receive signals from now on. Call it before any other thread starts: before MindSpore is imported.

        A parent may have this process ignore SIGINT, as a shell does for its background jobs, or SIGHUP, as nohup does:
        that stays so.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._handle)
            threading.Thread(target=self._receive_interrupts, name="signals", daemon=True).start()
        signal.signal(signal.SIGTERM, self._handle)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._handle)

    def close(self) -> None:
        """Ignore signals from now on: the end of the interpreter makes them deadly again, and exit codes with them."""
        self.is_ending = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    @contextmanager
    def graceful(self) -> Iterator["StopRequest"]:
        """Only record a signal in `requested` while the block runs; outside, it raises KeyboardInterrupt."""
        self.is_graceful = True
        try:
            yield self
        except Interrupted:  # perhaps for a signal that another process received, before one comes here too
            self.is_ending = True
            raise
        finally:
            self.is_graceful = False

    def _receive_interrupts(self) -> None:
        while True:
            if self._record(signal.Signals(signal.sigwait({signal.SIGINT}))):
                self.forwarded = True
                _thread.interrupt_main()  # this calls the handler

    def _handle(self, number: int, frame: object) -> None:
        forwarded, self.forwarded = self.forwarded, False
        if forwarded or self._record(signal.Signals(number)):
            raise KeyboardInterrupt

    def _record(self, number: signal.Signals) -> bool:
        """Record a signal; return whether the main thread is to be interrupted."""
        if self.requested is not None and time.monotonic() - self.received_at < SECONDS_BETWEEN:
            return False
        if self.requested is not None:
            print(f"{number.name}: stopped at once; what was saved before is whole", file=sys.stderr, flush=True)
            os._exit(128 + number)
        self.requested, self.received_at = number, time.monotonic()
        if self.is_ending:
            return False
        if self.is_graceful:
            print(f"{number.name}: stopping after this step; once more to stop at once", file=sys.stderr, flush=True)
        return not self.is_graceful


STOP = StopRequest()  # signals belong to the process, so there is one
