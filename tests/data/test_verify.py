"""The look at every image before training: every kind of damage is found, and odd images that can be used are."""

import io
import logging
import os
import tracemalloc

import numpy as np
import pytest
from mindspore.dataset import vision
from PIL import Image

from src.data import datasets, loaders, verify
from src.errors import RunError, UserError
from src.runtime.distributed import SINGLE_PROCESS
from tests.helpers.configs import load


@pytest.fixture
def folder(tmp_path):
    """Two classes of 30 images each; the value of image i is 4 i, and so it can be told where it went."""
    root = tmp_path / "images"
    for split in ("train", "val"):
        for label, name in enumerate(("a", "b")):
            (root / split / name).mkdir(parents=True)
            for i in range(30):
                pixels = np.full((8, 8, 3), 4 * (30 * label + i), np.uint8)
                Image.fromarray(pixels).save(
                    root / split / name / f"{i * 7919 % 1000:03d}.{('png', 'jpg', 'bmp')[i % 3]}"
                )
    return root


def source_of(folder, tmp_path, *options):
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{root: {folder}, batch_size: 4, workers: 1}}\nmodel: {{image_size: 8}}")
    config = load(config, options)
    return config, datasets.open_dataset(config.data)


def damages(good):
    """Contents that cannot be decoded, of 10 kinds, from a good JPEG's."""
    random = np.random.RandomState(0)
    png = b"\x89PNG\r\n\x1a\n"
    yield b""
    yield b"\0" * len(good)
    yield random.bytes(500)
    yield b"<html>not found</html>"
    yield png + random.bytes(100)
    yield good[:2]
    yield good[: len(good) // 2]
    yield good[: len(good) - len(good) // 4]
    yield b"GIF89a" + random.bytes(50)
    yield b"BM" + b"\xff" * 60


def big_jpeg(tmp_path):
    path = tmp_path / "noise.jpg"
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8)).save(path)
    return path.read_bytes()


def test_every_damaged_image_is_found(folder, tmp_path):
    kinds = list(damages(big_jpeg(tmp_path)))
    spoilt = {}
    for split in ("train", "val"):
        for name in ("a", "b"):
            for path, content in zip(sorted((folder / split / name).iterdir()), kinds):
                path.write_bytes(content)
                spoilt[str(path)] = content
    assert len(spoilt) == 40
    config, source = source_of(folder, tmp_path)
    with pytest.raises(UserError, match=r"40 images cannot be used: .*; .*; .* and 37 more; .*data\.on_bad_image=skip"):
        verify.verify_images(source, "error", tmp_path / "cache")
    checked, lines, _ = verify.verify_images(source, "skip", tmp_path / "cache")
    assert {line.split(": ")[0] for line in lines} == spoilt.keys()
    assert (checked.splits["train"].num_images, checked.splits["val"].num_images) == (40, 40)
    loader = loaders.val_loader(checked, config)
    found = np.concatenate([images for images, _ in loader.create_tuple_iterator(num_epochs=1, output_numpy=True)])
    assert len(found) == 40  # all that is left can be decoded


def test_places_are_those_of_the_files(folder, tmp_path):
    """The first file of each class is damaged: what is left is the rest, in the order that MindSpore has them in."""
    for name in ("a", "b"):
        sorted((folder / "val" / name).iterdir())[0].write_bytes(b"")
    plain = ["data.mean=[0.0,0.0,0.0]", "data.std=[1.0,1.0,1.0]", "data.crop_pct=1.0"]
    config, source = source_of(folder, tmp_path, *plain)
    checked, _, _ = verify.verify_images(source, "skip", tmp_path / "cache")
    loader = loaders.val_loader(checked, config)
    seen = [
        (round(float(image.mean()) * 255), int(label))
        for images, labels in loader.create_tuple_iterator(num_epochs=1, output_numpy=True)
        for image, label in zip(images, labels)
    ]
    files = datasets.files_of(checked.splits["val"], checked.classes)
    assert len(files) == 58
    for (value, label), path in zip(seen, files):
        expected = int(np.asarray(Image.open(path).convert("RGB")).mean().round())
        assert abs(value - expected) <= 2, path
        assert label == ("a", "b").index(path.parent.name)


def test_what_was_found_is_remembered_until_a_file_changes(folder, tmp_path, monkeypatch):
    _, source = source_of(folder, tmp_path)
    looked = []
    look = verify.decode_error
    monkeypatch.setattr(verify, "decode_error", lambda path: looked.append(path) or look(path))
    verify.verify_images(source, "error", tmp_path / "cache")
    assert len(looked) == 120
    verify.verify_images(source, "error", tmp_path / "cache")
    assert len(looked) == 120
    changed = next((folder / "val" / "a").iterdir())
    os.utime(changed, (1, 1))
    verify.verify_images(source, "error", tmp_path / "cache")
    assert looked[120:] == [str(changed)]
    for remembered in (tmp_path / "cache").glob("decoded/*/*"):
        remembered.write_text("{damaged")
    verify.verify_images(source, "error", tmp_path / "cache")
    assert len(looked) == 241


def test_a_look_that_is_killed_is_continued(folder, tmp_path, monkeypatch):
    _, source = source_of(folder, tmp_path)
    looked = []
    look = verify.decode_error

    def look_and_die(path):
        looked.append(path)
        if len(looked) == 50:
            raise SystemExit
        return look(path)

    monkeypatch.setattr(verify.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(verify, "decode_error", look_and_die)
    with pytest.raises(SystemExit):
        verify.verify_images(source, "error", tmp_path / "cache")
    verify.verify_images(source, "error", tmp_path / "cache")
    assert 120 < len(looked) <= 124


def test_a_cache_that_cannot_be_written_is_a_warning(folder, tmp_path, caplog):
    _, source = source_of(folder, tmp_path)
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, logger="skipvit"):
        verify.verify_images(source, "error", tmp_path / "file" / "cache")
    assert caplog.text.count("the next start decodes the images again") == 2  # once a split


def test_the_memory_of_a_look_is_bounded(tmp_path, monkeypatch):
    """200 bytes an image beside their names, of 20,000 that are not there; it was 2,150."""
    files = [f"{tmp_path}/{number}.png" for number in range(20_000)]
    monkeypatch.setattr(verify, "decode_error", lambda path: None)
    split = datasets.Split(tmp_path, "", len(files))

    def peak(cache):
        tracemalloc.start()
        try:
            assert verify._find_bad(files, "train", verify._Seen(cache, split), SINGLE_PROCESS) == {}
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # what a thread that another test has left allocates meanwhile counts too, but not in every attempt
    assert min(peak(tmp_path / f"cache{attempt}") for attempt in range(3)) < 200 * len(files)


def spoilt_pngs():
    """PNG files that Pillow takes, and MindSpore's decoder does not."""
    stream = io.BytesIO()
    pixels = np.random.RandomState(0).randint(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    for missing in range(1, 13):  # of the last chunk, which says that the image is over
        yield stream.getvalue()[:-missing]
    Image.fromarray(pixels).convert("P").save(palette := io.BytesIO(), "PNG")
    begin = palette.getvalue().index(b"PLTE") - 4
    yield palette.getvalue()[:begin] + palette.getvalue()[begin + 12 + 768 :]


def test_what_the_decoder_of_training_refuses_is_refused(tmp_path):
    accepted_by_pillow = 0
    for content in spoilt_pngs():
        (tmp_path / "x.png").write_bytes(content)
        try:
            Image.open(tmp_path / "x.png").load()
            accepted_by_pillow += 1
        except OSError:
            pass
        with pytest.raises(RuntimeError):
            vision.Decode()(np.frombuffer(content, np.uint8))
        assert verify.decode_error(tmp_path / "x.png"), len(content)
    assert accepted_by_pillow > 5


def test_a_phones_jpeg_of_two_pictures_is_taken(folder, tmp_path):
    red = Image.new("RGB", (8, 8), (200, 0, 0))
    red.save(folder / "val" / "a" / "phone.jpg", format="MPO", save_all=True, append_images=[red])
    _, source = source_of(folder, tmp_path)
    assert Image.open(folder / "val" / "a" / "phone.jpg").format == "MPO"
    assert verify.verify_images(source, "error", tmp_path / "cache")[1] == []


def test_a_file_named_by_its_ending_alone_has_a_number_of_its_own(folder, tmp_path):
    """MindSpore counts `.png` among the images; the values tell that every label belongs to its image."""
    Image.new("RGB", (8, 8), (255, 255, 255)).save(folder / "val" / "a" / ".png", format="PNG")
    plain = ["data.mean=[0.0,0.0,0.0]", "data.std=[1.0,1.0,1.0]", "data.crop_pct=1.0"]
    config, source = source_of(folder, tmp_path, *plain)
    assert source.splits["val"].num_images == 61
    loader = loaders.val_loader(source, config)
    images = np.concatenate([x for x, _ in loader.create_tuple_iterator(num_epochs=1, output_numpy=True)])
    files = datasets.files_of(source.splits["val"], source.classes)
    for image, path in zip(images, files):
        assert abs(float(image.mean()) * 255 - np.asarray(Image.open(path).convert("RGB")).mean()) <= 2, path


def test_an_image_that_goes_bad_during_a_run_leaves_the_others_their_numbers(folder, tmp_path):
    """One was left out from the beginning and stays so; another of the same class stands in for the one that went."""
    first, second, *_ = sorted((folder / "train" / "a").iterdir())
    content = first.read_bytes()
    first.write_bytes(b"")
    _, source = source_of(folder, tmp_path)
    begun, _, left_out = verify.verify_images(source, "skip", tmp_path / "cache")
    assert left_out == {"train": [0], "val": []}
    first.write_bytes(content)
    second.write_bytes(b"")
    with pytest.raises(UserError, match=r"1 image cannot be used: .*; mend or remove them, or set data\.on_bad_image"):
        verify.verify_images(source, "error", tmp_path / "cache", left_out=left_out)
    resumed, lines, again = verify.verify_images(source, "skip", tmp_path / "cache", left_out=left_out)
    assert again == left_out
    assert lines == [f"{second}: empty file"]
    before, after = (datasets.files_of(data.splits["train"], data.classes) for data in (begun, resumed))
    assert (len(after), after[1:]) == (len(before), before[1:])
    assert before[0] == second
    assert after[0] == before[1]


def test_odd_images_are_decoded_right(folder, tmp_path):
    """Greyscale, palette, alpha, 16 bits, CMYK, rotated by EXIF, and a wrong ending: all are red, whatever they are."""
    red = Image.new("RGB", (8, 8), (200, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    odd = {
        "palette.png": red.convert("P"), "alpha.png": red.convert("RGBA"), "cmyk.jpg": red.convert("CMYK"),
        "rotated.jpg": red, "grey.png": red.convert("L"), "one_bit.png": Image.new("1", (8, 8), 1),
        "sixteen.png": Image.fromarray(np.full((8, 8), 40000, np.uint16)),
    }  # fmt: skip
    target = folder / "val" / "b"
    for path in target.iterdir():
        path.unlink()
    for name, image in odd.items():
        image.save(target / name, **({"exif": exif} if name == "rotated.jpg" else {}))
    red.save(target / "wrong.jpg", format="PNG")
    plain = ["data.mean=[0.0,0.0,0.0]", "data.std=[1.0,1.0,1.0]", "data.crop_pct=1.0"]
    config, source = source_of(folder, tmp_path, *plain)
    checked, lines, _ = verify.verify_images(source, "error", tmp_path / "cache")
    assert lines == []
    loader = loaders.val_loader(checked, config)
    means = {}
    images = np.concatenate([x for x, _ in loader.create_tuple_iterator(num_epochs=1, output_numpy=True)])
    for path, image in zip(datasets.files_of(checked.splits["val"], checked.classes), images):
        means[path.name] = [round(255 * float(channel.mean())) for channel in image]
    for name in ("palette.png", "alpha.png", "cmyk.jpg", "rotated.jpg", "wrong.jpg"):
        r, g, b = means[name]
        assert abs(r - 200) < 12, (name, means)
        assert max(g, b) < 12, (name, means)
    assert len(set(means["grey.png"])) == 1
    assert means["one_bit.png"] == [255, 255, 255]
    assert abs(means["sixteen.png"][0] - 40000 / 257) <= 2


def test_huge_images_are_not_decoded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "LARGEST", 63)
    _, source = source_of(folder, tmp_path)
    with pytest.raises(UserError, match=r"none of the 60 images of .* can be decoded"):
        verify.verify_images(source, "skip", tmp_path / "cache")


def test_a_warning_says_how_many_are_left_out(folder, tmp_path, caplog):
    next((folder / "val" / "a").iterdir()).write_bytes(b"")
    _, source = source_of(folder, tmp_path)
    with caplog.at_level(logging.WARNING, logger="skipvit"):
        verify.verify_images(source, "skip", tmp_path / "cache")
    assert "left out: 1 image that cannot be used" in caplog.text


def test_without_the_look_a_damaged_image_is_named_when_it_turns_up(folder, tmp_path):
    bad = next((folder / "val" / "a").iterdir())
    bad.write_bytes(b"no image")
    config, source = source_of(folder, tmp_path)
    with pytest.raises(RunError, match=rf"the data cannot be read: .*{bad}"):
        list(loaders.batches(loaders.val_loader(source, config)))
