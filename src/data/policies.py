"""MindCV's augmentation policies, mended where MindCV 0.3 does not do what timm does, of which they are a port.

- ShearX and ShearY take the factor for degrees, so that 0.27 does next to nothing; timm shears about a corner.
- Posterize drops the bits that it should keep.
- `mstd` is ignored in favour of 0.5; in timm's RandAugment the magnitude is fixed without it.
- `inc0` counts as `inc1`.
- RandAugment lacks SolarizeAdd.

timm: timm/data/auto_augment.py of 1.0; the numbers are those of 0.3.2, which DeiT used.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from mindcv.data import auto_augment
from mindcv.data.auto_augment import AugmentOp
from mindspore.dataset import vision


def mindcv_name(policy: str) -> str:
    """Return a policy as MindCV is to read it: without `inc0`, which it takes for `inc1`."""
    return re.sub(r"-inc0+(?=-|$)", "", policy)


def mend(transform: Any, policy: str) -> Any:
    """Mend what MindCV made of a policy, and return it."""
    operations = list(_operations(transform))
    for operation in operations:
        operation.aug_fn = MENDED.get(operation.name, operation.aug_fn)
    if policy.startswith(("randaug", "autoaug", "3a")):
        noise = re.search(r"-mstd(\d[\d.]*)", policy)
        if noise or policy.startswith("randaug"):
            std = float(noise[1]) if noise else 0.0
            for operation in operations:
                operation.magnitude_std = std if std <= 100 else math.inf
    if isinstance(transform, auto_augment.RandAugment) and transform.choice_weights is None:
        transform.ops.append(_solarize_add(operations[0]))
    return transform


def _operations(transform: Any) -> Iterator[AugmentOp]:
    """Yield every operation of a policy, which is a list of them or a list of such lists."""
    for entry in transform.policy if hasattr(transform, "policy") else transform.ops:
        yield from entry if isinstance(entry, list) else [entry]


def shear_x(img: np.ndarray, shear: float, fill_value: tuple[int, ...], resample: Any) -> np.ndarray:
    """Take pixel (x, y) from (x + shear * y, y)."""
    height, width = img.shape[:2]
    shift = -shear * height / 2 / width  # MindSpore shears about the centre
    return _affine(img, (shift, 0.0), (_degrees(shear), 0.0), fill_value, resample)


def shear_y(img: np.ndarray, shear: float, fill_value: tuple[int, ...], resample: Any) -> np.ndarray:
    """Take pixel (x, y) from (x, y + shear * x)."""
    height, width = img.shape[:2]
    shift = -shear * width / 2 / height
    return _affine(img, (0.0, shift), (0.0, _degrees(shear)), fill_value, resample)


def posterize(img: np.ndarray, bits_to_keep: int, **_: object) -> np.ndarray:
    """Keep the highest bits of every pixel; keeping none leaves black, as in timm."""
    return img & np.uint8(256 - 2 ** max(8 - bits_to_keep, 0)) if bits_to_keep else np.zeros_like(img)


def solarize_add(img: np.ndarray, add: int, **_: object) -> np.ndarray:
    """Brighten the pixels below 128."""
    return np.where(img < 128, np.minimum(img, 255 - add) + np.uint8(add), img)


def _solarize_add(like: AugmentOp) -> AugmentOp:
    """Return timm's operation, with the magnitude, probability and noise of another one."""
    operation = AugmentOp("Solarize", like.prob, like.magnitude, like.hparams)
    operation.name, operation.aug_fn = "SolarizeAdd", solarize_add
    operation.level_fn = lambda level, _: (min(128, int(level / 10 * 110)),)
    operation.magnitude_std, operation.magnitude_max = like.magnitude_std, like.magnitude_max
    return operation


def _degrees(shear: float) -> float:
    return math.degrees(math.atan(shear))


def _affine(
    img: np.ndarray, shift: tuple[float, float], shear: tuple[float, float], fill: tuple[int, ...], resample: Any
) -> np.ndarray:
    return vision.Affine(0.0, shift, 1.0, shear, resample=auto_augment._interpolation({"resample": resample}),
                         fill_value=fill)(img)  # fmt: skip


MENDED = {
    "ShearX": shear_x, "ShearY": shear_y, "Posterize": posterize, "PosterizeIncreasing": posterize,
    "PosterizeOriginal": posterize,
}  # fmt: skip
