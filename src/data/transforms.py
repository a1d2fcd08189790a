"""MindCV's and MindSpore's transforms of a configuration, for training and for validation."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from mindcv.data import create_transforms
from mindspore.dataset import vision

from src.config import Config, DataConfig, ImageSize, sides
from src.data.policies import mend, mindcv_name
from src.data.resize import PillowResize
from src.errors import UserError, short_message

Transform = Callable[..., Any]


def check_transforms(config: Config) -> None:
    """Refuse augmentation that MindCV does not know, or that fails on a grey image.

    Raises:
        UserError: MindCV refuses `data.auto_augment` or `data.color_jitter`.
    """
    if config.data.auto_augment is None and config.data.color_jitter is None:
        return
    size = sides(config.model.image_size)
    try:
        image = np.full((*size, 3), 128, np.uint8)
        for transform in _augmentation(config.data, config.model.image_size):
            image = transform(image)
    except Exception as error:  # whatever MindCV's parser and its policies raise
        reason = f"{type(error).__name__}: {short_message(error)}"
        key = "auto_augment" if config.data.auto_augment is not None else "color_jitter"
        value = getattr(config.data, key)
        raise UserError(f"data.{key} {value!r}: MindCV refuses it: {reason}; set another, or null") from error


def train_transforms(config: DataConfig, image_size: ImageSize) -> list[Transform]:
    """Return the transforms of a training image to uint8 [H, W, 3]: decoding, random crop, flip, augmentation.

    MindSpore decodes only the part of a JPEG that is cropped. CIFAR's images come decoded: they are padded and cropped
    as in MindCV's recipe for CIFAR.
    """
    crop, _, _ = _create(config, image_size, auto_augment=None)
    if config.name != "folder":
        crop = [vision.RandomCrop(32, 4), *_resize_cifar(config, image_size, by_pillow=False), *crop[1:]]
    return crop + _augmentation(config, image_size)


def _augmentation(config: DataConfig, image_size: ImageSize) -> list[Transform]:
    """Return what comes between crop and normalisation: a policy of MindCV's, mended, or colour jitter."""
    if config.auto_augment is None:
        return _create(config, image_size, color_jitter=config.color_jitter)[1]
    _, augmentation, _ = _create(config, image_size, auto_augment=mindcv_name(config.auto_augment))
    return [mend(transform, config.auto_augment) for transform in augmentation]


def _create(config: DataConfig, image_size: ImageSize, **options: object) -> tuple[list[Transform], ...]:
    """Have MindCV create the transforms of training images: of crop and flip, of augmentation, and the rest."""
    return create_transforms(
        image_resize=image_size,
        is_training=True,
        separate=True,
        scale=config.scale,
        ratio=config.ratio,
        hflip=config.hflip,
        interpolation=config.interpolation,
        mean=[255 * value for value in config.mean],
        std=[255 * value for value in config.std],
        **options,
    )


def val_transforms(config: DataConfig, image_size: ImageSize) -> list[Transform]:
    """Return the transforms of a validation image: resize, centre crop, normalisation."""
    transforms = create_transforms(
        image_resize=image_size,
        crop_pct=config.crop_pct,
        interpolation=config.interpolation,
        mean=[255 * value for value in config.mean],
        std=[255 * value for value in config.std],
    )
    by_pillow = config.resize == "pil"
    if config.name != "folder":
        return _resize_cifar(config, image_size, by_pillow) + transforms[3:]  # without MindCV's first three
    if by_pillow:
        size = sides(image_size)
        scaled = [math.floor(side / config.crop_pct) for side in size]
        whole = scaled[0] if size[0] == size[1] else (scaled[0], scaled[1])
        return [transforms[0], PillowResize(whole, config.interpolation, size), *transforms[3:]]
    return transforms


def whole_transforms(config: DataConfig, image_size: ImageSize) -> list[Transform]:
    """Return the transforms of an image of which nothing is cropped: resize to the network's size, normalisation."""
    transforms, by_pillow = val_transforms(config, image_size), config.resize == "pil"
    if config.name != "folder":
        return transforms  # CIFAR's are whole
    return [transforms[0], _resize(config, sides(image_size), by_pillow), *transforms[-2:]]


def file_transforms(config: DataConfig, image_size: ImageSize) -> list[Transform]:
    """Return the transforms of an encoded image file, as validation sees it.

    For a network of CIFAR's, a file is first made the 32x32 pixels that the set would hold.
    """
    transforms = val_transforms(config, image_size)
    if config.name != "folder":
        return [vision.Decode(), _resize(config, (32, 32), config.resize == "pil"), *transforms]
    return transforms


def _resize_cifar(config: DataConfig, image_size: ImageSize, by_pillow: bool) -> list[Transform]:
    size = sides(image_size)
    return [] if size == (32, 32) else [_resize(config, size, by_pillow)]


def _resize(config: DataConfig, size: tuple[int, int], by_pillow: bool) -> Transform:
    if by_pillow:
        return PillowResize(size, config.interpolation)
    return vision.Resize(size, getattr(vision.Inter, config.interpolation.upper()))
