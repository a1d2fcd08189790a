"""MindIR: what is written computes what the network computes."""

import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import ModelProto

from src.config import Config
from src.errors import RunError, UserError
from src.export import mindir
from src.models import from_config
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
    mindir.export_checkpoint(config, checkpoint, output, batch, tolerance=1e-5)
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
    mindir.export_checkpoint(config, checkpoint, output, 2, tolerance=1e-4, target=target)
    operators, said = operators_of(output)
    assert ("GeLU" in operators, "Tanh" in operators) == ((True, False) if target == "ascend" else (False, True))
    assert said["target"] == target
    assert said["tokens"] == "2(50%)+4"
    assert re.fullmatch(r"largest difference \S+ on CPU", said["verified"])
    assert f"for {target}, {said['verified']}" in capsys.readouterr().out
    images = Tensor(np.random.RandomState(0).standard_normal((2, 3, 16, 24)).astype(np.float32))
    assert np.abs(nn.GraphCell(ms.load(str(output)))(images).asnumpy() - net(images).asnumpy()).max() < 1e-4


@pytest.mark.parametrize("spoilt", [1.0, np.nan])
def test_a_file_that_computes_something_else_is_deleted(trained, tmp_path, monkeypatch, spoilt):
    config, checkpoint, _ = trained
    graph_cell = nn.GraphCell
    monkeypatch.setattr(nn, "GraphCell", lambda graph: lambda images: graph_cell(graph)(images) + spoilt)
    (tmp_path / "out.mindir").write_text("an older file")
    with pytest.raises(RunError, match="the file was deleted"):
        mindir.export_checkpoint(config, checkpoint, tmp_path / "out.mindir", 1, tolerance=1e-4)
    assert [path.name for path in tmp_path.glob("*.mindir")] == ["out.mindir"]
    assert (tmp_path / "out.mindir").read_text() == "an older file"


def test_outputs_that_cannot_be_written_are_refused(trained, tmp_path):
    config, checkpoint, _ = trained
    with pytest.raises(UserError, match=r"must end in \.mindir"):
        mindir.export_checkpoint(config, checkpoint, tmp_path / "out.onnx", 1, 1e-4)
    with pytest.raises(UserError, match="does not exist"):
        mindir.export_checkpoint(config, checkpoint, tmp_path / "no" / "out.mindir", 1, 1e-4)


@pytest.mark.slow
def test_wherever_a_call_fails_the_file_is_whole(tmp_path):
    """Each call that touches the folder fails in one of four ways: one line, and the file is whole, old or new."""
    config, output = Config(model=hostile.MODEL), tmp_path / "out.mindir"
    save_weights(tmp_path / "best.ckpt", config, from_config(hostile.MODEL))

    def export():
        mindir.export_checkpoint(config, tmp_path / "best.ckpt", output, 1, tolerance=1e-4)

    def check():
        assert nn.GraphCell(ms.load(str(output)))(Tensor(np.zeros((1, 3, 8, 8), np.float32))).shape == (1, 3)

    check_each_call(export, tmp_path, {"best.ckpt", "out.mindir"}, check, more_than=10)
