"""Loaders: layouts, refusals, and what comes out of them."""

import os
import shutil

import numpy as np
import pytest

from src.data import datasets, loaders
from src.data.training import TrainingData
from src.errors import UserError
from src.runtime import device
from tests.helpers.configs import load


def make(tmp_path, *overrides):
    path = tmp_path / "config.yaml"
    path.write_text("data: {batch_size: 6, workers: 1}\nmodel: {image_size: 32}")
    return load(path, overrides)


def batches(loader):
    return list(loader.create_tuple_iterator(num_epochs=1, output_numpy=True))


def train_batches(source, config, classes, epoch=1, done=0):
    with TrainingData(source, config, classes) as data:
        return list(data.epoch(epoch, done))


def test_imagenet_layout(tmp_path, photos):
    config = make(tmp_path, f"data.root={photos}")
    source = datasets.open_dataset(config.data)
    assert source.classes == ("ant", "bee", "cat")
    assert (source.splits["train"].num_images, source.splits["val"].num_images) == (18, 9)
    train = train_batches(source, config, 3)
    assert [(x.shape, x.dtype, y.shape, y.dtype) for x, y in train] == 3 * [
        ((6, 3, 32, 32), np.float32, (6,), np.int32)
    ]
    assert sorted(np.concatenate([y for _, y in train])) == [0] * 6 + [1] * 6 + [2] * 6
    val = batches(loaders.val_loader(source, config))
    assert [len(x) for x, _ in val] == [6, 3]
    for images, labels in val:
        for image, label in zip(images, labels):
            if image.std(0).max() > 0.3:  # not a greyscale one
                assert image.mean((1, 2)).argmax() == label  # the class is the colour


def test_class_folders_without_splits_hold_out_a_fixed_part(tmp_path, photos):
    config = make(tmp_path, f"data.root={photos / 'train'}", "data.val_fraction=0.3")
    source = datasets.open_dataset(config.data)
    train, val = source.splits["train"], source.splits["val"]
    assert (train.num_images, val.num_images) == (13, 5)
    assert sorted(train.indices + val.indices) == list(range(18))
    assert datasets.open_dataset(config.data) == source
    assert datasets.open_dataset(config.data, splits=("val",)).splits["val"] == val
    device.set_seeds(0, 1)
    assert sum(len(x) for x, _ in batches(loaders.val_loader(source, config))) == 5
    assert len(train_batches(source, config, 3)) == 2


def test_order_and_augmentation_follow_from_seed_and_epoch(tmp_path, photos):
    source = datasets.open_dataset(make(tmp_path, f"data.root={photos}").data)

    def epoch(seed, number):
        config = make(tmp_path, f"data.root={photos}", f"train.seed={seed}")
        device.set_seeds(seed, number)
        return np.concatenate([x for x, _ in train_batches(source, config, 3, number)])

    assert (epoch(0, 1) == epoch(0, 1)).all()
    assert (epoch(0, 1) != epoch(0, 2)).any()
    assert (epoch(0, 1) != epoch(1, 1)).any()


def test_the_deit_recipe_mixes_labels(tmp_path, photos):
    config = make(
        tmp_path, f"data.root={photos}", "data.mixup=0.8", "data.cutmix=1.0", "data.random_erasing=0.25",
        "data.auto_augment=randaug-m9-mstd0.5-inc1", "data.interpolation=bicubic",
    )  # fmt: skip
    source = datasets.open_dataset(config.data)
    for images, labels in train_batches(source, config, 3):
        assert images.dtype == labels.dtype == np.float32
        assert np.isfinite(images).all()
        assert labels.shape == (6, 3)
        assert np.allclose(labels.sum(1), 1)
        assert ((labels > 0) & (labels < 1)).any()


def write_cifar(path, header, images=10_000):
    """Black images, of validation as many as MindSpore demands; the header's last byte counts from 0 to 9 or 99."""
    records = np.zeros((images, header + 3072), np.uint8)
    records[:, header - 1] = np.arange(images) % (10 if header == 1 else 100)
    records.tofile(path)


@pytest.mark.parametrize(("name", "header", "classes"), [("cifar10", 1, 10), ("cifar100", 2, 100)])
def test_cifar_in_its_binary_layout(tmp_path, name, header, classes):
    write_cifar(tmp_path / datasets.CIFAR_FILES[name, "test"][0], header)
    write_cifar(tmp_path / datasets.CIFAR_FILES[name, "train"][0], header, images=500)
    options = ["data.val_split=test", "data.auto_augment=randaug-m9", "data.batch_size=100", "model.image_size=48"]
    config = make(tmp_path, f"data.root={tmp_path}", f"data.name={name}", *options)
    source = datasets.open_dataset(config.data)
    assert len(source.classes) == classes
    train = train_batches(source, config, classes)
    assert [x.shape for x, _ in train] == 5 * [(100, 3, 48, 48)]
    assert (np.sort(np.concatenate([y for _, y in train])) == np.sort(np.arange(500) % classes)).all()
    labels = np.concatenate([y for _, y in batches(loaders.val_loader(source, config))])
    assert (labels == np.arange(10_000) % classes).all()


def test_digits_are_written_once_as_an_image_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make(tmp_path, "model.image_size=16", "data.crop_pct=1.0")
    source = datasets.open_dataset(config.data)
    assert (source.splits["train"].num_images, source.splits["val"].num_images) == (1437, 360)
    assert len(source.classes) == 10
    stamp = (tmp_path / "data/digits").stat().st_mtime_ns
    assert datasets.open_dataset(config.data) == source
    assert (tmp_path / "data/digits").stat().st_mtime_ns == stamp
    assert os.listdir(tmp_path / "data") == ["digits"]
    assert batches(loaders.val_loader(source, config))[0][0].shape == (6, 3, 16, 16)


def test_even_and_odd_digits_are_the_same_images_with_the_same_ones_held_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits, parity = (
        datasets.open_dataset(make(tmp_path, f"data.root={root}").data)
        for root in ("sklearn:digits", "sklearn:digits-parity")
    )
    assert parity.classes == ("even", "odd")
    for split in ("train", "val"):
        told = [
            {
                path.name: (path.parent.name, path.read_bytes())
                for path in datasets.files_of(data.splits[split], data.classes)
            }
            for data in (digits, parity)
        ]
        expected = {name: (("even", "odd")[int(digit) % 2], image) for name, (digit, image) in told[0].items()}
        assert told[1] == expected


def test_missing_and_empty_folders_are_refused(tmp_path, photos):
    def refused(*overrides):
        with pytest.raises(UserError) as error:
            datasets.open_dataset(make(tmp_path, *overrides).data)
        return str(error.value)

    assert "nowhere is not a folder" in refused(f"data.root={tmp_path}/nowhere")
    (tmp_path / "none").mkdir()
    assert "no folder train, and no class folders with images" in refused(f"data.root={tmp_path}/none")
    (tmp_path / "none" / "train" / "ant").mkdir(parents=True)
    assert "none has no folder val; set" in refused(f"data.root={tmp_path}/none")
    (tmp_path / "none" / "val" / "ant").mkdir(parents=True)
    assert "train holds no images" in refused(f"data.root={tmp_path}/none")
    assert "exceeds the 18 training images" in refused(f"data.root={photos}", "data.batch_size=20")
    assert "no data_batch_1.bin" in refused(f"data.root={photos}", "data.name=cifar10", "data.val_split=test")


def test_splits_of_different_classes_are_refused(tmp_path, photos):
    shutil.copytree(photos, tmp_path / "copy")
    shutil.move(tmp_path / "copy/val/cat", tmp_path / "copy/val/dog")
    with pytest.raises(UserError, match="different classes: only in train: cat; only in val: dog"):
        datasets.open_dataset(make(tmp_path, f"data.root={tmp_path}/copy").data)


def test_more_classes_than_outputs_are_refused(tmp_path, photos):
    source = datasets.open_dataset(make(tmp_path, f"data.root={photos}").data)
    source.check_fits(3)
    with pytest.raises(UserError, match=r"set model\.num_classes=3"):
        source.check_fits(2)


def test_more_workers_than_cores_are_as_many_as_there_are(tmp_path, photos):
    config = make(tmp_path, f"data.root={photos}", "data.workers=512")
    assert len(batches(loaders.val_loader(datasets.open_dataset(config.data), config))) == 2
