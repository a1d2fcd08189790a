"""Where something was computed: no figure without it."""

import os
import platform
import time
from pathlib import Path

from src.config import Config


def environment(config: Config) -> dict[str, object]:
    """Hardware, settings that decide its speed, versions, and the date."""
    import mindcv
    import mindspore as ms
    import numpy as np

    return {
        "hardware": f"{_processor()}, {_cores()} cores",
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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    """Those that this process may use; macOS does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
