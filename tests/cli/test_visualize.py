"""The command that draws tokens: which images and networks it shows, the files it writes, and mistakes."""

import shutil
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from src.data import datasets, loaders
from src.data.pixels import pixels
from src.errors import UserError
from src.runs import RunFolder
from src.tools import visualize
from src.training.trainer import Trainer
from src.visuals import draw as drawing
from src.visuals.sheet import FUSED, GROUP_GAP, MARGIN, NARROWEST, VERDICT, epoch_strip
from src.visuals.tokens import enlarge
from src.weights.files import CLASSES, CONFIG, EPOCH, read_arrays, read_weights
from tests.data.test_loaders import write_cifar
from tests.helpers.commands import ROOT, run_module
from tests.helpers.configs import load
from tests.training.test_training import check_same, make_config, run
from tests.visuals.pictures import find, has, noise

BEST = "runs/tiny/checkpoints/best.ckpt"


def test_files_are_seen_as_validation_sees_them(tmp_path, photos):
    config = make_config(tmp_path, f"data.root={photos}", "model.image_size=[16, 32]")
    source = datasets.open_dataset(config.data)
    files = datasets.files_of(source.splits["val"], source.classes)
    whole = np.concatenate(
        [images for images, _ in loaders.batches(loaders.val_loader(source, config), output_numpy=True)]
    )
    assert (loaders.read_images(files, config) == whole).all()
    some, labels = loaders.val_images(source, config, [1, 8])
    assert (some == whole[[1, 8]]).all()
    assert labels.tolist() == [0, 2]


def test_cifar_images_by_number_and_from_files(tmp_path):
    write_cifar(tmp_path / "test_batch.bin", 1)
    splits = ["data.train_split=test", "data.val_split=test", "data.name=cifar10", "model.image_size=32"]
    config = make_config(tmp_path, f"data.root={tmp_path}", *splits)
    _, labels = loaders.val_images(datasets.open_dataset(config.data, ("val",)), config, [3, 9_997])
    assert labels.tolist() == [3, 7]
    image = noise(1, 32, 32)
    Image.fromarray(image[0]).save(tmp_path / "image.png")
    seen = loaders.read_images([tmp_path / "image.png"], config)
    assert (pixels(seen, config.data.mean, config.data.std) == image).all()


@pytest.mark.slow
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
    expected, reached, state = read_arrays(whole.epoch(2)), read_arrays(resumed.epoch(2)), read_arrays(whole.last)
    averaged = read_weights(whole.last).arrays
    assert expected.keys() == reached.keys() == averaged.keys() | {CONFIG, CLASSES, EPOCH}
    for name in averaged:
        assert (expected[name] == reached[name]).all()
        assert (expected[name] == averaged[name]).all()
    assert any((averaged[name] != state[f"network.{name}"]).any() for name in averaged)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two epochs on the digits, with the weights of both, through train.py."""
    cwd = tmp_path_factory.mktemp("work")
    options = [
        "model.embed_dim=16", "model.num_heads=2", "model.depth=3", "model.tokens=2(50%)+3", "data.workers=1",
        "data.batch_size=256", "train.epochs=2", "train.warmup_dense_epochs=0", "runtime.fused_kernels=off",
        "run.dir=runs/tiny", "run.save_every_epochs=1",
    ]  # fmt: skip
    command = [sys.executable, ROOT / "train.py", "--config", ROOT / "configs/quickstart.yaml", *options]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    names = ["best.ckpt", "epoch-0001.ckpt", "epoch-0002.ckpt", "last.ckpt", "previous.ckpt"]
    assert sorted(path.name for path in (cwd / "runs/tiny/checkpoints").iterdir()) == names
    return cwd


def test_without_arguments_it_is_the_newest_run_and_its_validation_images(trained):
    before = sorted(path.name for path in trained.iterdir())
    done = run_module("src.tools.visualize", cwd=trained)
    assert done.returncode == 0, done.stderr
    counted, wrote = done.stdout.splitlines()
    assert counted == "8 of 360 images; --limit N shows more"
    assert wrote.startswith("wrote runs/tiny/tokens.png, ")
    assert sorted(path.name for path in trained.iterdir()) == before
    sheet = np.asarray(Image.open(trained / "runs/tiny/tokens.png"))
    config = load(trained / "runs/tiny/config.yaml")
    file = sorted((trained / "data/digits/val/0").iterdir())[22]  # in the middle of the first eighth of 360
    image = pixels(loaders.read_images([file], config), config.data.mean, config.data.std)
    assert len(find(sheet, enlarge(image, (4, 4))[0])) == 2


def test_epochs_are_a_strip_and_a_film(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    frames, draw = [], drawing.contact_sheet
    monkeypatch.setattr(drawing, "contact_sheet", lambda *given: frames.append(draw(*given)) or frames[-1])
    visualize.main(["--epochs", "runs/tiny", "--limit", "2", "--output", str(tmp_path / "film.png")])
    strip, film = np.asarray(Image.open(tmp_path / "film.png")), Image.open(tmp_path / "film.gif")
    assert strip.shape[1] == MARGIN + 3 * NARROWEST + 2 * GROUP_GAP + MARGIN
    assert film.n_frames == 2
    assert [frame.size for frame in frames] == [film.size] * 2
    assert capsys.readouterr().out.endswith("2 frames\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.gif", "film.png"]


def test_epochs_of_the_dense_warm_up_are_called_so(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    drawn = []
    monkeypatch.setattr(drawing, "epoch_strip", lambda *given: drawn.append(given) or epoch_strip(*given))
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


@pytest.mark.slow
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
    assert has(sheet, VERDICT[True]) or has(sheet, VERDICT[False])  # the folder's name is a class
    (_, by_one), (_, by_two) = (draw("--tokens", "2(50%,random)+3", "--seed", seed, str(folder)) for seed in "12")
    assert (by_one != by_two).any()


def test_a_folder_is_searched_in_order_and_evenly(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a/3.png", ".hidden/4.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = datasets.find_images([str(tmp_path)])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a/3.png", "b/1.JPG", "b/2.png"]
    assert loaders.evenly(9, 3) == [1, 4, 7]
    assert loaders.evenly(2, 8) == [0, 1]


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
    arrays = read_arrays(trained / BEST)
    arrays[CONFIG] = np.frombuffer(config.replace("mean: [0.5", "mean: [0.25").encode(), np.uint8)
    entries = [{"name": name, "data": Tensor(array)} for name, array in arrays.items()]
    ms.save_checkpoint(entries, str(tmp_path / "other/checkpoints/best.ckpt"), crc_check=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        visualize.main(arguments)
    assert message in str(error.value)
    assert capsys.readouterr().out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mistake_gets_one_line(tmp_path):
    done = run_module("src.tools.visualize", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: there is no run below runs/ yet")
