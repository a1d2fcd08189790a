"""One way to ask a network, whatever file it is in: a checkpoint, MindIR, or ONNX, which needs no MindSpore."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from src.config import ModelConfig
from src.config.files import Overrides
from src.data.batches import Run, in_batches
from src.data.datasets import class_name
from src.data.prepare import Preparation
from src.errors import UserError, short_message
from src.schedules import Geometry, Plan, parse, resolve
from src.schedules.trace import Trace
from src.weights.files import SUFFIXES, kind_of

TOP = 5


@dataclass(frozen=True)
class Known:
    """What a file says of its network.

    Attributes:
        preparation: How an image file becomes its input.
        classes: Names of its outputs; none where they are unknown.
    """

    preparation: Preparation
    geometry: Geometry
    plan: Plan
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a network says of B images.

    Attributes:
        pixels: The images as it sees them, uint8 [B, H, W, 3].
        trace: Without attention, and with kept patches where the file gives them.
    """

    pixels: np.ndarray
    trace: Trace


@dataclass(frozen=True)
class Predictor:
    """A network in a file.

    Attributes:
        run: Of a batch of images uint8 [B, H, W, 3], or of float32 [B, 3, H, W], `logits`, and perhaps `kept.BLOCK`.
        batch_size: Images of a batch that it takes; 0: any number.
        uint8: Whether it takes bytes, and normalises them itself.
    """

    run: Run
    batch_size: int
    uint8: bool
    known: Known

    def ask(self, files: Sequence[Path]) -> Answer:
        """Return what the network says of image files.

        Raises:
            UserError: One cannot be decoded.
        """
        return self.ask_about(np.stack([self.known.preparation.pixels(file) for file in files]))

    def ask_about(self, pixels: np.ndarray) -> Answer:
        """Return what the network says of images that are prepared, uint8 [B, H, W, 3]."""
        images = pixels if self.uint8 else self.known.preparation.inputs(pixels)
        outputs = in_batches(self.run, images, self.batch_size)
        kept = {int(name.removeprefix("kept.")): ids for name, ids in outputs.items() if name != "logits"}
        return Answer(pixels, Trace(outputs["logits"], (), kept))

    def top(self, logits: np.ndarray) -> list[list[object]]:
        """Return the most likely classes of logits [classes], and their probabilities, of four digits."""
        exponentials = np.exp(logits.astype(np.float64) - logits.max())
        best = np.argsort(-logits, kind="stable")[:TOP]
        shares = exponentials / exponentials.sum()
        return [[class_name(self.known.classes, i), round(float(shares[i]), 4)] for i in best]

    def line(self, image: str, logits: np.ndarray) -> dict[str, object]:
        """Return what is told of an image by name, to be written as JSON: its logits' `top`, and the schedule."""
        return {"image": image, "top5": self.top(logits), "tokens": str(self.known.plan.schedule)}


def joined(answers: Sequence[Answer]) -> tuple[np.ndarray, Trace]:
    """Return the pixels and the trace of all answers as one."""
    traces = [answer.trace for answer in answers]
    kept = {block: np.concatenate([trace.kept[block] for trace in traces]) for block in traces[0].kept}
    pixels = np.concatenate([answer.pixels for answer in answers])
    return pixels, Trace(np.concatenate([trace.logits for trace in traces]), (), kept)


def open_predictor(path: Path, config: Optional[str], overrides: Overrides, batch_size: int) -> Predictor:
    """Open a file of a network.

    Args:
        config: A configuration's file for a checkpoint that is in no run and holds none.
        overrides: Of a checkpoint's configuration.
        batch_size: Images that a checkpoint's network is asked about at once.

    Raises:
        UserError: The file is missing or of another kind, or does not say how images are prepared.
    """
    if kind_of(path) in SUFFIXES:
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
    return Predictor(session.run, session.batch_size, session.uint8, _read_facts(path, session.facts))


def _open_mindir(path: Path) -> Predictor:
    """Open a MindIR file on CPU."""
    from src.export.mindir import open_file
    from src.runtime import device, releases

    device.set_up("CPU", fused_kernels="off")
    import mindspore as ms

    try:
        shape, facts = releases.read_mindir(path.read_bytes())
        run = open_file(path, json.loads(facts.get("outputs", '["logits"]')))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path} is no MindIR that MindSpore {ms.__version__} reads: {short_message(error)}") from error
    uint8 = facts.get("images") == "uint8"
    known = _read_facts(path, facts)
    return Predictor(run, max(shape[0], 0), uint8, known)


def _open_checkpoint(path: Path, config: Optional[str], overrides: Overrides, batch_size: int) -> Predictor:
    from src.runs import class_names, find_checkpoint
    from src.runtime import device
    from src.weights import read_checkpoint

    found, _ = find_checkpoint(config, str(path), overrides)
    checkpoint = read_checkpoint(path)
    found = checkpoint.fill_in(found)
    device.set_up(found.runtime.device_target, fused_kernels="off")
    from mindspore import Tensor

    from src.models import TokenTracer, with_weights

    network = with_weights(checkpoint, found.model)
    tracer = TokenTracer(network)

    def ask(images: np.ndarray) -> dict[str, np.ndarray]:
        traced = tracer(Tensor(images), 0)
        return {"logits": traced.logits, **{f"kept.{block}": kept for block, kept in traced.kept.items()}}

    known = Known(Preparation.of(found), network.geometry, network.plan, class_names(checkpoint))
    return Predictor(ask, batch_size, False, known)


def _read_facts(path: Path, facts: Mapping[str, str]) -> Known:
    """Return what a file says of itself.

    Raises:
        UserError: It does not say it.
    """
    try:
        model = ModelConfig(**json.loads(facts["model"]))
        preparation, classes = Preparation.read(facts["preprocessing"]), tuple(json.loads(facts["classes"]))
        geometry = Geometry.from_config(model)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} does not say how images are prepared; name a file that export.py wrote") from error
    return Known(preparation, geometry, resolve(parse(facts["tokens"]), geometry), classes)
