"""Device, graph mode, fused kernels and seeds: the only module that sets any of them."""

import atexit
import importlib.util
import logging
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from src.errors import UserError, short_message

if TYPE_CHECKING:
    from mindspore import Tensor, nn

    from src.runtime.distributed import ProcessGroup

DEVICES = ("CPU", "Ascend")
FUSION_FLAGS = "--enable_expand_ops=LayerNorm,LayerNormGrad"
AVX512 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}  # what LLVM's skylake-avx512 takes for granted
KERNELS = 2**24  # bytes of disk that one compilation may need

log = logging.getLogger("skipvit")


def prepare_environment() -> None:
    """Set the environment variables that MindSpore reads at import, unless the user has set them or it is imported."""
    if "mindspore" in sys.modules:
        return
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home, as in a container
        caches = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    cache = caches / "skipvit-mindspore"
    for name, value in {
        "GLOG_v": "3",  # errors only: MindSpore's warnings are for its own developers
        "OMP_WAIT_POLICY": "PASSIVE",  # fused kernels' OpenMP threads must not spin beside MindSpore's own
        "MS_COMPILER_CACHE_PATH": str(cache),  # of kernels; by default the working directory
        "MS_GRAPH_KERNEL_TILING": "none",  # no stored tilings; else a line is printed for every kernel
        "MS_CPU_COMM_OP_TIMEOUT": "1800",  # s that processes wait for each other, as on Ascend; by default 30
    }.items():
        os.environ.setdefault(name, value)
    atexit.register(_silence_destructors)


def _silence_destructors() -> None:
    """Keep MindSpore's cells from reporting errors when they are collected while the interpreter shuts down."""
    if "mindspore" in sys.modules:
        sys.modules["mindspore"].nn.Cell.__del__ = lambda cell: None


def set_up(
    device_target: str, fused_kernels: str = "auto", amp_level: str = "O0", sink: bool = False, distribute: bool = False
) -> "ProcessGroup":
    """Choose the device, compile to static graphs, and on CPU fuse small operators to kernels (by AKG).

    Args:
        fused_kernels: `on`, `off`, or `auto`: on where AKG starts, and a line in the log where it does not.
        amp_level: Precision of the networks to come; AKG's kernels for CPU are float32 (O0) only.
        sink: Whether training data will go through MindSpore's queue to the device.
        distribute: Join the processes that msrun started.

    Returns:
        The processes of this run; this one alone unless `distribute`.

    Raises:
        UserError: The device is unknown, or its runtime is not on this machine; or what is asked for cannot be had
            there: fused kernels, sink mode, other processes; or MindSpore's cache of graphs is on.
    """
    check_settings(device_target, sink)
    import mindspore as ms

    from src.runtime import distributed, releases

    try:
        releases.set_device(device_target)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--device_target {device_target}: this machine has no {device_target} runtime that MindSpore"
            f" {ms.__version__} can load; install CANN and MindSpore's Ascend build, or use --device_target CPU"
        ) from error
    ms.set_context(mode=ms.GRAPH_MODE)
    if device_target == "Ascend":
        releases.set_ascend()
    group = distributed.init_processes() if distribute else distributed.SINGLE_PROCESS
    if device_target == "CPU":
        _set_fusion(fused_kernels, amp_level)
    return group


def check_settings(device_target: str, sink: bool = False) -> None:
    """Refuse settings that no machine can serve; MindSpore is not needed to tell.

    Raises:
        UserError: The device is unknown, sink mode is asked for on CPU, or MindSpore's cache of graphs is on.
    """
    if device_target not in DEVICES:
        raise UserError(f"runtime.device_target {device_target!r} is unknown; choose one of {', '.join(DEVICES)}")
    if os.environ.get("MS_COMPILER_CACHE_ENABLE", "0") != "0":
        raise UserError(
            "MS_COMPILER_CACHE_ENABLE is set: MindSpore's cache of graphs does not see that a schedule changed and runs"
            " another one's graph; unset it (fused kernels are cached without it)"
        )
    if sink and device_target == "CPU":
        raise UserError("runtime.sink true: CPU has no queue of data; set it to false")


def _set_fusion(fused_kernels: str, amp_level: str) -> None:
    import mindspore as ms

    ms.set_context(enable_graph_kernel=False)
    if fused_kernels == "off":
        return
    problem = _fusion_problem(amp_level) or _start_fusion()
    if problem and fused_kernels == "on":
        raise UserError(f"runtime.fused_kernels on: {problem}, or set it to auto")
    if problem:
        log.warning("fused kernels are off, training will be slower: %s", problem)


def cache_folder() -> Path:
    """Return the folder of what is kept between runs and may be deleted at any time."""
    return Path(os.environ["MS_COMPILER_CACHE_PATH"])


def compile_ahead(cell: "nn.Cell", *inputs: "Tensor") -> None:
    """Compile a cell's graph for inputs of these shapes; do nothing in PyNative mode.

    AKG writes a log of its own to the working directory while it compiles, so the kernels' cache is made that.
    """
    import mindspore as ms

    if ms.get_context("mode") == ms.PYNATIVE_MODE:
        return
    if not ms.get_context("enable_graph_kernel"):
        cell.compile(*inputs)
        return
    here = Path.cwd()
    os.chdir(os.environ["MS_COMPILER_CACHE_PATH"])
    try:
        with _compiler_silenced():
            cell.compile(*inputs)
    finally:
        os.chdir(here)


@contextmanager
def _compiler_silenced() -> Iterator[None]:
    """Drop what C++ writes to stderr here, and in the process that builds kernels if it starts meanwhile.

    LLVM warns at every kernel that it has another name for AVX-512. Errors are raised as well.
    """
    python, terminal = sys.stderr, os.dup(2)
    with Path(os.devnull).open("wb") as nowhere, os.fdopen(terminal, "w", 1, errors="replace") as sys.stderr:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            sys.stderr = python


def fusion_flags() -> str:
    """Return AKG's flags: it compiles for AVX2 unless it is told that the processor has AVX-512."""
    from src.runtime.environment import cpuinfo

    return f"{FUSION_FLAGS} --cpu_feature=avx512" if set(cpuinfo().split()) >= AVX512 else FUSION_FLAGS


def _start_fusion() -> Optional[str]:
    """Switch AKG on and compile a first kernel with it; return why that fails, if it does."""
    import mindspore as ms
    from mindspore import ops

    class Probe(ms.nn.Cell):
        def construct(self, x: ms.Tensor) -> ms.Tensor:
            return ops.tanh(x) * x + x

    cache, probe, inputs = cache_folder(), Probe(), ms.Tensor([0.5, -0.5], ms.float32)
    try:
        _check_cache(cache)
        ms.set_context(enable_graph_kernel=True, graph_kernel_flags=fusion_flags())
        compile_ahead(probe, inputs)
        probe(inputs).asnumpy()
    except (OSError, RuntimeError) as error:
        ms.set_context(enable_graph_kernel=False)
        return f"AKG does not start ({short_message(error)}); see that {cache} can be written"
    return None


def _check_cache(cache: Path) -> None:
    """Make the folder of the kernels, and write as much to it as they may need: on a full disk AKG hangs.

    Raises:
        OSError: It cannot be made, or does not hold as much.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache) as file:
        file.write(bytes(KERNELS))


def _fusion_problem(amp_level: str) -> Optional[str]:
    """Return why AKG cannot start or would not pay, with the remedy; None where it can."""
    if amp_level != "O0":
        return "AKG fails to compile float16 for CPU; set train.amp_level to O0"
    if importlib.util.find_spec("mindspore._akg") is None:
        return "this build of MindSpore has no AKG; use the Linux build"
    if importlib.util.find_spec("decorator") is None:
        return "AKG needs a package that MindSpore does not install; pip install decorator"
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        return "OMP_WAIT_POLICY is not PASSIVE; set it so before Python starts, or import src before mindspore"
    return None


def set_seeds(seed: int, epoch: int = 0, rank: int = 0) -> None:
    """Seed every source of randomness from the run's seed, the epoch (0 for the initial weights) and the rank."""
    import mindspore as ms
    import numpy as np

    mixed = int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]) % 2**31
    ms.set_seed(mixed)  # operators, data set operators and NumPy
    random.seed(mixed)
