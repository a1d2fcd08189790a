"""What can be shown about Ascend 910A without one: operators, types, shapes, precision, releases."""

import json
import subprocess
import sys
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.ascend.check import problems_of
from src.ascend.graphs import Node, forward_graph, read_ir
from src.ascend.operators import FIRST, OPERATORS
from src.config import ModelConfig
from src.models import from_config
from src.runtime import releases
from tests.helpers.commands import ROOT, SHARED, run_module
from tests.training.test_predictors import write_dense


@pytest.mark.skipif(not SHARED.is_dir(), reason="the lists that the table was made from are not here")
def test_the_table_of_operators_agrees_with_its_sources():
    lists = json.loads((SHARED / "ascend910a_ops.json").read_text())
    sets = {FIRST: "ge_graph_ops", "2.6": "ge_2_6", "pass": "ge_pass"}
    for name, operator in OPERATORS.items():
        if name != "Dropout":  # has an adapter and a pass
            assert (name in lists["ge_graph_ops"]) == (operator.route == FIRST), name
        assert name in lists[sets[operator.route]], name
        assert set(operator.kernel.split(", ")) - {""} <= set(lists["aicore_910"]), name


RANKED = [f"6(55%,{ranking})+11" for ranking in ("lowest", "norm", "received", "stride")]


@pytest.mark.parametrize(
    "spec",
    [*(pytest.param(spec, marks=pytest.mark.slow) for spec in ("none", "6(45%)+fused", *RANKED)), "4,7(30%,30%)+10"],
)
def test_every_operator_of_the_forward_graph_has_a_route(spec):
    net = from_config(ModelConfig(num_classes=1000, tokens=spec), target="ascend").set_train(False)
    nodes = forward_graph(net, Tensor(np.zeros((1, 3, 224, 224), np.float32)))
    used = {node.primitive for node in nodes}
    assert {"MatMul", "LayerNorm", "Softmax", "GeLU"} <= used
    assert not used & {"Tanh", "Erf"}
    assert problems_of(nodes, training=False) == []
    if spec != "none":
        assert {"Gather", "ScatterNd"} <= used


@pytest.mark.parametrize(
    ("spec", "pool"),
    [
        ("<2..4(50%,random)+next;5(50%)+6", "cls"),
        pytest.param("<2(50%,centre)+4;4(50%,received)", "avg", marks=pytest.mark.slow),
        pytest.param("<2(50%,norm)+4;4(50%)+fused", "cls", marks=pytest.mark.slow),
    ],
)
def test_every_operator_of_routes_has_a_route(spec, pool):
    small = ModelConfig("skipvit_ti_16_224", spec, 32, num_classes=5, patch_size=8, depth=6, pool=pool)
    net = from_config(small, target="ascend").set_train(False)
    nodes = forward_graph(net, Tensor(np.zeros((2, 3, 32, 32), np.float32)), *net.sample(2, 0))
    assert problems_of(nodes, training=False) == []
    assert {"Gather", "ScatterNd"} <= {node.primitive for node in nodes}


def test_resampled_positions_are_a_matrix_product():
    small = ModelConfig("skipvit_ti_16_224", num_classes=5, image_size=32, patch_size=8, depth=1)
    net = from_config(small, target="ascend").set_train(False)
    other = net.with_tokens("none", (24, 40)).set_train(False)
    own, nodes = (
        forward_graph(network, Tensor(np.zeros((1, 3, *size), np.float32)))
        for network, size in ((net, (32, 32)), (other, (24, 40)))
    )
    assert problems_of(nodes, training=False) == []
    count = [sum(node.primitive == "MatMul" for node in graph) for graph in (own, nodes)]
    assert count[1] == count[0] + 1


class Mint(nn.Cell):
    def construct(self, x):
        return ms.mint.matmul(x, x)


class GatherElements(nn.Cell):
    def construct(self, x):
        return ops.gather_elements(x, 1, ops.cast(x, ms.int32))


class TensorSum(nn.Cell):
    def construct(self, x):
        return x.sum()


class TimesNumber(nn.Cell):
    def construct(self, x):
        return x * 2.5


class TopK(nn.Cell):
    def construct(self, x):
        best, _ = ops.topk(x, 2)
        return best


@pytest.mark.parametrize(
    ("planted", "named"),
    [(Mint, "MatMulExt"), (GatherElements, "GatherD"), (TensorSum, "SumExt"), (TimesNumber, "Muls"), (TopK, "TopK")],
)
def test_an_operator_without_a_route_is_found(planted, named):
    problems = problems_of(forward_graph(planted(), Tensor(np.ones((3, 3), np.float32))), training=False)
    assert any(problem.startswith(f"{named} ") for problem in problems), problems


def test_types_shapes_and_constants_are_looked_at():
    text = "\n".join(
        [
            "  %1(x) = PrimFunc_Gather(%para1, %para2, I64(0)) {instance name: g}",
            "      : (<Tensor[Float16], (4, 8)>, <Tensor[Int64], (2)>) -> (<Tensor[Float16], (2, 8)>)",
            "  %2(y) = PrimFunc_Add(%1, Tensor(shape=[], dtype=Float32, value=1e+10)) {instance name: a}",
            "      : (<Tensor[Float32], (2, 8)>, <Tensor[Float32], ()>) -> (<Tensor[Float32], (-1, 8)>)",
            "  %3(z) = Depend(%2, %1)",
            "      : (<Tensor[Float32], (2, 8)>) -> (<Tensor[Float32], (2, 8)>)",
        ]
    )
    nodes = read_ir(text)
    assert nodes == [
        Node(
            "Gather",
            frozenset({"float16", "int64"}),
            False,
            (),
            (("float16", (4, 8)), ("int64", (2,)), ("float16", (2, 8))),
        ),
        Node("Add", frozenset({"float32"}), True, (1e10,), (("float32", (2, 8)), ("float32", ()))),
    ]
    assert problems_of(nodes, training=True) == [
        "Gather has no kernel for int64", "Add has a dynamic shape", "the constant 1e+10 of Add is beyond float16"
    ]  # fmt: skip


def test_a_dynamic_batch_is_found_in_an_exported_graph():
    net = from_config(ModelConfig("skipvit_ti_16_224", num_classes=1000, image_size=32, depth=1)).set_train(False)
    nodes = forward_graph(net, Tensor(shape=[None, 3, 32, 32], dtype=ms.float32))
    assert any("has a dynamic shape" in problem for problem in problems_of(nodes, training=False))


@pytest.mark.slow
def test_the_command_checks_forward_and_training_graphs(tmp_path):
    options = ["--config", "configs/skipvit_s.yaml", "--specs", "6,8(35%,35%)+10"]
    options += ["--markdown", tmp_path / "report.md", "model.embed_dim=48"]
    done = run_module("src.tools.ascend_check", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    report = (tmp_path / "report.md").read_text()
    assert report.strip() in done.stdout
    for kind in ("forward", "training"):
        (row,) = [line for line in report.splitlines() if line.startswith(f"| `6,8(35%,35%)+10` | {kind} |")]
        assert row.endswith("| none |")
        assert "| 0 |" in row
    for name in ("NPUGetFloatStatusV2", "AdamWeightDecay", "SoftmaxCrossEntropyWithLogits", "Gather"):
        assert f"| {name} |" in report


STATUS = """
from src.ascend.graphs import compiled_graph, dump_ir
with dump_ir() as folder:
    from src.ascend.networks import training_inputs, training_step
    from src.runtime import device
    from tests.helpers.configs import load

    device.set_up("CPU", fused_kernels="off")
    overrides = ["train.loss_scale_type=dynamic", "model.num_classes=10", "model.depth=1", "model.tokens=none"]
    config = load("configs/quickstart.yaml", overrides)
    step = training_step(config)
    graph = compiled_graph(folder, step, *training_inputs(config, step, 2))
    names = [node.primitive for node in graph if "FloatStatus" in node.primitive or node.primitive == "MatMul"]
    print(*names)
"""


@pytest.mark.slow
def test_an_overflow_before_a_step_is_not_counted_to_it():
    """The hardware's status is cleared before the forward pass, and read after the gradients. Not run on a 910A."""
    command = [sys.executable, "-c", STATUS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    names = done.stdout.split()
    products = [number for number, name in enumerate(names) if name == "MatMul"]
    assert names[: products[0]] == ["NPUClearFloatStatusV2"]
    assert names[products[-1] + 1 :] == ["NPUGetFloatStatusV2", "NPUClearFloatStatusV2"]


@pytest.mark.parametrize("release", ["2.2.14", "2.5.0", "2.10.0"])
def test_each_release_is_asked_in_its_own_way(monkeypatch, release):
    calls = []

    def set_context(**options):
        if "jit_config" in options and release == "2.2.14":
            raise ValueError("jit_config is not a context key")
        calls.append(options)

    fake = SimpleNamespace(set_context=set_context, __version__=release)
    if release == "2.10.0":
        fake.set_device = lambda target: calls.append({"set_device": target})
        precision = SimpleNamespace(precision_mode=lambda mode: calls.append({"precision_mode": mode}))
        fake.device_context = SimpleNamespace(ascend=SimpleNamespace(op_precision=precision))
    monkeypatch.setattr(releases, "ms", fake)
    releases.set_device("Ascend")
    releases.set_ascend()
    mode = "allow_fp32_to_fp16"
    assert calls == {
        "2.2.14": [{"device_target": "Ascend"}, {"ascend_config": {"precision_mode": mode}}],
        "2.5.0": [
            {"device_target": "Ascend"},
            {"jit_config": {"jit_level": "O2"}},
            {"ascend_config": {"precision_mode": mode}},
        ],
        "2.10.0": [{"set_device": "Ascend"}, {"jit_config": {"jit_level": "O2"}}, {"precision_mode": mode}],
    }[release]  # fmt: skip


@pytest.mark.slow
def test_the_graphs_of_phases_are_checked_at_their_sizes(tmp_path):
    small = ["model.embed_dim=48", "model.depth=2", "train.phases=[{epochs: 1, tokens: none, image_size: 96}]"]
    options = ["--config", "configs/skipvit_s.yaml", "--markdown", tmp_path / "report.md", "model.tokens=none"]
    done = run_module("src.tools.ascend_check", *options, *small)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[:2] for row in rows] == [["| `none at 96`", "forward"], ["| `none at 96`", "training"]]
    assert all(row.endswith("| none |") for row in rows)


@pytest.mark.slow
def test_both_graphs_of_accumulated_gradients_are_checked(tmp_path):
    """That of a batch, and that of the update; with a learning rate a layer."""
    small = ["model.embed_dim=48", "model.depth=2", "model.tokens=1(50%)+2", "model.image_size=32"]
    tuned = ["train.accumulate=2", "optimizer.layer_decay=0.75", "train.freeze_blocks=1", "train.clip_norm=1"]
    options = ["--config", "configs/skipvit_s.yaml", "--markdown", tmp_path / "report.md", *small, *tuned]
    done = run_module("src.tools.ascend_check", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    report = (tmp_path / "report.md").read_text()
    rows = [line for line in report.splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[1] for row in rows] == 2 * ["forward", "training", "training"]  # the dense warm-up too
    assert all(row.endswith("| none |") for row in rows)
    assert "| AdamWeightDecay | training |" in report


@pytest.mark.slow
def test_training_under_masks_has_a_route_with_its_teacher(tmp_path):
    teacher = write_dense(tmp_path, "model.depth=2")
    small = ["model.image_size=16", "model.patch_size=4", "model.embed_dim=16", "model.num_heads=2", "model.depth=2",
             "model.num_classes=5", "model.drop_path_rate=0.1", "model.tokens=1,2(30%,30%,predictor)"]  # fmt: skip
    done = run_module(
        "src.tools.ascend_check", "--config", ROOT / "configs/dynamicvit_s.yaml", *small, f"predictor.teacher={teacher}"
    )
    assert done.returncode == 0, done.stderr
    assert {"LogSoftmaxGrad", "ReduceMax"} <= {line.split(" |")[0].strip("| ") for line in done.stdout.splitlines()}
