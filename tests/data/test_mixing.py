"""Normalisation, random erasing, mixup and CutMix of whole batches."""

import numpy as np
import pytest

from src.config import DataConfig
from src.data.mixing import erase, mix, normalise


def images_of(batch=8, size=20, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, 3, size, size), np.float32)


def test_normalised_as_by_mindspores_operator():
    from mindspore.dataset import vision

    config = DataConfig()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype(np.uint8)
    operator = vision.Normalize([255 * mean for mean in config.mean], [255 * std for std in config.std])
    expected = np.stack([operator(image).transpose(2, 0, 1) for image in pixels])
    normalised = normalise(pixels, config)
    assert normalised.dtype == np.float32
    assert np.abs(normalised - expected).max() < 1e-5


@pytest.mark.parametrize("mode", ["const", "pixel"])
def test_erasing_fills_a_rectangle(mode):
    config = DataConfig(random_erasing=1.0, random_erasing_mode=mode)
    shares, values = [], []
    for seed in range(200):
        image = np.full((3, 32, 40), 9.0, np.float32)
        erase(image, config, np.random.default_rng(seed))
        changed = (image != 9).all(0)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert changed.sum() == len(rows) * len(columns)
        shares.append(changed.mean())
        values.append(image[:, changed].ravel())
    values = np.concatenate(values)
    assert 0.015 < min(shares) < 0.05
    assert 0.25 < max(shares) < 0.35
    assert np.mean(shares) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.03)
    if mode == "const":
        assert (values == 0).all()
    else:
        assert values.mean() == pytest.approx(0, abs=0.02)
        assert values.std() == pytest.approx(1, abs=0.02)


def test_erasing_has_its_probability():
    config = DataConfig(random_erasing=0.25)
    erased = 0
    for seed in range(400):
        image = np.ones((3, 16, 16), np.float32)
        erase(image, config, np.random.default_rng(seed))
        erased += image.min() == 0
    assert erased / 400 == pytest.approx(0.25, abs=0.06)


def test_mixup_blends_with_the_reverse():
    images = images_of()
    before = images.copy()
    labels = mix(images, np.arange(8), 8, DataConfig(mixup=0.8), np.random.default_rng(3))
    share = labels[0, 0]
    assert 0 < share < 1
    assert np.allclose(images, share * before + (1 - share) * before[::-1], atol=1e-6)
    assert np.allclose(labels, share * np.eye(8) + (1 - share) * np.eye(8)[::-1])


def test_cutmix_swaps_a_box_and_its_share_of_the_label():
    for seed in range(20):
        images = images_of()
        before = images.copy()
        labels = mix(images, np.arange(8), 8, DataConfig(cutmix=1.0), np.random.default_rng(seed))
        swapped = (images != before).all((0, 1))
        assert (images[:, :, swapped] == before[::-1][:, :, swapped]).all()
        assert (images[:, :, ~swapped] == before[:, :, ~swapped]).all()
        assert labels[0, 0] == pytest.approx(1 - swapped.mean())


def test_mixing_draws_from_timms_distribution():
    """Mixup or CutMix with equal chance, from beta distributions of their alphas, in a share of the batches."""
    config = DataConfig(mixup=0.8, cutmix=1.0, mixup_prob=0.75)
    cut, shares, whole = 0, [], 0
    for seed in range(1500):
        images = images_of(batch=2, size=8)
        before = images.copy()
        labels = mix(images, np.array([0, 1]), 2, config, np.random.default_rng(seed))
        if (images == before).all() and labels[0, 0] == 1:
            whole += 1
        elif (images == before).any():
            cut += 1
        else:
            shares.append(labels[0, 0])
    assert whole / 1500 == pytest.approx(0.25 + 0.1, abs=0.1)  # a box may be empty
    assert len(shares) / 1500 == pytest.approx(0.375, abs=0.05)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.02)
    assert cut > 250
