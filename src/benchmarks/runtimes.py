"""What opens exported files: onnxruntime, OpenVINO and MindSpore, each in a process of `src.benchmarks.peers`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

Infer = Callable[[], object]
Opener = Callable[[str, str, np.ndarray], Infer]  # file, precision, images


@dataclass(frozen=True)
class RuntimeSettings:
    """What a runtime is to open.

    Attributes:
        files: For each contestant its name, its file and the precision to compute in.
        images: Shape of an image, [3, H, W].
        batch_sizes: Images of each contestant's batch.
    """

    files: Sequence[tuple[str, str, str]]
    images: Sequence[int]
    batch_sizes: Sequence[int]


def open_files(kind: str, settings: RuntimeSettings) -> tuple[dict[str, Callable[[], float]], dict[str, str]]:
    """Return one inference of each file by the contestant's name, which returns its seconds; and versions."""
    open_file, versions = {"onnxruntime": _onnxruntime, "openvino": _openvino, "mindir": _mindir}[kind]()
    runs: dict[str, Callable[[], float]] = {}
    for (name, file, precision), batch_size in zip(settings.files, settings.batch_sizes):
        images = np.random.RandomState(0).standard_normal((batch_size, *settings.images)).astype(np.float32)
        runs[name] = partial(_seconds, open_file(file, precision, images))
    return runs, versions


def _seconds(infer: Infer) -> float:
    started = time.perf_counter()
    infer()
    return time.perf_counter() - started


def _onnxruntime() -> tuple[Opener, dict[str, str]]:
    import onnxruntime

    def open_file(file: str, precision: str, images: np.ndarray) -> Infer:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"images": images})

    return open_file, {"onnxruntime": onnxruntime.__version__}


def _openvino() -> tuple[Opener, dict[str, str]]:
    import openvino

    core = openvino.Core()
    hints = {"float32": "f32", "int8": "f32", "bfloat16": "bf16"}  # of what is not quantised

    def open_file(file: str, precision: str, images: np.ndarray) -> Infer:
        options = {"INFERENCE_PRECISION_HINT": hints[precision], "PERFORMANCE_HINT": "LATENCY"}
        request = core.compile_model(core.read_model(file), "CPU", options).create_infer_request()
        return lambda: request.infer({"images": images})

    return open_file, {"openvino": openvino.__version__.split("-")[0]}


def _mindir() -> tuple[Opener, dict[str, str]]:
    from src.runtime import device

    device.set_up("CPU", fused_kernels="off")  # as src.tools.predict
    import mindspore as ms
    from mindspore import Tensor, nn

    def open_file(file: str, precision: str, images: np.ndarray) -> Infer:
        cell = nn.GraphCell(ms.load(file))
        return lambda: cell(Tensor(images)).asnumpy()

    return open_file, {"mindspore": ms.__version__}
