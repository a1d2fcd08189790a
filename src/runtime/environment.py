"""Hardware, versions and commit, without which no figure is given, and the cores to compute on."""

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from src.config import Config

ROOT = Path(__file__).resolve().parents[2]


def environment(config: Config) -> dict[str, object]:
    """Return hardware, the settings that decide its speed, versions, commit and date; MindSpore must be set up."""
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
        "code": commit(ROOT),
        "date": time.strftime("%Y-%m-%d"),
    }


def one_line(facts: Mapping[str, object]) -> str:
    """Format facts as they stand below a table."""
    return ", ".join(f"{key}: {value}" for key, value in facts.items())


def cpuinfo() -> str:
    """Return what Linux says about the processor; nothing on other systems."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""


def memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def commit(folder: Path) -> str:
    """Return the git commit of a folder, with "-dirty" if its files are not those of the commit; else "unknown"."""
    describe = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, or another user's
        return "unknown"


def _processor() -> str:
    """Return the processor's name and its widest vectors, which a virtual machine's name does not tell."""
    facts = cpuinfo()
    names = [line.partition(":")[2].strip() for line in facts.splitlines() if line.startswith("model name")]
    words = facts.split()
    vectors = " (AVX-512)" if "avx512f" in words else " (AVX2)" if "avx2" in words else ""
    return f"{names[0] if names else platform.processor() or platform.machine()}{vectors}"


def share_cores(number: int) -> list[list[int]]:
    """Divide the CPU's cores equally among processes: side by side they are faster than on the same cores.

    Returns:
        The cores of each process; none where the system cannot bind a process, or there are fewer cores than processes.
        Cores that remain are left idle, so that speeds compare.
    """
    cores = _cores()
    each = len(cores) // number
    return [cores[index * each : (index + 1) * each] for index in range(number)]


def _cores() -> list[int]:
    """Return the cores that this process may use; macOS does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
