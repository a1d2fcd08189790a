"""LV-ViT and DynamicViT's predictors in ONNX: the float64 references' logits and kept tokens, without MindSpore."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest

from src.config import Config, ModelConfig
from src.export.form import Form
from src.export.onnx import lvvit as onnx_lvvit
from src.export.onnx.file import build
from src.weights import Checkpoint
from src.weights.timm import from_timm
from tests.export.test_onnx import check, in_onnxruntime, in_openvino
from tests.helpers import reference
from tests.helpers import reference_dynamicvit as dynamicvit
from tests.helpers import reference_lvvit as lvvit

IMAGES = np.random.RandomState(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
STAGES = "2,3(30%,50%,predictor)"
FUSED = "1,3(50%,40%)+fused"  # in its second drop a fused token wins for some image, and loses for another
MODEL = ModelConfig(
    "lvvit_s_16_224", "none", 16, 5, patch_size=4, embed_dim=24, depth=4, num_heads=4, act="gelu_erf"
)  # fmt: skip
PREDICTORS = dynamicvit.random_predictors(1, 24, stages=2)
DIVISOR = 2


@pytest.fixture(scope="module")
def weights():
    return lvvit.random_weights(5)


def built(weights, spec, form, **changed):
    arrays = {name: weight.astype(np.float32) for name, weight in weights.items()}
    checkpoint = Checkpoint(Path("weights"), from_timm(arrays), None)
    config = Config(model=replace(MODEL, tokens=spec, **changed))
    return onnx_ir.to_proto(build(config, checkpoint, form, {"tokens": spec})).SerializeToString()


@pytest.mark.parametrize("spec", ["none", "2(50%)+4", "2(50%)", FUSED, "<2(50%,norm)+3;3(30%,lowest)"])
def test_logits_and_kept_tokens_of_lvvit_are_the_references(weights, spec):
    expected = lvvit.forward(weights, IMAGES, spec, divisor=DIVISOR)
    check(in_onnxruntime(built(weights, spec, Form(3, kept=True)), images=IMAGES), expected.logits, expected.kept)
    dynamic = built(weights, spec, Form(0, kept=True))
    for part in (slice(0, 1), slice(1, 3)):
        some = {block: places[part] for block, places in expected.kept.items()}
        check(in_onnxruntime(dynamic, images=IMAGES[part]), expected.logits[part], some)


def test_a_fused_token_that_stays_is_in_no_largest(weights, monkeypatch):
    """In the second drop one stays, and another is fused away; were they in the largest, the logits would be others."""
    expected = lvvit.forward(weights, IMAGES, FUSED, divisor=DIVISOR)
    assert set((expected.kept[3] >= 16).any(1)) == {True, False}
    monkeypatch.setattr(onnx_lvvit, "follow", lambda *_: ({}, None))
    found = in_onnxruntime(built(weights, FUSED, Form(3)), images=IMAGES)["logits"]
    assert np.abs(found - expected.logits).max() > 0.01


def test_a_drop_that_would_fuse_nothing(weights):
    expected = lvvit.forward(weights, IMAGES, "none", divisor=DIVISOR)
    check(in_onnxruntime(built(weights, "1(1%)+fused", Form(3, kept=True)), images=IMAGES), expected.logits, {})


@pytest.mark.parametrize("spec", [pytest.param("2(50%)+4", marks=pytest.mark.slow), FUSED])
def test_openvino_computes_lvvit(weights, spec):
    expected = lvvit.forward(weights, IMAGES, spec, divisor=DIVISOR)
    check(in_openvino(built(weights, spec, Form(0, kept=True)), images=IMAGES), expected.logits, expected.kept)


@pytest.mark.parametrize("backbone", ["vit", "lvvit"])
@pytest.mark.parametrize("engine", [in_onnxruntime, pytest.param(in_openvino, marks=pytest.mark.slow)])
def test_predictors_rank(weights, backbone, engine):
    if backbone == "vit":
        weights, divisor = reference.random_weights(0, depth=4), 1
        changed = {"name": "skipvit_s_16_224"}
    else:
        divisor, changed = DIVISOR, {}
    weights = {**weights, **PREDICTORS}
    expected = dynamicvit.topk_pass(weights, IMAGES, STAGES, divisor=divisor)
    check(engine(built(weights, STAGES, Form(3, kept=True), **changed), images=IMAGES), expected.logits, expected.kept)
    dynamic = built(weights, STAGES, Form(0, kept=True), **changed)
    some = {block: places[:1] for block, places in expected.kept.items()}
    check(engine(dynamic, images=IMAGES[:1]), expected.logits[:1], some)


def test_predictors_that_no_schedule_asks_are_left_out(weights):
    content = built({**weights, **PREDICTORS}, "2(50%)+4", Form(3), predictors=2)
    assert not any(one.name.startswith("predictors") for one in onnx.load_from_string(content).graph.initializer)
    expected = lvvit.forward(weights, IMAGES, "2(50%)+4", divisor=DIVISOR)
    assert np.abs(in_onnxruntime(content, images=IMAGES)["logits"] - expected.logits).max() < 2e-4


def test_norms_and_divisor_are_folded_and_every_dimension_is_a_number(weights):
    model = onnx.load_from_string(built({**weights, **PREDICTORS}, STAGES, Form(2, kept=True, uint8=True)))
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    infos = {info.name: info for info in [*graph.input, *graph.output, *graph.value_info]}
    assert {name for node in graph.node for name in node.output} <= infos.keys()
    for info in infos.values():
        assert all(dimension.HasField("dim_value") for dimension in info.type.tensor_type.shape.dim), info
    operators = [node.op_type for node in graph.node]
    assert operators.count("Conv") == 4
    assert "BatchNormalization" not in operators
    assert [node.op_type for node in graph.node if node.op_type in ("Mul", "Div")].count("Mul") == 4 + 1  # scales, 0.5


def test_weights_of_half_size(weights):
    weights = {**weights, **PREDICTORS}
    expected = in_onnxruntime(built(weights, STAGES, Form(3)), images=IMAGES)["logits"]
    found = in_onnxruntime(built(weights, STAGES, Form(3, float16=True)), images=IMAGES)["logits"]
    assert 1e-5 < np.abs(found - expected).max() < 0.2
