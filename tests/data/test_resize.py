"""`data.resize: pil` gives the pixels of Pillow and torchvision, of validation and of files; `mindspore` does not."""

import numpy as np
import pytest
from PIL import Image

from src.data import datasets, loaders
from src.data.resize import PillowResize
from tests.helpers.configs import load


def expected(file, size=(32, 32), crop_pct=0.8):
    """Decode, resize the shorter side and crop the centre, with Pillow alone: float64 [3, H, W] of 0 to 255."""
    image = Image.open(file).convert("RGB")
    (width, height), scaled = image.size, int(size[0] / crop_pct)
    shape = (scaled, int(scaled * height / width)) if width < height else (int(scaled * width / height), scaled)
    image = image.resize(shape, Image.Resampling.BICUBIC)
    left, top = round((image.width - size[1]) / 2), round((image.height - size[0]) / 2)
    return np.asarray(image.crop((left, top, left + size[1], top + size[0])), np.float64).transpose(2, 0, 1)


@pytest.mark.parametrize("resize", ["pil", "mindspore"])
def test_pixels_of_validation(tmp_path, photos, resize):
    path = tmp_path / "config.yaml"
    path.write_text("data: {batch_size: 6, workers: 1, mean: [0, 0, 0], std: [1, 1, 1]}\nmodel: {image_size: 32}")
    config = load(path, [f"data.root={photos}", f"data.resize={resize}", "data.crop_pct=0.8"])
    files = sorted((photos / "val").glob("*/*"), key=lambda file: (file.parent.name, file.name))
    pillow = np.stack([expected(file) for file in files])
    loaded, _ = loaders.val_images(datasets.open_dataset(config.data, ("val",)), config, range(len(files)))
    for pixels in (loaded, loaders.read_images(files, config)):
        difference = np.abs(255 * pixels - pillow).reshape(len(files), -1).max(1)
        assert (difference.max() < 0.01) == (resize == "pil")
        assert (difference.min() > 1) == (resize == "mindspore")


@pytest.mark.parametrize("resize", ["pil", "mindspore"])
def test_pixels_of_files_for_a_network_of_cifars(tmp_path, photos, resize):
    """A file is first made 32x32 pixels, as the set's images are, and those the network's size."""
    path = tmp_path / "config.yaml"
    path.write_text("data: {name: cifar10, val_split: test, mean: [0, 0, 0], std: [1, 1, 1]}\nmodel: {image_size: 48}")
    config = load(path, [f"data.resize={resize}"])
    file = sorted((photos / "val/bee").glob("*"))[1]
    image = Image.open(file).convert("RGB")
    for side in (32, 48):
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    difference = np.abs(255 * loaders.read_images([file], config)[0].transpose(1, 2, 0) - np.asarray(image)).max()
    assert (difference < 0.01) == (resize == "pil")


def test_sizes_and_crops_are_rounded_as_torchvision_rounds():
    assert PillowResize(255, "bicubic").resized(300, 400) == (255, 340)
    assert PillowResize(255, "bicubic").resized(401, 300) == (340, 255)
    assert PillowResize((7, 9), "bicubic").resized(401, 300) == (7, 9)
    rows = np.repeat(np.arange(255, dtype=np.uint8)[:, None, None], 255, 1).repeat(3, 2)
    for crop, first in ((224, 16), (238, 8)):  # 15.5 and 8.5 become even numbers
        part = PillowResize(255, "nearest", (crop, crop))(rows)
        assert (part.shape, part[0, 0, 0]) == ((crop, crop, 3), first)
