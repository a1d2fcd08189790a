"""Where something is computed: no figure without it, and the cores to compute on."""

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

from src.config import Config


def environment(config: Config) -> dict[str, object]:
    """Hardware, settings that decide its speed, versions, and the date."""
    import mindcv
    import mindspore as ms
    import numpy as np

    return {
        "hardware": f"{_processor()}, {len(_cores()) or os.cpu_count()} cores",
        "device": config.runtime.device_target,
        "fused_kernels": bool(ms.get_context("enable_graph_kernel")),
        "precision": config.train.amp_level,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "mindspore": ms.__version__,
        "mindcv": mindcv.__version__,
        "numpy": np.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def in_a_line(facts: Mapping[str, object]) -> str:
    """Facts as they stand below a table."""
    return ", ".join(f"{key}: {value}" for key, value in facts.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def share_cores(number: int) -> list[list[int]]:
    """The CPU's cores in equal shares for processes at a time, which are faster side by side than over each other.

    Returns:
        The cores of each process; none where the system cannot bind a process, or there are fewer cores than processes.
        Cores that remain are left alone: speeds are to be compared.
    """
    cores = _cores()
    each = len(cores) // number
    return [cores[place * each : (place + 1) * each] for place in range(number)]


def _cores() -> list[int]:
    """Those that this process may use; macOS does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
