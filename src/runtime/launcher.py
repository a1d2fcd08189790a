"""End with msrun: it leaves its processes alone when it is terminated or killed."""

import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1  # Linux's prctl: the signal to receive when the parent ends


def follow_launcher(number: signal.Signals) -> None:
    """Have this process receive a signal when an msrun that waits for its processes ends.

    SIGKILL until the processes have joined: that wait runs no Python, so no handler either, takes 10 minutes where the
    others are gone, and has nothing to save yet. msrun's scheduler is left to the others, who need it to the end.
    """
    if os.environ.get("MS_ROLE") != "MS_WORKER":
        return
    try:
        said = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace").lower()
    except OSError:  # not Linux
        return
    words = said.replace("=", "\0").split("\0")
    if "--join" in words and words[words.index("--join") + 1] in ("true", "1", "t"):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
