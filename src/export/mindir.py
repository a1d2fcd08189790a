"""Export to MindIR, verified in MindSpore."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from src.config import Config, sides
from src.data.batches import Run
from src.errors import RunError, short_message
from src.export.checks import check
from src.export.expected import ask_network
from src.export.form import Form
from src.export.metadata import describe
from src.export.verified import export_files
from src.files import set_mode
from src.runtime import device
from src.weights import Checkpoint, read_checkpoint

if TYPE_CHECKING:
    from src.models import SkipViT

LARGEST = 10**9  # bytes; of more, MindSpore writes several files


def export_checkpoint(
    config: Config, path: Path, outputs: Mapping[int, Path], form: Form, tolerance: float, target: Optional[str] = None
) -> None:
    """Write a checkpoint's network as MindIR, a file for each batch size.

    Args:
        outputs: The file of each batch size; 0 for a graph that takes any.
        form: What the files are to be, whatever their batch size.
        tolerance: Largest difference to accept between the logits of file and network, absolute where none is above 1,
            relative to the largest of them otherwise. The network is written for the device that computes both: where
            the file's kernels are another device's, what they compute is compared too.
        target: `cpu` or `ascend`, whose kernels the file holds; by default the configured device's.

    Raises:
        UserError: The checkpoint does not fit the configuration, or the output cannot be written.
        RunError: A file computes something else; it is not kept.
    """
    check(config, outputs, ".mindir", LARGEST)
    device.check_settings(config.runtime.device_target)
    checkpoint = read_checkpoint(path)
    config = checkpoint.fill_in(config)
    device.set_up(config.runtime.device_target, fused_kernels="off")  # what is written fits any device
    writer = MindirWriter(config, checkpoint, target)
    export_files(writer, outputs, form, ask_network(writer.network, config, form.uint8), tolerance)


class MindirWriter:
    """A checkpoint's network as MindIR; see `Writer`.

    Attributes:
        network: It, for the device that computes here; what is written may be for another.
    """

    rewritten = False

    def __init__(self, config: Config, checkpoint: Checkpoint, target: Optional[str]) -> None:
        from src.models import with_weights
        from src.models.ops import choose_target

        self.config, self.target = config, choose_target(target)
        self.network = self.written = with_weights(checkpoint, config.model)
        if self.target != choose_target(None):
            self.written = with_weights(checkpoint, config.model, self.target)
        self.facts = describe(config, checkpoint)
        self.what = f"tokens {self.facts['tokens']}, for {self.target}"

    def write(self, path: Path, form: Form) -> None:
        write(path, self.written, form, self.config)

    def open(self, path: Path) -> Run:
        try:
            return open_file(path, output_names(self.network))
        except (RuntimeError, ValueError) as error:
            raise RunError(f"--output: MindSpore does not read back what it wrote: {short_message(error)}") from error

    def add_facts(self, path: Path, verified: str, form: Form) -> None:
        """Write its `user_info`: a message's fields may be appended to it."""
        from src.runtime.releases import user_info

        outputs = output_names(self.network) if form.kept else ["logits"]
        own = {"target": self.target, "verified": verified, "outputs": json.dumps(outputs),
               "images": "uint8" if form.uint8 else "float32"}  # fmt: skip
        set_mode(path, 0o600)  # MindSpore's files are read-only
        with path.open("ab") as file:
            file.write(user_info({**self.facts, **own}))


def write(path: Path, network: "SkipViT", form: Form, config: Config) -> None:
    """Write a network as MindIR: images as the form says → float32 logits [B, classes], and kept patches.

    Raises:
        RunError: It cannot be written.
    """
    import mindspore as ms
    from mindspore import Tensor

    from src.models.deployed import Deployed

    size = sides(config.model.image_size)
    shape = [form.batch_size or None, *((*size, 3) if form.uint8 else (3, *size))]
    kind = ms.uint8 if form.uint8 else ms.float32
    images = Tensor(shape=shape, dtype=kind, init=None if not form.batch_size else "zeros")
    pixels = (config.data.mean, config.data.std) if form.uint8 else ()
    path.unlink(missing_ok=True)
    try:
        cell = Deployed(network, form.kept, *pixels).set_train(False)
        ms.export(cell, images, file_name=str(path), file_format="MINDIR")
    except (RuntimeError, ValueError) as error:
        raise RunError(f"--output: MindSpore cannot write {path.parent}: {short_message(error)}") from error


def open_file(path: Path, names: Sequence[str]) -> Run:
    """Return what a MindIR file computes of a batch of its size, its outputs by name.

    Raises:
        RuntimeError, ValueError: MindSpore does not read it.
    """
    import mindspore as ms
    from mindspore import Tensor, nn

    cell = nn.GraphCell(ms.load(str(path)))
    return lambda images: named(cell(Tensor(images)), names)


def output_names(network: "SkipViT") -> list[str]:
    """Return the names of a file's outputs, in their order, where it gives the kept patches."""
    return ["logits", *(f"kept.{block}" for block, drop in enumerate(network.plan.drops, 1) if drop)]


def named(outputs: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the outputs of a MindIR by name; a single one is no tuple."""
    given = outputs if isinstance(outputs, tuple) else (outputs,)
    return {name: output.asnumpy() for name, output in zip(names, given)}
