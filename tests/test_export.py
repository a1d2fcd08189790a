"""MindIR: what is written computes what the network computes, from primitives that Ascend's graph engine knows."""

from pathlib import Path

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import ModelProto

from src import mindir
from src.config import load
from src.errors import FailureError, UserError
from src.models import from_config
from src.training.checkpoint import save_network
from tests.conftest import SHARED
from tests.test_schedule import TABLE1

NAMES = Path(__file__).parent / "data" / "ge_graph_ops.txt"
GE_GRAPH_OPS = {line for line in NAMES.read_text().splitlines() if line and not line.startswith("#")}
BOOKKEEPING = {"Constant", "Depend", "Load", "UpdateState", "MakeTuple", "TupleGetItem", "Return", "Partial"}


def primitives(path):
    model = ModelProto()
    model.ParseFromString(Path(path).read_bytes())
    graphs = [model.graph, *model.functions]
    return {node.op_type.split("::")[-1].split(":")[0] for graph in graphs for node in graph.node}


@pytest.mark.parametrize("spec", [*TABLE1, "4,7,10(30%,30%,30%)+fused", "6(55%)"])
def test_every_primitive_has_a_route_in_ge(tmp_path, spec):
    net = mindcv.create_model("skipvit_s_16_224", tokens=spec).set_train(False)
    ms.export(net, Tensor(np.zeros((1, 3, 224, 224), np.float32)), file_name=str(tmp_path / "m"), file_format="MINDIR")
    used = primitives(tmp_path / "m.mindir") - BOOKKEEPING
    assert {"MatMul", "LayerNorm", "Softmax"} <= used
    assert used - GE_GRAPH_OPS == set()
    if spec != "none":
        assert {"Gather", "ScatterNd"} <= used


def test_the_list_of_primitives_finds_what_has_none(tmp_path):
    class Muls(nn.Cell):
        def construct(self, x):
            return x * 2.5

    ms.export(Muls(), Tensor(np.ones(3, np.float32)), file_name=str(tmp_path / "m"), file_format="MINDIR")
    assert primitives(tmp_path / "m.mindir") - BOOKKEEPING - GE_GRAPH_OPS


@pytest.mark.skipif(not SHARED.is_dir(), reason="no original of the list here")
def test_the_list_of_primitives_is_the_original():
    import json

    assert set(json.loads((SHARED / "ascend910a_ops.json").read_text())["ge_graph_ops"]) == GE_GRAPH_OPS


@pytest.fixture
def trained(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model: {tokens: 2(50%)+4, image_size: [16, 24], patch_size: 4, embed_dim: 16, depth: 4, num_heads: 2}"
    )
    config = load(path)
    net = from_config(load(path, ["model.num_classes=7"]).model)
    save_network(tmp_path / "best.ckpt", net)
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


@pytest.mark.parametrize("spoilt", [1.0, np.nan])
def test_a_file_that_computes_something_else_is_deleted(trained, tmp_path, monkeypatch, spoilt):
    config, checkpoint, _ = trained
    graph_cell = nn.GraphCell
    monkeypatch.setattr(mindir.nn, "GraphCell", lambda graph: lambda images: graph_cell(graph)(images) + spoilt)
    (tmp_path / "out.mindir").write_text("an older file")
    with pytest.raises(FailureError, match="the file was deleted"):
        mindir.export_checkpoint(config, checkpoint, tmp_path / "out.mindir", 1, tolerance=1e-4)
    assert [path.name for path in tmp_path.glob("*.mindir")] == ["out.mindir"]
    assert (tmp_path / "out.mindir").read_text() == "an older file"


def test_outputs_that_cannot_be_written_are_refused(trained, tmp_path):
    config, checkpoint, _ = trained
    with pytest.raises(UserError, match=r"must end in \.mindir"):
        mindir.export_checkpoint(config, checkpoint, tmp_path / "out.onnx", 1, 1e-4)
    with pytest.raises(UserError, match="does not exist"):
        mindir.export_checkpoint(config, checkpoint, tmp_path / "no" / "out.mindir", 1, 1e-4)
