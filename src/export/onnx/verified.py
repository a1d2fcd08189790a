"""Export to ONNX, verified: onnxruntime's logits and kept tokens are compared with those of the network."""

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.config import Config, sides
from src.data.pixels import normalise, pixels
from src.errors import RunError, UserError
from src.export.checks import check
from src.export.metadata import describe
from src.export.onnx.file import Form, add_fact, write
from src.export.onnx.session import Session
from src.files import set_mode, written_whole
from src.runtime import device
from src.weights import Checkpoint, read_checkpoint

IMAGES = 32
AGREEMENT = 0.99  # least share of the images whose top-1 weights of half size leave as it is
LARGEST = 2**31  # bytes of one protobuf message
PACKAGES = {"onnxscript": "onnxscript>=0.7,<0.8", "onnxruntime": "onnxruntime>=1.19,<2"}

log = logging.getLogger("skipvit")


@dataclass(frozen=True)
class Expected:
    """What the network says of some images.

    Attributes:
        images: As a file takes them.
        what: What they are, in words.
        logits: float32 [B, classes].
        kept: As of `src.models.Trace`.
    """

    images: np.ndarray
    what: str
    logits: np.ndarray
    kept: dict[int, np.ndarray]


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
    for output in outputs.values():
        check(config, output, ".onnx", LARGEST)
    device.check_settings(config.runtime.device_target)
    _check_packages()
    checkpoint = read_checkpoint(path)
    config = checkpoint.fill_in(config)
    expected = _ask_network(config, checkpoint, form.uint8)
    facts = describe(config, checkpoint)
    for batch_size, output in outputs.items():
        _export(config, checkpoint, replace(form, batch_size=batch_size), facts, output, expected, tolerance)


def _export(
    config: Config, checkpoint: Checkpoint, form: Form, facts: Mapping[str, str], output: Path, expected: Expected,
    tolerance: float,
) -> None:  # fmt: skip
    """Write one file, and keep it if it says what is expected."""
    with written_whole(output) as partial:
        if expected.kept and not form.kept and not form.float16:  # the same graph with outputs that show them
            write(partial, config, checkpoint, replace(form, kept=True), facts)
            _compare(partial, output, form, expected, tolerance)
        write(partial, config, checkpoint, form, facts)
        verified = _compare(partial, output, form, expected, tolerance)
        add_fact(partial, "verified", verified)
        set_mode(partial, 0o644)
    megabytes = output.stat().st_size / 2**20
    batch = f"batch {form.batch_size}" if form.batch_size else "any batch"
    print(f"{output}: {megabytes:.1f} MB, {batch}, tokens {facts['tokens']}, {verified}")


def _check_packages() -> None:
    """Refuse to start where a package is missing.

    Raises:
        UserError: One is.
    """
    for name, requirement in PACKAGES.items():
        if importlib.util.find_spec(name) is None:
            raise UserError(f"ONNX needs the package {name}, which is not installed; pip install '{requirement}'")


def _ask_network(config: Config, checkpoint: Checkpoint, uint8: bool) -> Expected:
    """Return what the network says, in MindSpore, of validation images, or of random ones where there are none."""
    device.set_up(config.runtime.device_target, fused_kernels="off")
    from mindspore import Tensor

    from src.models import TokenTracer, from_config

    network = from_config(config.model).set_train(False)
    checkpoint.load_into(network)
    images, what = _find_images(config)
    given = images
    if uint8:
        given = pixels(images, config.data.mean, config.data.std)
        images = normalise(given, config.data.mean, config.data.std)
    traced = TokenTracer(network)(Tensor(images))
    return Expected(given, what, traced.logits, traced.kept)


def _find_images(config: Config) -> tuple[np.ndarray, str]:
    """Return images float32 [B, 3, H, W], normalised, and what they are."""
    from src.data.datasets import open_dataset
    from src.data.loaders import val_sample

    try:
        images, _ = val_sample(open_dataset(config.data, ("val",)), config, IMAGES)
        return images, f"{len(images)} validation images"
    except (UserError, RunError, OSError) as error:
        log.warning("verified on random images, for the validation images cannot be had: %s", error)
    shape = (IMAGES, 3, *sides(config.model.image_size))
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32), f"{IMAGES} random images"


def _compare(file: Path, output: Path, form: Form, expected: Expected, tolerance: float) -> str:
    """Return in words how well a file agrees with the network.

    Raises:
        RunError: It does not.
    """
    session, images = Session(file), expected.images
    parts = [images] if form.batch_size else [images[:1], images[1:]]
    found = [session(part) for part in parts if len(part)]
    outputs = {name: np.concatenate([part[name] for part in found]) for name in session.outputs}
    logits = outputs["logits"]
    if not np.isfinite(logits).all() or not np.isfinite(expected.logits).all():
        raise RunError(f"{output}: logits are not finite; the file was deleted")
    difference = float(np.abs(logits - expected.logits).max()) / max(1.0, float(np.abs(expected.logits).max()))
    if form.float16:
        agree = int((logits.argmax(1) == expected.logits.argmax(1)).sum())
        told = f"top-1 the same on {agree} of {expected.what}, largest difference {difference:.3g}"
        if agree < AGREEMENT * len(logits):
            raise RunError(f"{output}: with weights of half size {told}; the file was deleted; leave out --float16")
        return told
    if difference > tolerance:
        raise RunError(f"{output}: logits differ by {difference:g}, more than {tolerance:g}; the file was deleted")
    for name in session.outputs[1:]:
        other = int((outputs[name] != expected.kept[int(name.removeprefix("kept."))]).any(1).sum())
        if other:
            raise RunError(f"{output}: {name} is not the network's on {other} of {expected.what}; the file was deleted")
    kept = ", kept tokens the same," if expected.kept else ""
    return f"largest difference {difference:.3g}{kept} on {expected.what}"
