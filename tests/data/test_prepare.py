"""Images prepared without MindSpore are those that validation sees."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from src.config import Config, DataConfig, ModelConfig
from src.data.loaders import read_images
from src.data.prepare import Preparation, decode
from src.errors import UserError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Noise of odd sizes and of every kind of pixels."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.RandomState(0)
    for number, mode in enumerate(["RGB", "L", "RGBA", "P", "LA", "CMYK", "1", "RGB", "RGB"]):
        size = (8, 8) if number == 8 else tuple(random.randint(20, 90, 2))
        image = Image.fromarray(random.randint(0, 256, (*size, 4)).astype(np.uint8), "RGBA").convert(mode)
        image.save(folder / f"{number}.{'jpg' if mode in ('CMYK', 'L') else 'bmp' if number == 7 else 'png'}")
    Image.fromarray(random.randint(0, 2**16, (30, 41)).astype(np.uint16)).save(folder / "deep.png")
    turned = Image.fromarray(random.randint(0, 256, (30, 41, 3)).astype(np.uint8))
    orientation = turned.getexif()
    orientation[0x112] = 6
    turned.save(folder / "turned.jpg", exif=orientation)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("resize", ["mindspore", "pil"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize(("name", "image_size"), [("folder", 16), ("folder", (32, 48)), ("cifar10", 24)])
def test_pixels_are_those_of_validation(files, resize, interpolation, name, image_size):
    data = DataConfig(name=name, resize=resize, interpolation=interpolation, crop_pct=0.8)
    config = Config(model=ModelConfig(image_size=image_size, patch_size=8), data=data)
    expected = read_images(files, config)
    preparation = Preparation.read(Preparation.of(config).text())
    assert preparation == Preparation.of(config)
    found = preparation.inputs(np.stack([preparation.pixels(file) for file in files]))
    difference = np.abs(found - expected) * np.reshape(data.std, (3, 1, 1)) * 255
    assert difference.max() < 1.001, "of 255"
    exact = resize == "pil" or interpolation == "nearest"
    assert (difference > 0.01).mean() <= (0 if exact else 5e-3)


def test_another_resize_gives_other_pixels(files):
    mindspore = Preparation.of(Config())
    pil = dataclasses.replace(mindspore, resize="pil")
    assert np.abs(mindspore.pixels(files[0]).astype(int) - pil.pixels(files[0])).mean() > 1


def test_what_cannot_be_decoded_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"image .*a\.png cannot be used: empty file"):
        decode(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"image .*b\.png cannot be read: No such file"):
        decode(tmp_path / "b.png")
