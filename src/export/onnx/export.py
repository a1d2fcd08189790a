"""Export to ONNX, verified in onnxruntime."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from src.config import Config
from src.data.batches import Run
from src.errors import UserError
from src.export.checks import check
from src.export.expected import ask_network
from src.export.form import Form
from src.export.metadata import describe
from src.export.onnx.file import add_fact, write
from src.export.onnx.session import Session
from src.export.verified import export_files
from src.runtime import device
from src.weights import Checkpoint, read_checkpoint

LARGEST = 2**31  # bytes of one protobuf message
PACKAGES = {"onnxscript": "onnxscript>=0.7,<0.8", "onnxruntime": "onnxruntime>=1.19,<2"}


def export_checkpoint(config: Config, path: Path, outputs: Mapping[int, Path], form: Form, tolerance: float) -> None:
    """Write a checkpoint's network as ONNX, a file for each batch size.

    Args:
        outputs: The file of each batch size; 0 for a graph that takes any.
        form: What the files are to be, whatever their batch size.
        tolerance: Largest difference to accept between the logits of file and network, absolute where none is above 1,
            relative to the largest of them otherwise. Of weights of half size the most likely class is compared.

    Raises:
        UserError: The checkpoint does not fit the configuration, the output cannot be written, or a package is missing.
        RunError: A file computes something else; it is not kept.
    """
    check(config, outputs, ".onnx", LARGEST)
    device.check_settings(config.runtime.device_target)
    _check_packages()
    checkpoint = read_checkpoint(path)
    config = checkpoint.fill_in(config)
    device.set_up(config.runtime.device_target, fused_kernels="off")
    from src.models import with_weights

    expected = ask_network(with_weights(checkpoint, config.model), config, form.uint8)
    export_files(OnnxWriter(config, checkpoint), outputs, form, expected, tolerance)


class OnnxWriter:
    """A checkpoint's network as ONNX; see `Writer`."""

    rewritten = True

    def __init__(self, config: Config, checkpoint: Checkpoint) -> None:
        self.config, self.checkpoint = config, checkpoint
        self.facts = describe(config, checkpoint)
        self.what = f"tokens {self.facts['tokens']}"

    def write(self, path: Path, form: Form) -> None:
        write(path, self.config, self.checkpoint, form, self.facts)

    def open(self, path: Path) -> Run:
        return Session(path).run

    def add_facts(self, path: Path, verified: str, form: Form) -> None:
        add_fact(path, "verified", verified)


def _check_packages() -> None:
    """Refuse to start where a package is missing.

    Raises:
        UserError: One is.
    """
    for name, requirement in PACKAGES.items():
        if importlib.util.find_spec(name) is None:
            raise UserError(f"ONNX needs the package {name}, which is not installed; pip install '{requirement}'")
