"""The configuration that a benchmark measures: a recipe without what makes steps differ in length."""

from pathlib import Path
from typing import Union

from src.config import Config, load, with_classes
from src.config.files import Overrides
from src.errors import UserError

PRECISION = {"float32": "O0", "float16": "O2"}


def benchmark_settings(model: str, image_size: int, batch_size: int, precision: str) -> dict[str, object]:
    """Return the values by key that a benchmark sets."""
    return {
        "model.name": model,
        "model.image_size": image_size,
        "model.drop_path_rate": 0.0,
        "data.batch_size": batch_size,
        "data.mixup": 0.0,
        "data.cutmix": 0.0,
        "train.amp_level": PRECISION[precision],
        "train.loss_scale_type": "fixed" if precision == "float32" else "dynamic",
        "train.loss_scale": 1024,
        "train.ema_decay": None,
        "runtime.device_target": "CPU",
    }


def benchmark_config(file: Union[str, Path], settings: Overrides) -> Config:
    """Load a configuration with settings; classes that are left to the data count as ImageNet's.

    Raises:
        UserError: It is refused, or its images are not square.
    """
    config = with_classes(load(file, settings))
    if not isinstance(config.model.image_size, int):
        raise UserError("the benchmark's images are square; give --image_size one number")
    return config
