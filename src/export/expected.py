"""What the network says of some images, which an exported file must say too."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from src.config import Config, sides
from src.data.pixels import normalise, pixels
from src.errors import RunError, UserError

if TYPE_CHECKING:
    from src.models import SkipViT

IMAGES = 32
AGREEMENT = 0.99  # least share of the images whose top-1 weights of half size leave as it is

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

    def compare(self, outputs: Mapping[str, np.ndarray], output: Path, tolerance: float) -> str:
        """Return in words how well the outputs of a file agree with the network.

        Args:
            outputs: `logits` and perhaps `kept.BLOCK`, for all images.
            output: The file's name, for messages.
            tolerance: Largest difference of logits to accept: absolute where none of the network's is above 1, relative
                to the largest of them otherwise.

        Raises:
            RunError: They do not, or are not finite.
        """
        difference = self._difference(outputs["logits"], output)
        if difference > tolerance:
            raise RunError(f"{output}: logits differ by {difference:g}, more than {tolerance:g}; it was not kept")
        kept = [name for name in outputs if name != "logits"]
        for name in kept:
            other = int((outputs[name] != self.kept[int(name.removeprefix("kept."))]).any(1).sum())
            if other:
                raise RunError(f"{output}: {name} is not the network's on {other} of {self.what}; it was not kept")
        same = ", kept tokens the same," if kept else ""
        return f"largest difference {difference:.3g}{same} on {self.what}"

    def compare_top1(self, logits: np.ndarray, output: Path) -> str:
        """Return in words how often weights of half size leave the most likely class as it is.

        Raises:
            RunError: Not often enough.
        """
        difference = self._difference(logits, output)
        agree = int((logits.argmax(1) == self.logits.argmax(1)).sum())
        told = f"top-1 the same on {agree} of {self.what}, largest difference {difference:.3g}"
        if agree < AGREEMENT * len(logits):
            raise RunError(f"{output}: with weights of half size {told}; it was not kept; leave out --float16")
        return told

    def _difference(self, logits: np.ndarray, output: Path) -> float:
        if not np.isfinite(logits).all() or not np.isfinite(self.logits).all():
            raise RunError(f"{output}: logits are not finite; it was not kept")
        return float(np.abs(logits - self.logits).max()) / max(1.0, float(np.abs(self.logits).max()))


def ask_network(network: "SkipViT", config: Config, uint8: bool) -> Expected:
    """Return what a network says of validation images, or of random ones where there are none."""
    from mindspore import Tensor

    from src.models import TokenTracer

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
