"""MindCV's and MindSpore's transforms of a configuration, for training and for validation."""

from collections.abc import Callable
from typing import Any

from mindcv.data import create_transforms
from mindspore.dataset import vision
from mindspore.dataset.transforms.py_transforms_util import Implementation
from mindspore.dataset.transforms.transforms import TensorOperation

from src.config import Config, DataConfig, ImageSize, sides
from src.data.seeded import Seeded
from src.errors import UserError

Transform = Callable[..., Any]


def check_transforms(config: Config) -> None:
    """Refuse augmentation that MindCV does not know.

    Raises:
        UserError: MindCV refuses `data.auto_augment` or another of its arguments.
    """
    try:
        train_transforms(config.data, config.model.image_size)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"data.auto_augment {config.data.auto_augment!r}: MindCV refuses it: {reason}") from error


def train_transforms(config: DataConfig, image_size: ImageSize) -> list[Transform]:
    """Return the transforms of a training image: random crop, augmentation, normalisation."""
    crop, augment, finish = create_transforms(
        image_resize=image_size,
        is_training=True,
        separate=True,
        auto_augment=config.auto_augment,
        color_jitter=config.color_jitter,
        scale=config.scale,
        ratio=config.ratio,
        hflip=config.hflip,
        interpolation=config.interpolation,
        mean=[255 * value for value in config.mean],
        std=[255 * value for value in config.std],
        re_prob=config.random_erasing,
    )
    if config.name != "folder":  # CIFAR's images come decoded: pad and crop them, as MindCV's CIFAR recipe does
        crop = [vision.RandomCrop(32, 4), *_resize(config, image_size), *crop[1:]]
    return crop + augment + finish


def val_transforms(config: DataConfig, image_size: ImageSize) -> list[Transform]:
    """Return the transforms of a validation image: resize, centre crop, normalisation."""
    transforms = create_transforms(
        image_resize=image_size,
        crop_pct=config.crop_pct,
        interpolation=config.interpolation,
        mean=[255 * value for value in config.mean],
        std=[255 * value for value in config.std],
    )
    if config.name != "folder":
        return _resize(config, image_size) + transforms[3:]  # without MindCV's Decode, Resize and CenterCrop
    return transforms


def file_transforms(config: DataConfig, image_size: ImageSize) -> list[Transform]:
    """Return the transforms of an encoded image file, as validation sees it.

    For a network of CIFAR's, a file is first made the 32x32 pixels that the set would hold.
    """
    transforms = val_transforms(config, image_size)
    if config.name != "folder":
        return [vision.Decode(), vision.Resize((32, 32), _interpolation(config)), *transforms]
    return transforms


def seeded(transforms: list[Transform], key: tuple[int, ...]) -> list[Transform]:
    """Give those transforms that draw in Python seeds of their own; MindSpore's others draw in C++."""
    return [
        operation
        if isinstance(operation, TensorOperation) and operation.implementation is not Implementation.PY
        else Seeded(operation, *key, position)
        for position, operation in enumerate(transforms)
    ]


def _resize(config: DataConfig, image_size: ImageSize) -> list[Transform]:
    size = sides(image_size)
    if size == (32, 32):
        return []
    return [vision.Resize(size, _interpolation(config))]


def _interpolation(config: DataConfig) -> vision.Inter:
    return getattr(vision.Inter, config.interpolation.upper())
