"""The processes of a data-parallel run, one for each device."""

import atexit
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Optional

from src.errors import RunError, UserError, short_message
from src.runtime.launcher import follow_launcher

LAUNCH = "msrun --worker_num=2 --local_worker_num=2 --join=True train.py --distribute --config FILE"
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # that ask to stop
SECONDS_TO_SAVE = 10  # after the scheduler ended, perhaps by the signal that stops this process too

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, of which this is number `rank` of `size`.

    Every process must call the same methods in the same order: each waits until all have called it.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and reports."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add each value over the processes, in float32: exact for whole numbers whose sum is below 2^24."""
        if self.size == 1:
            return list(values)
        import mindspore as ms

        return _all_reduce()(ms.Tensor(list(values), ms.float32)).asnumpy().tolist()

    def any_signal(self, received: Optional[signal.Signals]) -> Optional[signal.Signals]:
        """Return a signal that any of the processes received, the same one to all."""
        counts = self.sum([float(received == number) for number in SIGNALS])
        return max((number for number, count in zip(SIGNALS, counts) if count), default=None)

    def gather(self, text: str) -> list[str]:
        """Return the text of every process, in the order of their ranks."""
        parts = [text.encode() if rank == self.rank else b"" for rank in range(self.size)]
        sizes = [int(size) for size in self.sum([float(len(part)) for part in parts])]
        padded = b"".join(part or bytes(size) for part, size in zip(parts, sizes))
        together = bytes(map(int, self.sum(list(map(float, padded)))))
        ends = [sum(sizes[: rank + 1]) for rank in range(self.size)]
        return [together[end - size : end].decode() for end, size in zip(ends, sizes)]

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.sum((0.0,))


@cache
def _all_reduce() -> Any:
    """Make the operator once, for another one would be another graph: a sum, for CPU has no other."""
    from mindspore import ops

    return ops.AllReduce()


SINGLE_PROCESS = ProcessGroup()


def check_launched(distribute: bool) -> None:
    """Refuse --distribute in a process that msrun did not start, and its absence in one that msrun did.

    Raises:
        UserError: They do not go together.
    """
    launched = "MS_ROLE" in os.environ
    if distribute and not launched:
        raise UserError(f"--distribute needs MindSpore's launcher; start with: {LAUNCH}")
    if launched and not distribute:
        raise UserError(
            "msrun started this process, but not with --distribute: every process would do the whole work alone; add"
            " --distribute (train.py, eval.py), or start without msrun"
        )


def launched_processes(distribute: bool) -> int:
    """Return how many processes there will be, before they have joined."""
    return int(os.environ["MS_WORKER_NUM"]) if distribute else 1


def init_processes() -> ProcessGroup:
    """Join the processes that msrun started, for data parallel training; before any tensor is made.

    Raises:
        UserError: msrun did not start this process.
        RunError: The others did not come, or, in msrun's scheduler, one of them ended before its time.
    """
    check_launched(distribute=True)
    import mindspore as ms
    from mindspore import communication

    from src.runtime import scheduler

    if os.environ["MS_ROLE"] == "MS_SCHED":
        watch = [sys.executable, scheduler.__file__, str(os.getppid()), str(os.getpid())]
        subprocess.Popen(watch, start_new_session=True)
    try:
        communication.init()
    except RuntimeError as error:
        raise RunError(f"the processes of msrun are not together: {short_message(error)}") from error
    follow_launcher(signal.SIGTERM)  # from here on there is something to save
    _follow_scheduler()
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True)
    return ProcessGroup(communication.get_rank(), communication.get_group_size())


def _follow_scheduler() -> None:
    """End this process some seconds after msrun's scheduler ends, unless it ends before.

    The scheduler ends when a process of any machine has died, for which a collective waits much longer.
    """
    try:
        address = os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"])
        connection = socket.create_connection(address, timeout=30)
    except OSError as error:
        log.warning("whether a process dies on another machine is not noticed: %s", error)
        return
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    ending = threading.Event()

    def follow() -> None:
        with suppress(OSError):
            while connection.recv(1024):
                pass
        if not ending.wait(SECONDS_TO_SAVE):
            print("error: another process, or msrun's scheduler, has died; resume the run", file=sys.stderr, flush=True)
            os._exit(1)

    thread = threading.Thread(target=follow, name="scheduler", daemon=True)
    thread.start()

    def end() -> None:  # a thread that woke up after the interpreter is gone would crash the process
        ending.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        thread.join()

    atexit.register(end)
