"""End msrun's scheduler when its processes are gone: python scheduler.py MSRUN SCHEDULER (process ids).

msrun kills them when one of them has failed, and then waits for its scheduler. That waits 30 s for a process that died,
or 10 minutes where not all have joined. Where msrun itself has ended, they stop by themselves, once they have saved. In
a process of its own, because the scheduler runs no Python while it waits.
"""

import sys
import time
from contextlib import suppress

import psutil

SECONDS = 10  # for the scheduler to end by itself
SECONDS_WITHOUT_MSRUN = 60  # for the processes to save and to end, and then the scheduler


def main(launcher: psutil.Process, scheduler: psutil.Process) -> None:
    """Return when the scheduler has ended; end it where the others have been killed, or msrun has ended."""
    killed, alone = 0, 0
    while killed < SECONDS and alone < SECONDS_WITHOUT_MSRUN:
        time.sleep(1)
        if is_dead(scheduler):
            return
        if is_dead(launcher):
            alone += 1
            continue
        workers = [child for child in launcher.children() if child.pid != scheduler.pid and child.name() != "tail"]
        killed = killed + 1 if workers and all(map(is_dead, workers)) else 0  # msrun asks those no more how they ended
    scheduler.kill()


def is_dead(process: psutil.Process) -> bool:
    """Tell whether a process has ended, whatever its parent knows of it."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


if __name__ == "__main__":
    with suppress(psutil.NoSuchProcess):
        main(*(psutil.Process(int(number)) for number in sys.argv[1:]))
