"""Pictures of tokens: what a pixel of a sheet must be, and the tool that makes them."""

import os
import shutil
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from src import data, pictures, sheets, sources
from src.config import load
from src.errors import UserError
from src.models import Trace, trace
from src.models.schedule import parse, resolve
from src.models.vit import build
from src.pictures import FUSED, RIGHT, WRONG, contact_sheet, enlarge, token_tiles
from src.sheets import GAP, GROUP_GAP, LINE, MARGIN, MARK, PAPER, ROW_GAP
from src.tools import visualize
from src.training.loop import Trainer
from src.training.run_folder import RunFolder
from src.weights import CONFIG, network_weights, read
from tests.conftest import ROOT
from tests.test_data import write_cifar
from tests.test_training import check_same, make_config, run

BEST = "runs/tiny/checkpoints/best.ckpt"
SIZES = [(16, 16, 4), (32, 32, 4), (224, 224, 16), (16, 48, 8), (64, 16, 8), (518, 518, 14), (96, 640, 16)]
RANDOM = np.random.default_rng(0)


def noise(images, height, width):
    return RANDOM.integers(0, 256, (images, height, width, 3)).astype(np.uint8)


def patch(tiles, image, place, grid):
    """The pixels of a patch in a tile."""
    height, width = tiles.shape[1] // grid[0], tiles.shape[2] // grid[1]
    top, left = place // grid[1] * height, place % grid[1] * width
    return tiles[image, top : top + height, left : left + width].astype(float)


def find(sheet, tile):
    """Every (left, top) where a tile lies in a sheet, pixel for pixel, from left to right."""
    height, width = tile.shape[:2]
    rows = sheet[: len(sheet) - height + 1, : sheet.shape[1] - width + 1]
    places = np.argwhere((rows == tile[0, 0]).all(axis=-1))
    return sorted((x, y) for y, x in places.tolist() if (sheet[y : y + height, x : x + width] == tile).all())


def has(sheet, colour):
    return (np.asarray(sheet) == colour).all(axis=-1).any()


@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_dropped_patches_are_dimmed_in_place_and_the_others_are_as_they_were(height, width, side):
    grid = (height // side, width // side)
    tiles = enlarge(noise(2, height, width), grid)
    assert tiles.shape[1] % grid[0] == tiles.shape[2] % grid[1] == 0
    assert 96 <= max(tiles.shape[1:3]) <= 288
    count = grid[0] * grid[1]
    kept = RANDOM.permuted(np.tile(np.arange(count), (2, 1)), axis=1)[:, : count // 2]
    drawn = token_tiles(tiles, kept, grid)
    for image in range(2):
        for place in range(count):
            before, after = patch(tiles, image, place, grid), patch(drawn, image, place, grid)
            if place in kept[image]:
                assert (after == before).all()
            else:
                faded = pictures.FADE * before + (1 - pictures.FADE) * np.array(pictures.DROPPED)
                assert np.abs(after - faded)[1:, 1:].max() < 0.51
                assert (after[0] == pictures.LATTICE).all()
                assert (after[:, 0] == pictures.LATTICE).all()
                assert after.std() < before.std()


def test_small_images_are_enlarged_pixel_by_pixel():
    images = noise(1, 16, 16)
    tiles = enlarge(images, (4, 4))
    assert tiles.shape == (1, 144, 144, 3)
    assert (tiles[:, ::9, ::9] == images).all()
    assert (tiles[:, 8::9, 8::9] == images).all()


def test_what_is_dropped_shows_on_black_and_on_white():
    for value in (0, 255):
        tiles = np.full((1, 16, 16, 3), value, np.uint8)
        dropped = token_tiles(tiles, np.array([[0]]), (4, 4))[0, -1, -1]
        assert np.abs(dropped.astype(int) - value).min() > 50


@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_the_brightest_patch_of_the_heat_map_has_most_attention(height, width, side):
    grid = (height // side, width // side)
    count = grid[0] * grid[1]
    attention = RANDOM.random((2, count), np.float32)
    attention[:, 1] = np.nan
    most = np.nanargmax(attention, axis=1)
    shape = enlarge(noise(2, height, width), grid).shape
    heat = pictures.heat_tiles(attention, grid, shape)
    assert heat.shape == shape
    for image in range(2):
        assert (patch(heat, image, 1, grid) == pictures.ABSENT).all()
        assert (patch(heat, image, most[image], grid) == pictures.HEAT[255]).all()
        light = [patch(heat, image, place, grid).sum() for place in range(count) if place != 1]
        assert max(light) == patch(heat, image, most[image], grid).sum()


@pytest.fixture(scope="module")
def traced():
    """Two images, and a dense and a skipping network's columns of them."""
    images, columns = noise(2, 16, 48), []
    for tokens in ("none", "2(50%)+4"):
        sizes = {"image_size": (16, 48), "patch_size": 8, "embed_dim": 16, "num_heads": 2, "depth": 4}
        net = build(tokens, num_classes=3, **sizes).set_train(False)
        seen = trace(net, Tensor((images.transpose(0, 3, 1, 2) / 255).astype(np.float32)))
        columns.append(pictures.Column(tokens, seen, net.plan, net.patch_embed.grid, ("ant", "bee", "cat")))
    return images, *columns


def test_a_sheet_has_every_stage_at_its_place(traced):
    images, _, column = traced
    sheet = np.asarray(contact_sheet(images, [column], ["one.png", "two.png"], ["ant", None], "heading"))
    width = 144
    left = MARGIN + width + GROUP_GAP
    top = MARGIN + LINE + GAP + LINE + 2 * GAP + 2 * LINE
    step = 48 + GAP // 2 + 2 * LINE + ROW_GAP
    tiles = enlarge(images, (2, 6))
    heat = pictures.heat_tiles(column.trace.attention[1], (2, 6), tiles.shape)
    tokens = token_tiles(tiles, column.trace.kept[2], (2, 6))
    for image in range(2):
        row = top + image * step
        assert find(sheet, tiles[image]) == [(MARGIN, row), (left + 2 * (width + GAP), row)]  # the second: it is back
        assert find(sheet, heat[image]) == [(left, row)]
        assert find(sheet, tokens[image]) == [(left + width + GAP, row)]
    assert sheet.shape[1] == left + 3 * width + 2 * GAP + MARGIN
    assert sheet.shape[0] == top + 2 * step + LINE + MARGIN


def test_the_size_of_a_sheet_does_not_depend_on_what_is_predicted(traced):
    images, dense, _ = traced
    names = ["a", "a very long name of a class " * 9]
    columns = [pictures.Column("t", dense.trace, dense.plan, dense.grid, [name] * 3) for name in names]
    assert contact_sheet(images, columns[:1]).size == contact_sheet(images, columns[1:]).size


def test_networks_are_side_by_side_and_a_dense_one_shows_its_last_block(traced):
    images, dense, skipping = traced
    sheet = np.asarray(contact_sheet(images, [dense, skipping]))
    tiles = enlarge(images, (2, 6))
    ((left, top),) = find(sheet, pictures.heat_tiles(dense.trace.attention[3], (2, 6), tiles.shape)[1])
    ((right, same),) = find(sheet, token_tiles(tiles, skipping.trace.kept[2], (2, 6))[1])
    assert (right - left, same) == (144 + GROUP_GAP + 144 + GAP, top)


def test_a_strip_has_a_column_for_each_epoch(traced):
    images, _, column = traced
    sheet = np.asarray(pictures.epoch_strip(images, [column] * 3))
    tokens = token_tiles(enlarge(images, (2, 6)), column.trace.kept[2], (2, 6))
    assert [x for x, _ in find(sheet, tokens[0])] == [MARGIN + i * (144 + GROUP_GAP) for i in (1, 2, 3)]


def by_hand(spec, kept, logits):
    """The column of a network of 2x2 patches that kept and predicted what is said."""
    net = build(spec, image_size=16, patch_size=8, embed_dim=16, num_heads=2, depth=4, num_classes=2)
    plan = resolve(parse(spec), net.geometry)
    attention = tuple(np.full((len(logits), 4), 0.25, np.float32) for _ in range(4))
    return pictures.Column("t", Trace(np.float32(logits), attention, kept), plan, (2, 2), ("ant", "bee"))


def test_a_fused_token_has_a_mark_that_tells_whether_it_was_kept():
    images = noise(2, 16, 16)
    kept = {1: np.int32([[0, 1], [1, 3]]), 3: np.int32([[0, 4], [2, 3]])}  # 4 is the fused token of block 1
    sheet = np.asarray(contact_sheet(images, [by_hand("1,3(50%,34%)+fused", kept, [[0, 1], [1, 0]])]))
    tiles = enlarge(images, (2, 2))

    def marks(block, image):
        ((left, top),) = find(sheet, token_tiles(tiles, kept[block], (2, 2))[image])
        middle = top + 144 + GAP // 2 + MARK // 2
        return [tuple(sheet[middle, left + i * (MARK + GAP) + MARK // 2]) for i in range(3)]

    assert marks(1, 0) == marks(1, 1) == [FUSED, PAPER, PAPER]  # one, and then nothing
    assert marks(3, 0) == [FUSED, FUSED, PAPER]
    assert marks(3, 1) == [PAPER, FUSED, PAPER]  # the first is hollow
    skipping = by_hand("1(50%)+3", {1: kept[1]}, [[0, 1], [1, 0]])
    assert not has(contact_sheet(images, [skipping]), FUSED)


def test_right_and_wrong_predictions_are_told_apart():
    images, column = noise(1, 16, 16), by_hand("none", {}, [[0, 3]])
    drawn = [contact_sheet(images, [column], truths=[truth]) for truth in ("bee", "ant", None)]
    assert [has(sheet, RIGHT) for sheet in drawn] == [True, False, False]
    assert [has(sheet, WRONG) for sheet in drawn] == [False, True, False]


def test_the_sheet_of_a_network_shows_the_pixels_before_normalisation():
    images, mean, std = noise(2, 16, 16), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    net = build("2(50%)+fused", image_size=16, patch_size=8, embed_dim=16, num_heads=2, depth=2, num_classes=2)
    inputs = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    assert (pictures.pixels(inputs, mean, std) == images).all()
    sheet = pictures.token_sheet(net, inputs, mean, std, "epoch 3", ("ant", "bee"), [0, 1])
    assert sheet.mode == "RGB"
    assert find(np.asarray(sheet), enlarge(images, (2, 2))[0])
    assert has(sheet, FUSED)
    assert has(sheet, RIGHT) or has(sheet, WRONG)
    assert not net.training


def test_text_is_shortened_to_its_room():
    long = sheets.shorten("a long name of a class", 60, sheets.TEXT)
    assert long.endswith("…")
    assert sheets.width(long, sheets.TEXT) <= 60
    assert sheets.shorten("short", 60, sheets.TEXT) == "short"


def test_files_are_seen_as_validation_sees_them(tmp_path, photos):
    config = make_config(tmp_path, f"data.root={photos}", "model.image_size=[16, 32]")
    source = sources.open_source(config.data)
    files = sources.files_of(source.splits["val"], source.classes)
    whole = np.concatenate([images for images, _ in data.batches(data.val_loader(source, config), output_numpy=True)])
    assert (data.read_images(files, config) == whole).all()
    some, labels = data.val_images(source, config, [1, 8])
    assert (some == whole[[1, 8]]).all()
    assert labels.tolist() == [0, 2]


def test_cifar_images_by_number_and_from_files(tmp_path):
    write_cifar(tmp_path / "test_batch.bin", 1)
    splits = ["data.train_split=test", "data.val_split=test", "data.name=cifar10", "model.image_size=32"]
    config = make_config(tmp_path, f"data.root={tmp_path}", *splits)
    _, labels = data.val_images(sources.open_source(config.data, ("val",)), config, [3, 9_997])
    assert labels.tolist() == [3, 7]
    image = noise(1, 32, 32)
    Image.fromarray(image[0]).save(tmp_path / "image.png")
    seen = data.read_images([tmp_path / "image.png"], config)
    assert (pictures.pixels(seen, config.data.mean, config.data.std) == image).all()


def test_weights_of_epochs_are_kept_and_a_resume_repeats_them(tmp_path, photos):
    """Killed after the weights of an epoch were written, and before the state was."""
    tiny = ["model.depth=2", "model.tokens=1(50%)+2", "train.epochs=2", "train.warmup_dense_epochs=0"]
    config = make_config(tmp_path, f"data.root={photos}", "train.ema_decay=0.9", "run.save_every_epochs=2", *tiny)
    save, calls = Trainer._save, []

    def copying(trainer):
        calls.append(trainer)
        if len(calls) == 2:
            shutil.copytree(tmp_path / "whole", tmp_path / "stopped")  # what a kill at this moment leaves
        save(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_save", copying)
        whole = run(config, tmp_path, "whole")
    assert list(whole.kept_epochs()) == [2]
    (tmp_path / "stopped" / "checkpoints" / "epoch-0002.ckpt").write_bytes(b"torn")
    resumed = run(config, tmp_path, "stopped", resume=True)
    check_same(resumed, whole)
    expected, reached, state = read(whole.epoch(2)), read(resumed.epoch(2)), read(whole.last)
    averaged = network_weights(state)
    assert expected.keys() == reached.keys() == averaged.keys() | {CONFIG}
    for name in averaged:
        assert (expected[name] == reached[name]).all()
        assert (expected[name] == averaged[name]).all()
    assert any((averaged[name] != state[f"network.{name}"]).any() for name in averaged)


def start(script, *arguments, cwd):
    command = [sys.executable, *script.split(), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two epochs on the digits, with the weights of both, through train.py."""
    cwd = tmp_path_factory.mktemp("work")
    options = [
        "model.embed_dim=16", "model.num_heads=2", "model.depth=3", "model.tokens=2(50%)+3", "data.workers=1",
        "data.batch_size=256", "train.epochs=2", "train.warmup_dense_epochs=0", "runtime.fused_kernels=off",
        "run.dir=runs/tiny", "run.save_every_epochs=1",
    ]  # fmt: skip
    done = start(f"{ROOT}/train.py", "--config", ROOT / "configs/quickstart.yaml", *options, cwd=cwd)
    assert done.returncode == 0, done.stderr
    names = ["best.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt", "last.ckpt", "previous.ckpt"]
    assert sorted(path.name for path in (cwd / "runs/tiny/checkpoints").iterdir()) == names
    return cwd


def test_without_arguments_it_is_the_newest_run_and_its_validation_images(trained):
    before = sorted(path.name for path in trained.iterdir())
    done = start("-m src.tools.visualize", cwd=trained)
    assert done.returncode == 0, done.stderr
    counted, wrote = done.stdout.splitlines()
    assert counted == "8 of 360 images; --limit N shows more"
    assert wrote.startswith("wrote runs/tiny/tokens.png, ")
    assert sorted(path.name for path in trained.iterdir()) == before
    sheet = np.asarray(Image.open(trained / "runs/tiny/tokens.png"))
    config = load(trained / "runs/tiny/config.yaml")
    file = sorted((trained / "data/digits/val/0").iterdir())[22]  # in the middle of the first eighth of 360
    image = pictures.pixels(data.read_images([file], config), config.data.mean, config.data.std)
    assert len(find(sheet, enlarge(image, (4, 4))[0])) == 2


def test_epochs_are_a_strip_and_a_film(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    visualize.main(["--epochs", "runs/tiny", "--limit", "2", "--output", str(tmp_path / "film.png")])
    strip, film = np.asarray(Image.open(tmp_path / "film.png")), Image.open(tmp_path / "film.gif")
    assert strip.shape[1] == MARGIN + 3 * 144 + 2 * GROUP_GAP + MARGIN
    assert film.n_frames == 2
    assert capsys.readouterr().out.endswith("2 frames\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.gif", "film.png"]


def test_epochs_of_the_dense_warm_up_are_called_so(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    drawn = []
    monkeypatch.setattr(visualize, "epoch_strip", lambda *given: drawn.append(given) or pictures.epoch_strip(*given))
    options = ["--limit", "1", "--output", str(tmp_path / "film.png"), "train.warmup_dense_epochs=1"]
    visualize.main(["--epochs", "runs/tiny", *options])
    ((_, columns, _, _, heading),) = drawn
    assert [(column.title, column.note) for column in columns] == [("epoch 1", "dense warm-up"), ("epoch 2", "")]
    assert heading == "tiny, 2(50%)+3"


def test_a_run_is_named_by_where_it_is_below_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert RunFolder("runs/cifar10/6_55_11/seed0").name == "cifar10/6_55_11/seed0"
    assert RunFolder(tmp_path / "runs" / "a").name == "a"
    assert RunFolder("elsewhere/a").name == "a"


def test_several_schedules_and_checkpoints_on_files(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    folder = trained / "data/digits/val/3"

    def draw(*arguments):
        visualize.main([*arguments, "--output", str(tmp_path / "sheet.png")])
        return capsys.readouterr().out, np.asarray(Image.open(tmp_path / "sheet.png"))

    said, sheet = draw("--tokens", "none", "--tokens", "2(50%)+fused", "--limit", "3", str(folder))
    assert said.startswith("3 of 37 images; --limit N shows more\n")
    assert has(sheet, FUSED)
    first = "runs/tiny/checkpoints/epoch-0001.ckpt"
    said, sheet = draw("--ckpt", BEST, "--ckpt", first, str(sorted(folder.iterdir())[0]))
    assert said.startswith("1 of 1 images\n")
    assert has(sheet, RIGHT) or has(sheet, WRONG)  # the folder's name is a class
    (_, by_one), (_, by_two) = (draw("--tokens", "2(50%,random)+3", "--seed", seed, str(folder)) for seed in "12")
    assert (by_one != by_two).any()


def test_a_folder_is_searched_in_order_and_evenly(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a/3.png", ".hidden/4.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = visualize._files([str(tmp_path)])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/3.png", "b/1.JPG", "b/2.png"]
    assert data.evenly(9, 3) == [1, 4, 7]
    assert data.evenly(2, 8) == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "image nowhere.png does not exist"),
        (["empty"], "folder empty holds no images"),
        (["text.png"], "image text.png cannot be used: not an image"),
        (["--limit", "0"], "--limit 0: a sheet shows 1 to 100 images"),
        (["--ckpt", "nowhere.ckpt"], "checkpoint nowhere.ckpt does not exist"),
        (["--ckpt", "text.ckpt"], "checkpoint text.ckpt is damaged, or no checkpoint"),
        (["--ckpt", "text.ckpt", "--config", "runs/tiny/config.yaml"], "checkpoint text.ckpt is damaged"),
        (["model.embed_dim=32"], "does not fit the model; other shape"),
        (["--tokens", "2(50)+3"], "tokens spec '2(50)+3': ratio '50' must be a percentage"),
        (["--tokens", "2(50%)+9"], "tokens spec '2(50%)+9': block 9 is out of range"),
        (["--output", "nowhere/sheet.png"], "the folder nowhere does not exist"),
        (["--output", "sheet.jpg"], "--output sheet.jpg must be a file that ends in .png"),
        (["--epochs", "nowhere"], "run folder nowhere holds no config.yaml"),
        (["--epochs", "bare"], "run bare has kept no weights of epochs; train with run.save_every_epochs=N"),
        (["--epochs", "runs/tiny", "--ckpt", "text.ckpt"], "--epochs takes the checkpoints of its run"),
        (["--ckpt", BEST, "--ckpt", "other/checkpoints/best.ckpt"], "do not see images alike (data.mean differ)"),
        (["model.tokns=none"], "unknown key model.tokns"),
    ],
)
def test_a_mistake_is_named(trained, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "data"):
        (tmp_path / name).symlink_to(trained / name)
    for name in ("empty", "bare", "other/checkpoints"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("text.png", "text.ckpt"):
        (tmp_path / name).write_text("text")
    config = (trained / "runs/tiny/config.yaml").read_text()
    (tmp_path / "bare" / "config.yaml").write_text(config)
    arrays = read(trained / BEST)
    arrays[CONFIG] = np.frombuffer(config.replace("mean:\n  - 0.5", "mean:\n  - 0.25").encode(), np.uint8)
    entries = [{"name": name, "data": Tensor(array)} for name, array in arrays.items()]
    ms.save_checkpoint(entries, str(tmp_path / "other/checkpoints/best.ckpt"), crc_check=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        visualize.main(arguments)
    assert message in str(error.value)
    assert capsys.readouterr().out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mistake_gets_one_line(tmp_path):
    done = start("-m src.tools.visualize", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: there is no run below runs/ yet")
