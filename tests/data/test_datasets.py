"""What a data set and a model say about one another."""

import dataclasses
import logging
import os
import shutil

import pytest

from src.config import Config, DataConfig
from src.data import transforms
from src.data.datasets import open_dataset
from src.data.transforms import check_transforms
from src.errors import UserError


def opened(photos):
    return open_dataset(DataConfig(root=str(photos), batch_size=2))


def test_fewer_classes_than_outputs_are_said(photos, caplog):
    dataset = opened(photos)
    with caplog.at_level(logging.WARNING, logger="skipvit"):
        dataset.warn_of_unused_outputs(3)
        assert caplog.text == ""
        dataset.warn_of_unused_outputs(1000)
    assert "has 3 classes, the model 1000 outputs: labels are the first 3" in caplog.text
    assert "train with model.num_classes=null" in caplog.text


def test_classes_are_compared_with_those_that_were_trained(photos):
    dataset = opened(photos)
    dataset.check_classes((), "a file of weights")  # unknown
    dataset.check_classes(("ant", "bee", "cat"), "a.ckpt")
    with pytest.raises(UserError, match=r"not those of a\.ckpt: only in the training: dog; only in the data: cat; set"):
        dataset.check_classes(("ant", "bee", "dog"), "a.ckpt")
    with pytest.raises(UserError, match="the same ones in another order"):
        dataset.check_classes(("bee", "ant", "cat"), "a.ckpt")


@pytest.mark.parametrize("name", ["a\nb", "a\x0cb", "a\x85b", "a\u2028b", "\x1b[2J", b"\xe9"])
def test_a_class_name_that_is_no_line_of_text_is_refused(tmp_path, photos, name):
    shutil.copytree(photos, tmp_path / "copy")
    for split in ("train", "val"):
        folder = tmp_path / "copy" / split
        (folder / "cat").rename(folder / (name if isinstance(name, str) else os.fsdecode(name)))
    with pytest.raises(UserError, match="its name is not one line of text in UTF-8; rename it"):
        opened(tmp_path / "copy")


def test_what_is_not_used_is_counted(tmp_path, photos):
    assert opened(photos).remarks == ()
    shutil.copytree(photos, tmp_path / "copy")
    for name in ("ant/a.webp", "ant/b.webp", "bee/README", "ant/.hidden"):
        (tmp_path / "copy/train" / name).touch()
    (tmp_path / "copy/train/cat/nested").mkdir()
    (tmp_path / "copy/train/dog").mkdir()
    remark = f"not used of {tmp_path}/copy/train: 2 file(s) .webp, "
    (said,) = opened(tmp_path / "copy").remarks
    assert said.startswith(remark)
    assert set(said.removeprefix(remark).split(", ")) == {
        "1 file(s) without ending", "1 folder(s) in class folders", "1 class folder(s) without images"}  # fmt: skip


def test_training_images_for_validation_and_one_class_are_said(tmp_path, photos):
    dataset = open_dataset(DataConfig(root=str(photos), batch_size=2, val_split="train"))
    assert dataset.remarks == ("data.val_split is data.train_split, train: top-1 is that of the training images",)
    for split in ("train", "val"):
        shutil.copytree(photos / split / "ant", tmp_path / split / "ant")
    with pytest.raises(UserError, match="has one class, ant; there is nothing to tell apart"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"auto_augment": "randaug-m9"}, r"data\.auto_augment 'randaug-m9': MindCV refuses it: ValueError: no"),
        ({"color_jitter": 0.4}, r"data\.color_jitter 0\.4: MindCV refuses it: ValueError: no; set another, or null"),
    ],
)
def test_the_key_that_is_refused_is_named(monkeypatch, data, message):
    def refuse(*given, **named):
        raise ValueError("no")

    monkeypatch.setattr(transforms, "create_transforms", refuse)
    with pytest.raises(UserError, match=message):
        check_transforms(dataclasses.replace(Config(), data=DataConfig(**data)))
    check_transforms(Config())  # nothing to refuse
