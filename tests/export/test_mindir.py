"""MindIR: what is written computes what the network computes."""

import json
import re
from dataclasses import replace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import ModelProto

from src.config import Config, with_tokens
from src.data.pixels import normalise
from src.errors import RunError, UserError
from src.export import mindir
from src.export.form import Form
from src.models import from_config, trace
from src.runtime import releases
from src.training.checkpoint import save_weights
from tests.helpers import hostile
from tests.helpers.configs import load
from tests.helpers.faults import check_each_call


@pytest.fixture
def trained(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: {tokens: 2(50%)+4, image_size: [16, 24], patch_size: 4, embed_dim: 16, depth: 4, num_heads: 2}"
    )
    config = load(path)
    net = from_config(load(path, ["model.num_classes=7"]).model)
    save_weights(tmp_path / "best.ckpt", config, net)
    return config, tmp_path / "best.ckpt", net.set_train(False)


@pytest.mark.parametrize(("batch", "tried"), [(1, [1]), (3, [3]), (0, [1, 2, 5])])
def test_exported_files_compute_the_network(trained, tmp_path, capsys, batch, tried):
    config, checkpoint, net = trained
    output = tmp_path / "out.mindir"
    mindir.export_checkpoint(config, checkpoint, {batch: output}, Form(), 1e-5)
    exported = nn.GraphCell(ms.load(str(output)))
    for size in tried:
        images = Tensor(np.random.RandomState(size).standard_normal((size, 3, 16, 24)).astype(np.float32))
        logits = exported(images).asnumpy()
        assert logits.shape == (size, 7)
        assert np.abs(logits - net(images).asnumpy()).max() < 1e-5
    printed = capsys.readouterr().out
    assert str(output) in printed
    assert "largest difference" in printed
    assert [path.name for path in tmp_path.glob("*.mindir")] == ["out.mindir"]


def operators_of(path):
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    info = model.user_info  # a list of entries in MindSpore 2.7
    said = {entry.key: entry.value for entry in info} if hasattr(info, "add") else dict(info)
    return {node.op_type.split("::")[-1].split(":")[0] for node in nodes}, said


@pytest.mark.parametrize("target", ["cpu", "ascend"])
def test_the_file_holds_the_kernels_of_its_target_and_says_what_was_verified(trained, tmp_path, capsys, target):
    config, checkpoint, net = trained
    output = tmp_path / "out.mindir"
    mindir.export_checkpoint(config, checkpoint, {2: output}, Form(), 1e-4, target)
    operators, said = operators_of(output)
    assert ("GeLU" in operators, "Tanh" in operators) == ((True, False) if target == "ascend" else (False, True))
    assert said["target"] == target
    assert said["tokens"] == "2(50%)+4"
    assert re.fullmatch(r"largest difference \S+ on 32 validation images", said["verified"])
    assert f"for {target}, {said['verified']}" in capsys.readouterr().out
    images = Tensor(np.random.RandomState(0).standard_normal((2, 3, 16, 24)).astype(np.float32))
    assert np.abs(nn.GraphCell(ms.load(str(output)))(images).asnumpy() - net(images).asnumpy()).max() < 1e-4


@pytest.mark.parametrize(
    ("spec", "batch", "uint8"),
    [
        ("1,3(30%,30%)+fused", 0, True),
        pytest.param("1,2(30%,50%)+3", 3, False, marks=pytest.mark.slow),
        pytest.param("<2(50%,norm)+3;3(30%,lowest)", 1, True, marks=pytest.mark.slow),
    ],
)
def test_a_file_may_tell_what_it_keeps_and_take_bytes(trained, tmp_path, spec, batch, uint8):
    config, checkpoint, net = trained
    output, config = tmp_path / "out.mindir", with_tokens(config, spec)
    mindir.export_checkpoint(config, checkpoint, {batch: output}, Form(kept=True, uint8=uint8), 1e-5)
    shape, said = releases.read_mindir(output.read_bytes())
    assert shape == [batch or -1, *((16, 24, 3) if uint8 else (3, 16, 24))]
    pixels = np.random.RandomState(0).randint(0, 256, (batch or 2, 16, 24, 3)).astype(np.uint8)
    images = normalise(pixels, config.data.mean, config.data.std)
    expected = trace(net.with_tokens(spec), Tensor(images))
    outputs = nn.GraphCell(ms.load(str(output)))(Tensor(pixels if uint8 else images))
    found = mindir.named(outputs, json.loads(said["outputs"]))
    assert np.abs(found.pop("logits") - expected.logits).max() < 1e-5
    assert found.keys() == {f"kept.{block}" for block in expected.kept}
    for block, kept in expected.kept.items():
        assert (found[f"kept.{block}"] == kept).all()


def test_a_file_that_keeps_other_tokens_is_deleted(trained, tmp_path, monkeypatch):
    """Also where its logits are right."""
    config, checkpoint, _ = trained
    ask = mindir.ask_network

    def others(*arguments):
        expected = ask(*arguments)
        return replace(expected, kept={block: kept + 1 for block, kept in expected.kept.items()})

    monkeypatch.setattr(mindir, "ask_network", others)
    with pytest.raises(RunError, match=r"kept\.2 is not the network's on 32 of 32 validation images"):
        mindir.export_checkpoint(config, checkpoint, {1: tmp_path / "out.mindir"}, Form(kept=True), 1e-4)
    assert not (tmp_path / "out.mindir").exists()


@pytest.mark.parametrize("spoilt", [1.0, pytest.param(np.nan, marks=pytest.mark.slow)])
def test_a_file_that_computes_something_else_is_deleted(trained, tmp_path, monkeypatch, spoilt):
    config, checkpoint, _ = trained
    graph_cell = nn.GraphCell

    def spoil(graph):
        cell = graph_cell(graph)

        def run(images):
            logits, *kept = outputs if isinstance(outputs := cell(images), tuple) else (outputs,)
            return (logits + spoilt, *kept)

        return run

    monkeypatch.setattr(nn, "GraphCell", spoil)
    (tmp_path / "out.mindir").write_text("an older file")
    with pytest.raises(RunError, match="it was not kept"):
        mindir.export_checkpoint(config, checkpoint, {1: tmp_path / "out.mindir"}, Form(), 1e-4)
    assert [path.name for path in tmp_path.glob("*.mindir")] == ["out.mindir"]
    assert (tmp_path / "out.mindir").read_text() == "an older file"


def test_outputs_that_cannot_be_written_are_refused(trained, tmp_path):
    config, checkpoint, _ = trained
    with pytest.raises(UserError, match=r"must end in \.mindir"):
        mindir.export_checkpoint(config, checkpoint, {1: tmp_path / "out.onnx"}, Form(), 1e-4)
    with pytest.raises(UserError, match="does not exist"):
        mindir.export_checkpoint(config, checkpoint, {1: tmp_path / "no" / "out.mindir"}, Form(), 1e-4)


@pytest.mark.long
def test_wherever_a_call_fails_the_file_is_whole(tmp_path):
    """Each call that touches the folder fails in one of four ways: one line, and the file is whole, old or new."""
    config, output = Config(model=replace(hostile.MODEL, depth=1)), tmp_path / "out.mindir"
    save_weights(tmp_path / "best.ckpt", config, from_config(config.model))

    def export():
        mindir.export_checkpoint(config, tmp_path / "best.ckpt", {1: output}, Form(), 1e-4)

    def check():
        assert nn.GraphCell(ms.load(str(output)))(Tensor(np.zeros((1, 3, 8, 8), np.float32))).shape == (1, 3)

    check_each_call(export, tmp_path, {"best.ckpt", "out.mindir"}, check, more_than=10)
