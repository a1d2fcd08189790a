"""What is told of a crop and a flip, against the pixels that came out of them."""

import numpy as np
import pytest
from mindspore.dataset import vision
from PIL import Image

from src.data.augment import Augmenter, restored_random_state
from src.data.crops import CROP
from tests.helpers.configs import load

POLICY = "data.auto_augment=randaug-m9-mstd0.5-inc1"


def make(tmp_path, *overrides):
    path = tmp_path / "config.yaml"
    path.write_text("model: {image_size: [24, 32]}\ndata: {interpolation: bicubic}")
    return Augmenter(load(path, overrides))


def smooth(height, width, seed=0):
    few = np.random.RandomState(seed).randint(0, 256, (height // 6 + 1, width // 6 + 1, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC))


def cut(pixels, crop, resize):
    """Cut a crop out, within the image, and flip it."""
    height, width = pixels.shape[:2]
    top, left, high, wide = np.rint(crop[:4] * [height, width, height, width]).astype(int)
    assert (np.abs(crop[:4] * [height, width, height, width] - (top, left, high, wide)) < 1e-9).all()
    part = resize(np.ascontiguousarray(pixels[top : top + high, left : left + wide]))
    return part[:, ::-1] if crop[4] else part


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_the_crop_of_a_file_is_told_to_the_pixel(tmp_path, ending):
    """Also of a JPEG, of which MindSpore decodes the crop alone; colours of fewer pixels would differ at its border."""
    augmenter = make(tmp_path)
    resize = vision.Resize((24, 32), vision.Inter.BICUBIC)
    crops, others = [], []
    with restored_random_state():
        for number, (height, width) in enumerate([(40, 61), (61, 40), (47, 300), (300, 30), (9, 9), (1, 12)] * 6):
            file = str(tmp_path / f"{number}.{ending}")
            Image.fromarray(smooth(height, width)).save(file, quality=95, subsampling=0)
            pixels = vision.Decode()(np.fromfile(file, np.uint8))
            crop = augmenter.crop(file, (7, 1, number, 0))
            image = augmenter(file, (7, 1, number, 0)).astype(int)
            distance = np.abs(image - cut(pixels, crop, resize)).mean()
            assert distance == 0
            others.append(np.abs(image - cut(pixels, augmenter.crop(file, (8, 1, number, 0)), resize)).mean())
            crops.append(crop)
    assert np.mean(others) > 10  # another crop would have been seen
    assert {crop[4] for crop in crops} == {0, 1}
    assert len({tuple(crop) for crop in crops}) > 20


@pytest.mark.parametrize("flips", ["0.5", "0", "1"])
def test_the_crop_of_a_cifar_image_may_reach_into_its_padding(tmp_path, flips):
    augmenter = make(tmp_path, "data.name=cifar10", "data.val_split=test", "model.image_size=32", f"data.hflip={flips}")
    pixels = smooth(32, 32)
    padded = np.pad(pixels, ((4, 4), (4, 4), (0, 0)))
    crops = []
    with restored_random_state():
        for number in range(30):
            crop = augmenter.crop(pixels, (7, 1, number, 0))
            shifted = crop * [32 / 40, 32 / 40, 32 / 40, 32 / 40, 1] + [0.1, 0.1, 0, 0, 0]
            assert (augmenter(pixels, (7, 1, number, 0)) == cut(padded, shifted, lambda part: part)).all()
            crops.append(crop)
    crops = np.array(crops)
    assert (crops[:, 2:4] == 1).all()
    assert crops[:, :2].min() == -4 / 32
    assert crops[:, :2].max() == 4 / 32
    assert set(crops[:, 4]) == {"0.5": {0, 1}, "0": {0}, "1": {1}}[flips]


@pytest.mark.parametrize("overrides", [[], ["data.name=cifar10", "data.val_split=test", "model.image_size=48"]])
def test_asking_for_crops_changes_no_pixel_and_a_policy_no_crop(tmp_path, overrides):
    augmenter, plain = make(tmp_path, *overrides, POLICY), make(tmp_path, *overrides)
    items = [smooth(32, 32, seed) for seed in range(6)]
    if not overrides:
        for number, pixels in enumerate(items):
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        items = [str(tmp_path / f"{number}.png") for number in range(6)]
    keys = [(3, 1, number, 0) for number in range(6)]
    shape = (6, 48, 48, 3) if overrides else (6, 24, 32, 3)
    with_crops, without = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    crops, others = np.zeros((6, CROP)), np.zeros((6, CROP))
    with restored_random_state():
        augmenter.fill(with_crops, items, keys, crops)
        augmenter.fill(without, items, keys)
        plain.fill(np.zeros_like(without), items, keys, others)
    assert (with_crops == without).all()
    assert (crops == others).all()
    assert (crops != 0).any()
