"""LV-ViT and DynamicViT's predictors on paper of Ascend 910A: operators, types, bytes and estimate."""

import re
import subprocess
import sys

import numpy as np
import pytest
from mindspore import Tensor

from src.ascend.check import problems_of
from src.ascend.cost_model import CUBE_SHARE, MACS_PER_S, estimate
from src.ascend.graphs import Node, forward_graph
from src.config import ModelConfig
from src.models import from_config
from tests.helpers.commands import ROOT, run_module

QUICK = ["--config", "configs/lvvit_quick.yaml", "train.amp_level=O2", "model.depth=1", "model.image_size=64"]
QUICK += ["model.patch_size=16"]


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("lvvit_ti_16_224", "1,2(50%,50%)+fused"),
        ("skipvit_ti_16_224", "1,2(30%,30%,predictor)"),
        pytest.param("lvvit_ti_16_224", "1,2(30%,30%,predictor)", marks=pytest.mark.slow),
        pytest.param("lvvit_ti_16_224", "1(30%)+2", marks=pytest.mark.slow),
    ],
)
def test_every_operator_of_the_forward_graph_has_a_route(name, spec):
    net = from_config(ModelConfig(name, spec, 16, 5, patch_size=4, depth=2), target="ascend").set_train(False)
    nodes = forward_graph(net, Tensor(np.zeros((2, 3, 16, 16), np.float32)))
    used = {node.primitive for node in nodes}
    assert problems_of(nodes, training=False) == []
    assert ("LogSoftmax" in used) == ("predictor" in spec)
    assert ({"Conv2D", "BatchNorm", "ReLU", "ReduceMax"} <= used) == (name == "lvvit_ti_16_224")


GRAPH = """
import sys
from src.ascend.graphs import compiled_graph, dump_ir
with dump_ir() as folder:
    from src.ascend.check import problems_of
    from src.ascend.networks import training_inputs, training_step
    from src.runtime import device
    from tests.helpers.configs import load

    device.set_up("CPU", fused_kernels="off")
    overrides = ["model.num_classes=10", "model.depth=2", "model.tokens=1,2(50%,50%)+fused", *sys.argv[1:]]
    step = training_step(config := load("configs/lvvit_quick.yaml", overrides))
    nodes = compiled_graph(folder, step, *training_inputs(config, step, 2))
    print(problems_of(nodes, training=True), len({node.primitive for node in nodes} & {"ReverseV2", "ReluGrad"}))
    for node in nodes:
        if node.primitive in ("BatchNorm", "BatchNormGrad"):
            print(node.primitive, *(kind for kind, _ in node.tensors))
    print({str(weight.dtype) for weight in step.objective.network.patch_embed.bn1.get_parameters()})
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", [["train.amp_level=O2"], ["train.amp_level=O3", "token_labels.maps=maps"]])
def test_the_stems_norms_stay_in_the_type_of_their_input(more):
    """Their statistics and weights are float32; what surrounds them is float16, with no cast between."""
    command = [sys.executable, "-c", GRAPH, *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    problems, *norms, weights = done.stdout.splitlines()
    assert problems == "[] 2"
    assert norms == 3 * ["BatchNorm" + 2 * " float16" + 4 * " float32"] + 3 * [
        "BatchNormGrad float16 float16 float32 float32 float32 float16 float32 float32"
    ]
    assert weights == "{'Float32'}"


def test_a_convolution_takes_its_multiplications_and_so_do_its_gradients():
    """Of 3 channels 16 are multiplied."""
    image, kernel, out = (8, 3, 64, 64), (64, 3, 7, 7), (8, 64, 32, 32)
    expected = 8 * 32 * 32 * 64 * 16 * 49 / (MACS_PER_S * CUBE_SHARE)
    for name, shapes in {"Conv2D": (image, kernel, out), "Conv2DBackpropInput": (out, kernel, image),
                         "Conv2DBackpropFilter": (out, image, kernel)}.items():  # fmt: skip
        node = Node(name, frozenset({"float16"}), False, (), tuple(("float16", shape) for shape in shapes))
        assert estimate([node])[name] == pytest.approx(expected)


@pytest.mark.long
def test_the_command_counts_bytes_without_a_class_of_mindcvs_and_estimates_times():
    done = run_module("src.tools.ascend_check", "--bytes", "--specs", "none", "1(50%)+fused", *QUICK)
    assert done.returncode == 0, done.stderr[-2000:]
    totals = dict(re.findall(r"^\| ([^|]+) \| +\d+ \| (\d+) \|$", done.stdout, re.M))
    assert set(totals) == {"`none`", "`1(50%)+fused`"}
    assert "MindCV has no LV-ViT to compare with. Not run on a 910A" in done.stdout
    assert re.search(r"^\| Conv2D \| [\d.]+ \| [\d.]+ \|$", done.stdout, re.M)
    done = run_module("src.tools.ascend_check", "--estimate", "--specs", "1(50%)+fused", *QUICK, "data.batch_size=8")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "not run on a 910A" in done.stdout
