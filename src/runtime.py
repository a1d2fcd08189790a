"""Device, graph mode and seeds: the only place that sets any of them."""

import os
import random

from src.errors import UserError

DEVICES = ("CPU", "Ascend")


def prepare_environment() -> None:
    """Set what MindSpore reads when it is imported, where the user has not."""
    os.environ.setdefault("GLOG_v", "3")  # errors only: its warnings are for its own developers


def set_up(device_target: str) -> None:
    """Choose the device and compile to static graphs.

    Raises:
        UserError: The device is unknown, or its runtime is not on this machine.
    """
    import mindspore as ms

    if device_target not in DEVICES:
        raise UserError(f"--device_target {device_target!r} is unknown; choose one of {', '.join(DEVICES)}")
    try:
        ms.set_device(device_target)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--device_target {device_target}: this machine has no {device_target} runtime that MindSpore"
            f" {ms.__version__} can load; install CANN and MindSpore's Ascend build, or use --device_target CPU"
        ) from error
    ms.set_context(mode=ms.GRAPH_MODE)


def set_seeds(seed: int, epoch: int = 0) -> None:
    """Seed every source of randomness, as a function of the run's seed and the epoch (0: initial weights)."""
    import mindspore as ms
    import numpy as np

    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]) % 2**31
    ms.set_seed(mixed)  # operators, data set operators and NumPy
    random.seed(mixed)
