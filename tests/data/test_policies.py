"""MindCV's policies as mended: magnitudes and images are timm's (timm/data/auto_augment.py)."""

import math
import random

import numpy as np
import pytest
from mindcv.data import auto_augment

from src.config import Config, DataConfig, ModelConfig
from src.data.policies import mend, mindcv_name, posterize, shear_x, shear_y, solarize_add
from src.data.transforms import check_transforms
from src.errors import UserError

FILL = {"fill_value": (124, 116, 104), "resample": auto_augment.Inter.BICUBIC}


def policy(text):
    """What MindCV makes of a policy, mended."""
    settings = {"img_mean": FILL["fill_value"], "interpolation": FILL["resample"]}
    return mend(auto_augment.rand_augment_transform(mindcv_name(text), settings), text)


def operation(text, name):
    return next(op for op in policy(text).ops if op.name == name)


def gradient(height=40, width=60):
    """A smooth image, so that interpolation hardly matters."""
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x + y, x + 2 * y, 100 + x - y], axis=-1).astype(np.uint8)


# what timm 1.0.31's LEVEL_TO_ARG returns for magnitude 9, apart from the sign
TIMM_M9 = {
    "Rotate": 27.0, "PosterizeIncreasing": 1, "SolarizeIncreasing": 26, "SolarizeAdd": 99, "ColorIncreasing": 0.81,
    "ContrastIncreasing": 0.81, "BrightnessIncreasing": 0.81, "SharpnessIncreasing": 0.81, "ShearX": 0.27,
    "ShearY": 0.27, "TranslateX": 0.405, "TranslateY": 0.405,
}  # fmt: skip


def test_the_operations_and_magnitudes_are_timms():
    operations = {op.name: op for op in policy("randaug-m9-mstd0.5-inc1").ops}
    assert operations.keys() == TIMM_M9.keys() | {"AutoContrast", "Equalize", "Invert"}
    for name, expected in TIMM_M9.items():
        (value,) = operations[name].level_fn(9, {})
        value = abs(value - 1) if name.endswith("Increasing") and isinstance(value, float) else abs(value)
        assert value == pytest.approx(expected), name
    assert {(op.prob, op.magnitude, op.magnitude_std) for op in operations.values()} == {(0.5, 9, 0.5)}


@pytest.mark.parametrize("factor", [0.27, -0.27])
def test_shears_take_pixels_from_where_timm_takes_them(factor):
    """Pillow's transform with (1, factor, 0, 0, 1, 0) and (1, 0, 0, factor, 1, 0)."""
    image = gradient()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    for sheared, u, v in (
        (shear_x(image, factor, **FILL), x + factor * (y + 0.5), y),
        (shear_y(image, factor, **FILL), x, y + factor * (x + 0.5)),
    ):
        inside = (u > 2) & (u < image.shape[1] - 3) & (v > 2) & (v < image.shape[0] - 3)
        expected = np.stack([2 * u + v, u + 2 * v, 100 + u - v], axis=-1)
        assert inside.mean() > 0.5
        assert np.abs(sheared - expected)[inside].max() < 2.5
        assert np.abs(sheared - image.astype(float))[inside].mean() > 5
        outside = (u < -4) | (u > image.shape[1] + 3) | (v < -4) | (v > image.shape[0] + 3)
        assert (sheared[outside] == FILL["fill_value"]).all()


def test_posterize_keeps_the_bits_that_it_is_to_keep():
    image = gradient()
    for bits in range(1, 9):
        assert (posterize(image, bits) == image // 2 ** (8 - bits) * 2 ** (8 - bits)).all()
    assert (posterize(image, 0) == 0).all()
    posterized = operation("randaug-m9-inc1", "PosterizeIncreasing").aug_fn
    assert set(np.unique(posterized(image, 1, **FILL))) == {0, 128}
    assert (auto_augment.posterize(image, 1) == image // 2 * 2).all()  # MindCV's own: next to nothing


def test_solarize_add_brightens_what_is_dark():
    image = np.array([[0, 100, 127, 128, 255]], np.uint8)
    assert solarize_add(image, 99).tolist() == [[99, 199, 226, 128, 255]]
    assert solarize_add(np.array([127], np.uint8), 128).tolist() == [255]


def test_the_noise_of_the_magnitude_is_what_mstd_says():
    """MindCV takes 0.5 whatever is written."""
    levels = []
    op = operation("randaug-m5-mstd2", "Rotate")
    op.prob, op.level_fn, op.aug_fn = 1.0, lambda level, _: levels.append(level) or (level,), lambda img, *_, **__: img
    random.seed(0)
    for _ in range(2000):
        op(gradient(4, 4))
    assert np.mean(levels) == pytest.approx(5, abs=0.2)
    assert np.std(levels) == pytest.approx(2, abs=0.2)
    assert operation("randaug-m5", "Rotate").magnitude_std == 0
    assert operation("randaug-m5-mstd101", "Rotate").magnitude_std == math.inf


@pytest.mark.parametrize(
    ("text", "increases"), [("randaug-m9-inc0", False), ("randaug-m9", False), ("randaug-inc1", True)]
)
def test_inc_is_heeded(text, increases):
    names = {op.name for op in policy(text).ops}
    assert ("PosterizeIncreasing" in names, "Posterize" in names) == (increases, not increases)


@pytest.mark.parametrize(
    "text", ["autoaug-mstd0.7", "autoaugr", "3a", "trivialaugwide", "augmix", "randaug-w0-n3", "randaug-m9-n2"]
)
def test_every_policy_of_mindcv_runs(text):
    check_transforms(Config(model=ModelConfig(image_size=32), data=DataConfig(auto_augment=text)))


@pytest.mark.parametrize("text", ["randaug-x3", "randaug-w1", "randaug-m9-n0.5"])
def test_what_mindcv_cannot_do_is_refused_by_the_name_of_the_key(text):
    with pytest.raises(UserError, match=rf"data\.auto_augment '{text}': MindCV refuses it: \w+Error"):
        check_transforms(Config(data=DataConfig(auto_augment=text)))
