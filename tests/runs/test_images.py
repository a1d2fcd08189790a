"""A run is resumed on the images that it began with, by as many processes."""

from dataclasses import replace

import pytest
from PIL import Image

from src.data.datasets import names_digest, open_dataset
from src.errors import UserError
from src.runs.images import RunImages, read_images
from tests.helpers.configs import load

BEGUN = RunImages(2, {"train": 8, "val": 2}, "digest", {"train": [3]})


def test_they_are_read_as_they_were_written(tmp_path):
    assert read_images(tmp_path / "images.json") is None
    BEGUN.write(tmp_path / "images.json")
    assert read_images(tmp_path / "images.json") == BEGUN
    (tmp_path / "images.json").write_text('{"processes": 2')
    assert read_images(tmp_path / "images.json") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processes": 1}, "the run R was trained by 2 processes, not 1; resume it with as many"),
        (
            {"counts": {"train": 9, "val": 2}},
            "was trained on 8 train and 2 val images, and data.root has 9 train and 2",
        ),
        ({"names": "other"}, "data.root has 8 train and 2 val, of other names; put back those that it began with"),
    ],
)
def test_other_processes_or_images_are_refused(change, message):
    replace(BEGUN, left_out={}).check_continues(BEGUN, "R")
    with pytest.raises(UserError, match=message):
        replace(BEGUN, left_out={}, **change).check_continues(BEGUN, "R")


def test_a_file_that_is_added_to_a_folder_with_a_held_out_part_is_noticed(tmp_path):
    """Moved elsewhere the images are the same."""
    root = tmp_path / "images"
    for label in "ab":
        for number in range(10):
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4)).save(root / label / f"{number}.png")
    (tmp_path / "config.yaml").write_text("data: {batch_size: 4}")

    def digest(folder):
        return names_digest(open_dataset(load(tmp_path / "config.yaml", [f"data.root={folder}"]).data))

    before = digest(root)
    root.rename(tmp_path / "moved")
    assert digest(tmp_path / "moved") == before
    (tmp_path / "moved" / "a" / "5.png").rename(tmp_path / "moved" / "a" / "5x.png")
    assert digest(tmp_path / "moved") != before
