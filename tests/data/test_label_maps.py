"""Label maps: RoIAlign against a reference of its own, batches with and without maps, and what is refused."""

import json
import math

import numpy as np
import pytest

from src.data import loaders
from src.data.datasets import open_dataset
from src.data.label_maps import ARRAY, FACTS, Facts, LabelMaps, matrices, training_digest, write
from src.data.training import TrainingData
from src.errors import RunError, UserError
from tests.helpers.configs import load

RECIPE = ["data.auto_augment=randaug-m9-mstd0.5-inc1", "data.random_erasing=0.5", "data.repeats=2"]
GRID = (5, 7)
CLASSES = ("ant", "bee", "cat")


def make(tmp_path, photos, *overrides):
    path = tmp_path / "config.yaml"
    path.write_text(
        f"data: {{root: {photos}, batch_size: 6, workers: 1}}\nmodel: {{image_size: [32, 48], backbone: lvvit}}"
    )
    config = load(path, overrides)
    return config, open_dataset(config.data)


def some_maps(images=18, seed=0):
    random = np.random.RandomState(seed)
    maps = np.zeros((images, 2, 5, *GRID), np.float16)  # there are three classes
    maps[:, 0, :3], maps[:, 1, :3] = random.randn(images, 3, *GRID), np.argsort(random.rand(images, 3, *GRID), axis=1)
    return maps


def facts_of(source, **changes):
    facts = {"images": 18, "grid": GRID, "classes": CLASSES, "digest": training_digest(source), "model": "a test"}
    return Facts(**{**facts, **changes})


@pytest.fixture
def maps(tmp_path, photos):
    folder = tmp_path / "maps"
    _, source = make(tmp_path, photos)
    write(folder, facts_of(source), [some_maps()[:7], some_maps()[7:]])
    return folder


def roi_align(image, box, rows, columns):
    """One channel [h, w]: as torchvision's RoIAlign, aligned, of a box (left, top, right, bottom) in places."""
    left, top, right, bottom = (side - 0.5 for side in box)
    high, wide = (bottom - top) / rows, (right - left) / columns
    down, across = max(math.ceil(high), 1), max(math.ceil(wide), 1)
    out = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            for a in range(down):
                for b in range(across):
                    y = top + (i + (a + 0.5) / down) * high
                    x = left + (j + (b + 0.5) / across) * wide
                    out[i, j] += interpolated(image, y, x) / (down * across)
    return out


def interpolated(image, y, x):
    y, x = (min(max(place, 0), count - 1) for place, count in zip((y, x), image.shape))
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
    above = image[y0, x0] * (x0 + 1 - x) + image[y0, x1] * (x - x0)
    below = image[y1, x0] * (x0 + 1 - x) + image[y1, x1] * (x - x0)
    return above * (y0 + 1 - y) + below * (y - y0)


def some_crops(number):
    random = np.random.RandomState(1)
    sides = random.uniform(0.05, 1, (number, 2))
    return np.concatenate([random.uniform(0, 1, (number, 2)) * (1 - sides), sides, np.zeros((number, 1))], axis=1)


@pytest.mark.parametrize(("grid", "places"), [((14, 14), (18, 18)), ((2, 3), (9, 5)), ((4, 4), (1, 2))])
def test_matrices_cut_as_roi_align_does(grid, places):
    """The last row and column: the whole crop as one bin."""
    image = np.random.RandomState(0).randn(*places)
    crops = some_crops(20)
    rows, columns = matrices(crops, grid, places)
    cut = np.einsum("bih,hw,bjw->bij", rows, image, columns)
    for crop, labels in zip(crops, cut):
        top, left, height, width = crop[:4] * [places[0], places[1], places[0], places[1]]
        box = (left, top, left + width, top + height)
        assert np.abs(labels[:-1, :-1] - roi_align(image, box, *grid)).max() < 1e-6
        assert abs(labels[-1, -1] - roi_align(image, box, 1, 1)[0, 0]) < 1e-6


def test_top_and_height_cut_rows():
    """A box handed over as (top, left, bottom, right), as the original does, would cut these crops' columns."""
    rows_of, columns_of = np.mgrid[:8.0, :8.0]
    rows, columns = matrices(np.array([[0, 0.5, 1, 0.5, 0.0]]), (2, 2), (8, 8))  # the right half
    assert (rows[0] @ rows_of @ columns[0].T).tolist() == [[1.5] * 3, [5.5] * 3, [3.5] * 3]
    assert (rows[0] @ columns_of @ columns[0].T).tolist() == 3 * [[4.5, 6.5, 5.5]]


def test_the_whole_image_has_the_mean_of_its_map():
    """One sample lies on each place. A map of the tokens' grid is itself."""
    image = np.random.RandomState(0).randn(6, 8)
    rows, columns = (part[0].astype(float) for part in matrices(np.array([[0, 0, 1, 1, 0.0]]), (6, 8), (6, 8)))
    cut = rows @ image @ columns.T
    assert abs(cut[-1, -1] - image.mean()) < 1e-6
    assert np.abs(cut[:-1, :-1] - image).max() < 1e-6


def test_a_flip_reverses_the_columns_and_twice_is_none():
    crops = some_crops(6)
    rows, columns = matrices(crops, (3, 4), GRID)
    crops[:, 4] = 1
    same, flipped = matrices(crops, (3, 4), GRID)
    assert (same == rows).all()
    assert (flipped[:, :-1] == columns[:, -2::-1]).all()
    assert (flipped[:, -1] == columns[:, -1]).all()
    assert (flipped != columns).any()
    assert (flipped[:, [3, 2, 1, 0, 4]] == columns).all()


def test_a_crop_into_padding_sees_the_border():
    rows, columns = matrices(np.array([[-0.5, 0.5, 1, 1, 0]]), (4, 4), (4, 4))
    assert rows[0].tolist()[:4] == [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert columns[0].tolist()[:4] == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert rows[0, 4].tolist() == [0.75, 0.25, 0, 0]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_hold_maps_and_matrices_and_the_same_images_as_without(tmp_path, photos, maps, workers):
    config, source = make(tmp_path, photos, *RECIPE, f"token_labels.maps={maps}", f"data.workers={workers}")
    plain, _ = make(tmp_path, photos, *RECIPE)
    with TrainingData(source, plain, 3) as data:
        expected = list(data.epoch(1))
    with TrainingData(source, config, 3) as data:
        batches = list(data.epoch(1))
        sent = list(loaders.as_dataset(data.epoch(1)).create_tuple_iterator(num_epochs=1, output_numpy=True))
        tensors = list(loaders.train_batches(data.epoch(1)))
        order = data.epoch(1).order
    assert [len(batch) for batch in expected] == [2, 2, 2]
    for number, (batch, other, same, tensor) in enumerate(zip(batches, expected, sent, tensors)):
        for part, also, too in zip(batch, same, tensor):
            assert (part == also).all()
            assert (part == too.asnumpy()).all()
        assert (batch[0] == other[0]).all()
        assert (batch[1] == other[1]).all()
        _, _, found, rows, columns = batch
        assert (found == some_maps()[order.images[number]]).all()
        assert [part.dtype for part in (found, rows, columns)] == 3 * [np.float32]
        assert (rows.shape, columns.shape) == ((6, 3, 5), (6, 4, 7))
        assert np.allclose(rows.sum(2), 1)
        assert np.allclose(columns.sum(2), 1)
        for copy in range(0, 6, 2):  # of the same image, augmented differently
            assert (found[copy] == found[copy + 1]).all()
            assert (rows[copy] != rows[copy + 1]).any()


def refused(maps, source, classes=3):
    with pytest.raises(UserError) as error:
        LabelMaps(str(maps), source, classes)
    message = str(error.value)
    assert message.startswith(f"token_labels.maps {maps}: ")
    assert "\n" not in message
    assert message.endswith("or set token_labels.maps=null")
    return message


def test_folders_that_hold_no_maps_are_refused(tmp_path, photos, maps):
    _, source = make(tmp_path, photos)
    LabelMaps(str(maps), source, 3)
    assert "it is not a folder" in refused(tmp_path / "none", source)
    (maps / FACTS).rename(maps / "away")
    assert "it has no file labels.json" in refused(maps, source)
    for text, said in (
        ("[", "labels.json is damaged: Invalid JSON"), ("[]", "labels.json is damaged"),
        ("{}", "labels.json is damaged: images: Field required"), ("[" * 100_000, "labels.json is damaged"),
        (json.dumps({"images": 18, "grid": [5, 0], "classes": 3, "digest": "", "model": ""}), "grid.1: Input should"),
    ):  # fmt: skip
        (maps / FACTS).write_text(text)
        assert said in refused(maps, source)
    (maps / "away").rename(maps / FACTS)
    (maps / ARRAY).unlink()
    assert "it has no file labels.npy" in refused(maps, source)


def test_damaged_arrays_are_refused(tmp_path, photos, maps):
    _, source = make(tmp_path, photos)
    whole = (maps / ARRAY).read_bytes()
    for content, said in (
        (whole[:-1], "labels.npy is damaged: mmap length is greater"), (whole + b"0", "other than 12728 bytes"),
        (b"", "labels.npy is damaged"), (whole[:40], "labels.npy is damaged"), (b"\x80\x04." * 99, "is damaged"),
        (whole.replace(b"<f2", b"<i2"), "labels.npy is int16"), (whole.replace(b"<f2", b">f2"), "labels.npy is >f2"),
        (whole.replace(b"False", b"True "), "is float16"), (whole.replace(b"(18, 2, 5", b"(36, 1, 5"), "[36, 1, 5"),
    ):  # fmt: skip
        (maps / ARRAY).write_bytes(content)
        assert said in refused(maps, source)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def test_a_pickle_is_refused_and_not_run(tmp_path, photos, maps):
    _, source = make(tmp_path, photos)
    np.save(maps / ARRAY, np.array([Bomb()], object), allow_pickle=True)
    assert "labels.npy is damaged: Array can't be memory-mapped: Python objects" in refused(maps, source)


def test_maps_of_other_data_are_refused(tmp_path, photos, maps):
    _, source = make(tmp_path, photos)

    def say(**changes):
        told = json.loads((maps / FACTS).read_text())
        (maps / "other").mkdir(exist_ok=True)
        (maps / "other" / ARRAY).write_bytes((maps / ARRAY).read_bytes())
        (maps / "other" / FACTS).write_text(json.dumps({**told, **changes}))
        return maps / "other"

    assert "of 17 images, and the training takes 18" in refused(say(images=17), source)
    assert "only in the maps: dog; only in the data: cat" in refused(say(classes=["ant", "bee", "dog"]), source)
    assert "the same ones in another order" in refused(say(classes=["bee", "ant", "cat"]), source)
    assert "of 1000 classes, and the data has 3" in refused(say(classes=1000), source)
    LabelMaps(str(say(classes=3)), source, 3)
    assert "of other images than the training takes, or in another order" in refused(say(digest="0"), source)
    assert "labels.npy is float16 [18, 2, 5, 5, 7], not" in refused(say(grid=[7, 5]), source)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ((4, 0, 1, 2, 3), np.nan, "training image 4 has a score that is not finite"),
        ((4, 0, 1, 2, 3), np.inf, "training image 4 has a score that is not finite"),
        ((5, 1, 0, 0, 0), 3, "training image 5 has a class number that is none of 0 to 2"),
        ((5, 1, 0, 0, 0), -1, "training image 5 has a class number"),
        ((5, 1, 0, 0, 0), 0.5, "training image 5 has a class number"),
        ((5, 1, 0, 0, 0), np.nan, "training image 5 has a class number"),
    ],
)
def test_bad_numbers_are_refused_before_or_when_they_are_needed(
    tmp_path, photos, maps, monkeypatch, place, value, said
):
    config, source = make(tmp_path, photos, f"token_labels.maps={maps}")
    array = np.load(maps / ARRAY)
    array[place] = value
    np.save(maps / ARRAY, array)
    assert said in refused(maps, source)
    monkeypatch.setattr("src.data.label_maps.SAMPLES", 2)  # of so few images all would be looked at
    with TrainingData(source, config, 3) as data, pytest.raises(RunError, match=said):
        list(data.epoch(1))


def test_nothing_is_left_of_maps_that_are_not_written_whole(tmp_path, photos):
    _, source = make(tmp_path, photos)
    folder = tmp_path / "maps"
    with pytest.raises(RunError, match="7 label maps for 18 training images"):
        write(folder, facts_of(source), [some_maps()[:7]])
    with pytest.raises(RunError, match="images 7 to 17 are not finite in half precision"):
        write(folder, facts_of(source), [some_maps()[:7], some_maps()[7:].astype(np.float32) + 1e5])
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_what_a_killed_process_leaves_is_refused(tmp_path, photos):
    _, source = make(tmp_path, photos)
    seen = []

    def batches():
        yield some_maps()
        (left,) = tmp_path.glob("maps.*.partial")
        seen.append(refused(left, source))

    write(tmp_path / "maps", facts_of(source), batches())
    assert "it has no file labels.json" in seen[0]
    LabelMaps(str(tmp_path / "maps"), source, 3)
