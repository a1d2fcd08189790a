"""Export to ONNX: what is written is what the network computes, and says what it is."""

import hashlib
import importlib.util
import json
import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

import src
from src.config import ModelConfig, with_tokens
from src.data.batches import in_batches
from src.data.datasets import open_dataset
from src.data.loaders import val_images
from src.data.pixels import pixels
from src.errors import RunError, UserError
from src.export import mindir
from src.export.expected import Expected
from src.export.form import Form
from src.export.onnx import export as onnx
from src.export.onnx.session import Session
from src.models import from_config, trace
from src.runs import find_checkpoint
from src.weights import read_checkpoint
from src.weights.files import write_weights
from tests.helpers.commands import ROOT, run_here
from tests.helpers.configs import load
from tests.helpers.faults import check_each_call

MODEL = "{tokens: '1,2(50%,30%)+4', image_size: [16, 24], patch_size: 4, embed_dim: 16, depth: 4, num_heads: 2}"


@pytest.fixture(scope="module")
def case(tmp_path_factory, photos):
    """A configuration, a checkpoint, and the network's logits and kept tokens of the validation images."""
    folder = tmp_path_factory.mktemp("onnx")
    (folder / "config.yaml").write_text(f"model: {MODEL}\ndata: {{root: {photos}, batch_size: 4}}")
    config = load(folder / "config.yaml", ["model.num_classes=3"])
    network = from_config(config.model).set_train(False)
    for weight in network.get_parameters():  # larger, so that scores differ clearly
        if weight.ndim > 1:
            weight.set_data(weight * 10)
    weights = {weight.name: weight.value() for weight in network.get_parameters()}
    write_weights(folder / "best.ckpt", weights, config, ["ant", "bee", "cat"])
    images, _ = val_images(open_dataset(config.data, ("val",)), config, range(9))
    return config, folder / "best.ckpt", images, trace(network, Tensor(images))


@pytest.fixture
def known(case, monkeypatch):
    """The network is asked once for all."""
    _, _, images, traced = case
    expected = Expected(images, "9 validation images", traced.logits, traced.kept)
    monkeypatch.setattr(onnx, "ask_network", lambda *_: expected)


def export(case, output, form=None, sizes=(0,), tolerance=1e-4):
    config, checkpoint, _, _ = case
    outputs = {size: output.with_name(f"{output.stem}{size}.onnx") for size in sizes}
    onnx.export_checkpoint(config, checkpoint, outputs, form or Form(), tolerance)
    return [Session(file) for file in outputs.values()]


def test_files_for_several_batch_sizes_compute_the_network_and_say_what_they_are(case, tmp_path, capsys):
    config, checkpoint, images, expected = case
    sessions = export(case, tmp_path / "a.onnx", Form(kept=True), sizes=(1, 0))
    assert [session.batch_size for session in sessions] == [1, 0]
    printed = capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a0.onnx", "a1.onnx"]
    for session in sessions:
        found = ask(session, images)
        assert np.abs(found["logits"] - expected.logits).max() < 1e-4
        assert session.outputs == ["logits", "kept.1", "kept.2"]
        assert all((found[f"kept.{block}"] == places).all() for block, places in expected.kept.items())
        said = dict(session.facts)
        assert re.fullmatch(r"largest difference \S+, kept tokens the same, on 9 validation images", said["verified"])
        assert said.pop("verified") in printed
        assert json.loads(said.pop("preprocessing")) == {
            "image_size": [16, 24], "name": "folder", "crop_pct": 0.875, "interpolation": "bicubic",
            "resize": "mindspore", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        }  # fmt: skip
        assert ModelConfig(**json.loads(said.pop("model"))) == config.model
        assert json.loads(said.pop("classes")) == ["ant", "bee", "cat"]
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        assert said == {"tokens": "1,2(50%,30%)+4", "version": src.__version__, "checkpoint": digest}


@pytest.mark.slow
def test_without_data_random_images_verify(case, tmp_path, caplog):
    config, *rest = case
    config = load(ROOT / "configs/quickstart.yaml", ["data.root=nowhere"]).data, config
    lost = (type(config[1])(model=config[1].model, data=config[0]), *rest)
    (session,) = export(lost, tmp_path / "a.onnx")
    assert session.facts["verified"].endswith("on 32 random images")
    assert "the validation images cannot be had: data.root" in caplog.text


@pytest.mark.slow
def test_images_of_bytes(case, tmp_path):
    config, _, images, expected = case
    (session,) = export(case, tmp_path / "a.onnx", Form(uint8=True))
    found = ask(session, pixels(images, config.data.mean, config.data.std))
    assert np.abs(found["logits"] - expected.logits).max() < 1e-3  # of pixels that are rounded


def ask(session, images):
    """The outputs of images by name, whatever batch the file takes."""
    return in_batches(session.run, images, session.batch_size)


def spoil(monkeypatch, name, change):
    """Have every file's output of a name be another."""
    run = Session.run

    def spoilt(self, images):
        outputs = run(self, images)
        return {**outputs, **({name: change(outputs[name])} if name in outputs else {})}

    monkeypatch.setattr(Session, "run", spoilt)


@pytest.mark.parametrize(
    ("name", "change", "half", "message"),
    [
        (
            "logits",
            lambda logits: logits + 1,
            False,
            r"logits differ by \S+, more than 0.0001; it was not kept",
        ),
        ("logits", lambda logits: logits * np.nan, False, "logits are not finite; it was not kept"),
        ("logits", lambda logits: logits * np.inf, True, "logits are not finite; it was not kept"),
        ("kept.2", lambda places: places[:, ::-1], False, "kept.2 is not the network's on 9 of 9 validation images"),
        ("logits", lambda logits: -logits, True, "top-1 the same on 0 of 9 validation images, .*leave out --float16"),
    ],
)
def test_a_file_that_computes_something_else_is_deleted(
    case, known, tmp_path, monkeypatch, name, change, half, message
):
    """Kept tokens are compared whether or not the file gives them."""
    spoil(monkeypatch, name, change)
    (tmp_path / "a0.onnx").write_text("an older file")
    with pytest.raises(RunError, match=message):
        export(case, tmp_path / "a.onnx", Form(float16=half))
    assert [path.name for path in tmp_path.iterdir()] == ["a0.onnx"]
    assert (tmp_path / "a0.onnx").read_text() == "an older file"


def test_weights_of_half_size_are_verified_by_what_is_most_likely(case, known, tmp_path, capsys):
    (half,) = export(case, tmp_path / "half.onnx", Form(float16=True))
    assert re.fullmatch(r"top-1 the same on 9 of 9 validation images, largest difference \S+", half.facts["verified"])
    assert half.facts["verified"] in capsys.readouterr().out
    assert (ask(half, case[2])["logits"].argmax(1) == case[3].logits.argmax(1)).all()
    with pytest.raises(RunError, match="more than 1e-09"):
        export(case, tmp_path / "whole.onnx", tolerance=1e-9)


@pytest.mark.parametrize("missing", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_line_that_installs_it(case, tmp_path, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(UserError, match=rf"package {missing}, which is not installed; pip install '{missing}>="):
        export(case, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert onnx.PACKAGES[missing] in [line.split()[0] for line in lines]


def test_what_is_no_onnx_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_text("nothing")
    with pytest.raises(UserError, match=r"a\.onnx is no file that onnxruntime \S+ reads: "):
        Session(tmp_path / "a.onnx")


@pytest.mark.slow
def test_wherever_a_call_fails_the_file_is_whole(case, known, tmp_path):
    """Each call that touches the folder fails in one of four ways: one line, and the file is whole, old or new."""
    output = tmp_path / "a0.onnx"

    def check():
        assert ask(Session(output), case[2])["logits"].shape == (9, 3)

    check_each_call(lambda: export(case, tmp_path / "a.onnx"), tmp_path, {output.name}, check, more_than=5)


@pytest.mark.long
def test_the_digits_are_the_same_to_the_network_mindir_and_onnx(tmp_path, capsys):
    """All 360 that are held out, by a trained network, under a schedule that drops twice and fuses."""
    arguments = ["--config", ROOT / "configs/quickstart.yaml", "train.epochs=1", "data.workers=1", "run.dir=run"]
    assert run_here("train", *arguments, cwd=tmp_path).returncode == 0
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    config, _ = find_checkpoint(None, str(checkpoint), {"data.root": str(tmp_path / "data/digits")})
    images, _ = val_images(open_dataset(config.data, ("val",)), config, range(360))
    network = from_config(config.model).set_train(False)
    read_checkpoint(checkpoint).load_into(network)
    spec = "4,7(30%,30%)+fused"
    expected = trace(network.with_tokens(spec), Tensor(images))
    outputs = {0: tmp_path / "a-bany.onnx", 8: tmp_path / "a-b8.onnx"}
    onnx.export_checkpoint(with_tokens(config, spec), checkpoint, outputs, Form(kept=True), 1e-4)
    assert len(re.findall(r"\.onnx: .* on 32 validation images\n", capsys.readouterr().out)) == 2
    for output in outputs.values():
        found = ask(Session(output), images)
        assert np.abs(found["logits"] - expected.logits).max() < 1e-4
        assert all((found[f"kept.{block}"] == places).all() for block, places in expected.kept.items())
    mindir.export_checkpoint(with_tokens(config, spec), checkpoint, {0: tmp_path / "a.mindir"}, Form(), 1e-4)
    graph = nn.GraphCell(ms.load(str(tmp_path / "a.mindir")))
    assert np.abs(graph(Tensor(images)).asnumpy() - found["logits"]).max() < 1e-4
