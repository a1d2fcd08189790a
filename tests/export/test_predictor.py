"""One network in three files gives the same predictions, and ONNX without MindSpore."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from src.data.datasets import open_dataset
from src.data.loaders import val_images
from src.errors import UserError
from src.export import mindir
from src.export.form import Form
from src.export.metadata import describe
from src.export.onnx.file import write
from src.export.predictor import open_predictor
from src.models import from_config
from src.visuals.tokens import LATTICE
from src.weights import read_checkpoint
from src.weights.files import write_weights
from tests.helpers.commands import ROOT, run_here
from tests.helpers.configs import load

MODEL = "{tokens: 1(50%)+3, image_size: 16, patch_size: 4, embed_dim: 16, depth: 3, num_heads: 2}"
CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def network(tmp_path_factory, photos):
    """One network: a.ckpt, a.mindir for 4 images, a.onnx for any number, and bytes.onnx, bytes.mindir for 2."""
    folder = tmp_path_factory.mktemp("predictor")
    (folder / "config.yaml").write_text(f"model: {MODEL}\ndata: {{root: {photos}, batch_size: 4}}")
    config = load(folder / "config.yaml", ["model.num_classes=3"])
    cell = from_config(config.model)
    weights = {weight.name: weight.value() * (10 if weight.ndim > 1 else 1) for weight in cell.get_parameters()}
    write_weights(folder / "a.ckpt", weights, config, CLASSES)
    mindir.export_checkpoint(config, folder / "a.ckpt", {4: folder / "a.mindir"}, Form(kept=True), 1e-4)
    mindir.export_checkpoint(config, folder / "a.ckpt", {2: folder / "bytes.mindir"}, Form(uint8=True), 1e-4)
    checkpoint = read_checkpoint(folder / "a.ckpt")
    for name, form in (("a", Form(0, kept=True)), ("bytes", Form(2, uint8=True))):
        write(folder / f"{name}.onnx", config, checkpoint, form, describe(config, checkpoint))
    return folder, config


def files_of(photos):
    return [photos / f"val/{name}/{i}.{('JPEG', 'png', 'jpg')[i]}" for name in CLASSES for i in range(3)]


def lines_of(output):
    return [json.loads(line) for line in output.splitlines()]


def test_the_same_images_are_predicted_alike_by_all_files(network, photos):
    """And as the validation of the training sees them."""
    folder, config = network
    cell = from_config(config.model).set_train(False)
    read_checkpoint(folder / "a.ckpt").load_into(cell)
    files = files_of(photos)
    images, _ = val_images(open_dataset(config.data, ("val",)), config, range(9))
    from mindspore import Tensor

    logits = cell(Tensor(images)).asnumpy().astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    answers = []
    for name in ("a.ckpt", "a.mindir", "a.onnx", "bytes.onnx", "bytes.mindir"):
        arguments = [folder / name, *files, "--json", "--batch_size", "6"]
        found = lines_of(run_here("src.tools.predict", *arguments, cwd=folder).stdout)
        assert [line["image"] for line in found] == list(map(str, files))
        assert {line["tokens"] for line in found} == {"1(50%)+3"}
        for line, row in zip(found, shares):
            assert [name for name, _ in line["top5"]] == [CLASSES[i] for i in np.argsort(-row)]
            assert [share for _, share in line["top5"]] == pytest.approx(np.sort(row)[::-1], abs=2e-3)
        answers.append(np.array([[share for _, share in line["top5"]] for line in found]))
    assert np.ptp(answers, 0).max() < 1.5e-4, "of the last of four digits, which rounding may change"
    assert np.ptp(shares, 0).max() > 0.02, "images differ in what is said of them"


def test_onnx_needs_neither_mindspore_nor_mindcv(network, photos):
    folder, _ = network
    code = """
import sys
sys.modules.update(mindspore=None, mindcv=None, **({} if "--save" in sys.argv else {"matplotlib": None}))
from src import cli
from src.tools import predict
cli.run(predict.main)
"""
    options = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    command = [sys.executable, "-c", code, "a.onnx", str(photos / "val")]
    done = subprocess.run([*command, "--json"], check=False, **options)
    assert (done.returncode, done.stderr) == (0, "")
    with_mindspore = run_here("src.tools.predict", folder / "a.onnx", photos / "val", "--json", cwd=folder)
    assert done.stdout == with_mindspore.stdout
    assert len(lines_of(done.stdout)) == 9
    *read, wrote = subprocess.run([*command, "--save", "a.png"], check=False, **options).stdout.splitlines()
    assert wrote.startswith("wrote a.png, ")
    assert len(read) == 9
    assert all(re.fullmatch(r"\S+: (\w+ \d+\.\d%, ){2}\w+ \d+\.\d%", line) for line in read)


@pytest.mark.slow
def test_another_schedule_of_a_checkpoint(network, photos):
    folder, _ = network
    arguments = [folder / "a.ckpt", photos / "val/ant", "--json"]
    dense = lines_of(run_here("src.tools.predict", *arguments, "model.tokens=none", cwd=folder).stdout)
    assert {line["tokens"] for line in dense} == {"none"}


def sheet_of(folder, name, files, save):
    done = run_here("src.tools.predict", folder / name, *files, "--save", save, cwd=folder)
    return done, np.asarray(Image.open(save)) if save.exists() else None


@pytest.mark.slow
def test_a_sheet_shows_the_kept_tokens_of_all_files_alike(network, photos, tmp_path):
    folder, _ = network
    files = files_of(photos)[:3]
    _, of_checkpoint = sheet_of(folder, "a.ckpt", files, tmp_path / "a.png")
    _, of_mindir = sheet_of(folder, "a.mindir", files, tmp_path / "d.png")
    done, of_onnx = sheet_of(folder, "a.onnx", files, tmp_path / "b.png")
    assert f"wrote {tmp_path / 'b.png'}, " in done.stdout
    assert (of_onnx == of_checkpoint).all()
    assert (of_mindir == of_checkpoint).all()
    assert (of_onnx == LATTICE).all(-1).sum() > 100
    refused, nothing = sheet_of(folder, "bytes.onnx", files, tmp_path / "c.png")
    assert nothing is None
    assert "the file does not give the kept tokens; export it as ONNX with --kept" in refused.stderr


def test_files_that_say_nothing_are_refused(network, tmp_path):
    folder, config = network
    write(tmp_path / "a.onnx", config, read_checkpoint(folder / "a.ckpt"), Form(), {"tokens": "none"})
    (tmp_path / "a.mindir").write_text("nothing")
    for name, message in (("a.onnx", "does not say how images are prepared"), ("a.mindir", "is no MindIR that")):
        with pytest.raises(UserError, match=message):
            open_predictor(tmp_path / name, None, {}, 1)
