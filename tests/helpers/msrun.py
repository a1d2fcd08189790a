"""Start processes under msrun, and find them."""

import os
import random
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Optional

from tests.helpers.commands import ROOT


def msrun(processes, logs, *arguments, local=None, port=None, node_rank=None):
    """Return a command line that runs a file of the project as several processes, so many of them started here."""
    command = [str(Path(sys.executable).with_name("msrun")), f"--worker_num={processes}"]
    command += [f"--local_worker_num={local or processes}", "--join=True", f"--log_dir={logs}"]
    command += [f"--master_port={port or free_port()}"]
    command += [] if node_rank is None else ["--master_addr=127.0.0.1", f"--node_rank={node_rank}"]
    return [*command, *arguments]


def free_port():
    """Return a port for a scheduler: not msrun's own, which tests beside this one may use.

    It lies below those that the system gives to connections (from 32768 on Linux): one of these could have been given
    away by the time that the scheduler listens.
    """
    for port in random.SystemRandom().sample(range(10_000, 32_000), 100):
        with socket.socket() as one, suppress(OSError):
            one.bind(("", port))
            return port
    raise OSError("no free port between 10000 and 32000")


def environment():
    """msrun starts the `python` of PATH."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)}


def worker(rank, argument) -> Optional[int]:
    """Return the process id of a rank whose command line has an argument; None if there is none (any more)."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        ours = argument in arguments and any(word.endswith("train.py") for word in arguments)
        if ours and "MS_ROLE=MS_WORKER" in variables and f"RANK_ID={rank}" in variables:
            return int(process.name)
    return None
