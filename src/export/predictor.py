"""One way to ask a network, whatever file it is in: a checkpoint, MindIR, or ONNX, which needs no MindSpore."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from src.config.files import Overrides
from src.data.datasets import class_name
from src.data.prepare import Preparation
from src.errors import UserError, short_message
from src.export.batches import Run, in_batches
from src.weights.files import SUFFIXES

TOP = 5


@dataclass(frozen=True)
class Predictor:
    """A network in a file.

    Attributes:
        run: Of a batch of images uint8 [B, H, W, 3], or of float32 [B, 3, H, W], `logits` and whatever else it gives.
        batch_size: Images of a batch that it takes; 0: any number.
        uint8: Whether it takes bytes, and normalises them itself.
        preparation: How an image file becomes its input.
        tokens: Its schedule.
        classes: Names of its outputs; none where they are unknown.
    """

    run: Run
    batch_size: int
    uint8: bool
    preparation: Preparation
    tokens: str
    classes: tuple[str, ...]

    def predict(self, files: list[Path]) -> list[dict[str, object]]:
        """Return for each image file its name, the five most likely classes with their probabilities, and the schedule.

        Raises:
            UserError: An image cannot be decoded.
        """
        pixels = np.stack([self.preparation.pixels(file) for file in files])
        images = pixels if self.uint8 else self.preparation.inputs(pixels)
        logits = in_batches(self.run, images, self.batch_size)["logits"]
        return [{"image": str(file), "top5": self.top(row), "tokens": self.tokens} for file, row in zip(files, logits)]

    def top(self, logits: np.ndarray) -> list[list[object]]:
        """Return the most likely classes of logits [classes], and their probabilities, of four digits."""
        exponentials = np.exp(logits.astype(np.float64) - logits.max())
        best = np.argsort(-logits, kind="stable")[:TOP]
        return [[class_name(self.classes, i), round(float(exponentials[i] / exponentials.sum()), 4)] for i in best]


def open_predictor(path: Path, config: Optional[str], overrides: Overrides, batch_size: int) -> Predictor:
    """Open a file of a network.

    Args:
        config: A configuration's file for a checkpoint that is in no run and holds none.
        overrides: Of a checkpoint's configuration.
        batch_size: Images that a checkpoint's network is asked about at once.

    Raises:
        UserError: The file is missing or of another kind, or does not say how images are prepared.
    """
    if path.suffix in SUFFIXES:
        return _open_checkpoint(path, config, overrides, batch_size)
    if path.suffix not in (".onnx", ".mindir"):
        raise UserError(f"{path} must end in .onnx, .mindir, {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a file that export.py wrote")
    if config or overrides:
        raise UserError(f"{path} has its configuration inside; leave out --config and overrides")
    return _open_onnx(path) if path.suffix == ".onnx" else _open_mindir(path)


def _open_onnx(path: Path) -> Predictor:
    from src.export.onnx.session import Session

    session = Session(path)
    return Predictor(session.run, session.batch_size, session.uint8, *_read_facts(path, session.facts))


def _open_mindir(path: Path) -> Predictor:
    """Open a MindIR file on CPU."""
    from src.runtime import device, releases

    device.set_up("CPU", fused_kernels="off")
    import mindspore as ms
    from mindspore import Tensor, nn

    try:
        shape, facts = releases.read_mindir(path.read_bytes())
        cell = nn.GraphCell(ms.load(str(path)))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} is no MindIR that MindSpore {ms.__version__} reads: {short_message(error)}") from error
    read = _read_facts(path, facts)
    return Predictor(lambda images: {"logits": cell(Tensor(images)).asnumpy()}, max(shape[0], 0), False, *read)


def _open_checkpoint(path: Path, config: Optional[str], overrides: Overrides, batch_size: int) -> Predictor:
    from src.runs import RunFolder, find_checkpoint
    from src.runtime import device
    from src.weights import read_checkpoint

    found, _ = find_checkpoint(config, str(path), overrides)
    checkpoint = read_checkpoint(path)
    found = checkpoint.fill_in(found)
    device.set_up(found.runtime.device_target, fused_kernels="off")
    from mindspore import Tensor

    from src.models import from_config

    network = from_config(found.model).set_train(False)
    checkpoint.load_into(network)
    network.sample(1)  # refuses a ranking by an oracle
    run = RunFolder.of_checkpoint(path)
    classes = checkpoint.classes or (run.read_classes() if run else ())

    def ask(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"logits": network(Tensor(images), *network.sample(len(images), 0)).asnumpy()}

    return Predictor(ask, batch_size, False, Preparation.of(found), str(network.plan.schedule), classes)


def _read_facts(path: Path, facts: Mapping[str, str]) -> tuple[Preparation, str, tuple[str, ...]]:
    """Return what a file says of itself: preparation, schedule, classes.

    Raises:
        UserError: It does not say it.
    """
    try:
        return Preparation.read(facts["preprocessing"]), facts["tokens"], tuple(json.loads(facts["classes"]))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} does not say how images are prepared; name a file that export.py wrote") from error
