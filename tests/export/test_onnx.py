"""ONNX, written without MindSpore: the float64 reference's logits and kept tokens in onnxruntime and OpenVINO."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnxscript import GraphBuilder

from src.config import Config, ModelConfig
from src.errors import UserError
from src.export.onnx.file import IR_VERSION, OPSET, Form, build
from src.export.onnx.tokens import rank
from src.schedules import Drop
from src.weights import Checkpoint
from src.weights.positions import adapt
from src.weights.timm import from_timm
from tests.helpers import reference
from tests.helpers.commands import ROOT

SIZES = {"image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 12, "num_heads": 4, "num_classes": 5}
WEIGHTS = {name: weight.astype(np.float32) for name, weight in reference.random_weights(0).items()}
IMAGES = np.random.RandomState(1).standard_normal((3, 3, 16, 16)).astype(np.float32)
SPECS = [
    "none", "6(55%)+11", "4,7(30%,30%)+10", "6(45%)+fused", "4,7,10(30%,30%,30%)+fused", "6(55%)", "2(90%)+3",
    *(f"4,7(30%,30%,{ranking})+10" for ranking in ("lowest", "norm", "received", "stride", "centre")),
    "6(45%,stride)+fused",  # fused by attention all the same
    "2(50%)+6;7(50%)+11", "3..4(50%,lowest)+next", "<1(50%,norm)", "<2..5(50%,norm)+next;6(50%)+11",
    "<2,4(30%,30%,centre)+6;<6(50%,stride)+9;9(40%)+fused",
]  # fmt: skip


def checkpoint(weights):
    return Checkpoint(Path("weights"), from_timm(weights), None)


def configured(spec, act="erf", **model):
    return Config(model=ModelConfig(**{**SIZES, "tokens": spec, "act": f"gelu_{act}", **model}))


def built(spec, form, weights=WEIGHTS, **model):
    config = configured(spec, **model)
    return onnx_ir.to_proto(build(config, checkpoint(weights), form, {"tokens": spec})).SerializeToString()


def in_onnxruntime(content, **inputs):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs)))


def in_openvino(content, **inputs):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    model = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = model(inputs)
    return {output.any_name: results[output] for output in model.outputs}


ENGINES = [in_onnxruntime, in_openvino]


def check(outputs, logits, kept):
    assert np.abs(outputs.pop("logits") - logits).max() < 2e-4
    assert outputs.keys() == {f"kept.{block}" for block in kept}
    for block, places in kept.items():
        assert outputs[f"kept.{block}"].dtype == np.int64
        assert (outputs[f"kept.{block}"] == places).all()


OFTEN = SPECS[2:5] + [SPECS[8], SPECS[10], SPECS[-1]]  # the others take long together


@pytest.mark.parametrize(
    "spec", [*OFTEN, *(pytest.param(spec, marks=pytest.mark.slow) for spec in SPECS if spec not in OFTEN)]
)
def test_logits_and_kept_tokens_are_the_references(spec):
    logits, kept = reference.forward(WEIGHTS, IMAGES, spec)
    check(in_onnxruntime(built(spec, Form(3, kept=True)), images=IMAGES), logits, kept)
    dynamic = built(spec, Form(0, kept=True))
    for part in (slice(0, 1), slice(1, 3)):
        some = {block: places[part] for block, places in kept.items()}
        check(in_onnxruntime(dynamic, images=IMAGES[part]), logits[part], some)


@pytest.mark.parametrize(
    ("spec", "batch"),
    [
        (SPECS[2], 3),
        (SPECS[4], 0),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(SPECS[2], 0), *((spec, 3) for spec in SPECS)]),
    ],
)
def test_logits_and_kept_tokens_are_the_references_in_openvino(spec, batch):
    logits, kept = reference.forward(WEIGHTS, IMAGES, spec)
    check(in_openvino(built(spec, Form(batch, kept=True)), images=IMAGES), logits, kept)


def test_without_its_ranking_other_tokens_are_kept():
    outputs = in_onnxruntime(built("4,7(30%,30%)+10", Form(3, kept=True)), images=IMAGES)
    for ranking in ("lowest", "norm", "received", "stride", "centre"):
        _, kept = reference.forward(WEIGHTS, IMAGES, f"4,7(30%,30%,{ranking})+10")
        assert not all((outputs[f"kept.{block}"] == places).all() for block, places in kept.items()), ranking


def test_the_tanh_formula_of_gelu():
    logits, kept = reference.forward(WEIGHTS, IMAGES, "6(55%)+11", act="tanh")
    check(in_onnxruntime(built("6(55%)+11", Form(3, kept=True), act="tanh"), images=IMAGES), logits, kept)


@pytest.mark.parametrize(("score", "rows"), [("cls", 1), ("mean", 2)])
@pytest.mark.parametrize("batch", [3, pytest.param(0, marks=pytest.mark.slow)])
def test_a_distilled_model(score, rows, batch):
    spec = "4,7,10(30%,30%,30%)+fused"
    weights = {name: weight.astype(np.float32) for name, weight in reference.random_weights(0, distilled=True).items()}
    logits, kept = reference.forward(weights, IMAGES, spec, rows=rows)
    _, by_other = reference.forward(weights, IMAGES, spec, rows=3 - rows)
    assert not all((places == by_other[block]).all() for block, places in kept.items())
    sizes = {"name": "skipvit_s_distilled_16_224", "distilled_score": score}
    check(in_onnxruntime(built(spec, Form(batch, kept=True), weights, **sizes), images=IMAGES), logits, kept)


def test_without_a_class_token_the_head_reads_the_mean():
    weights = {name: weight for name, weight in WEIGHTS.items() if name != "cls_token"}
    weights["pos_embed"] = weights["pos_embed"][:, 1:]
    spec = "4,7(30%,30%,received)+10"
    logits, kept = reference.forward(weights, IMAGES, spec)
    check(in_onnxruntime(built(spec, Form(0, kept=True), weights, pool="avg"), images=IMAGES), logits, kept)


def test_images_of_another_size_have_their_positions_resampled():
    images = np.random.RandomState(1).standard_normal((3, 3, 24, 16)).astype(np.float32)
    resampled = {**WEIGHTS, "pos_embed": adapt(WEIGHTS["pos_embed"], 1, (4, 4), (6, 4))}
    logits, kept = reference.forward(resampled, images, "6(55%,centre)+11")
    content = built("6(55%,centre)+11", Form(3, kept=True), image_size=(24, 16))
    check(in_onnxruntime(content, images=images), logits, kept)


def test_drops_leave_a_multiple_of_align_tokens():
    """Of 16 patches 8 would be kept, and 9 with [CLS]: 12 is the multiple, which 32% leave too."""
    logits, kept = reference.forward(WEIGHTS, IMAGES, "6(32%)+11")
    check(in_onnxruntime(built("6(55%)+11", Form(3, kept=True), align_tokens=4), images=IMAGES), logits, kept)


def order_of(scores, keep, prefix):
    """The permutation that `rank` is to find: Python's sort is stable."""

    def worth(number):
        return -65504.0 if np.isnan(number) else 0.0 if abs(number) < 2.0**-126 else float(number)

    patches = range(prefix, len(scores))
    best = set(sorted(patches, key=lambda i: -worth(scores[i]))[:keep])
    return [*range(prefix), *(i for i in patches if i in best), *(i for i in patches if i not in best)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_ties_nan_and_subnormal_numbers_are_ranked_as_in_the_model(engine, prefix):
    tokens, keep = 12 + prefix, 5
    random = np.random.RandomState(0)
    few = np.array(
        [0.0, -0.0, 1e-40, -1e-42, 1.0, -1.0, 2.0**-126, np.inf, -np.inf, np.nan, 3e38, -65504.0], np.float32
    )
    scores = np.concatenate([np.zeros((1, tokens)), np.full((1, tokens), np.nan), random.choice(few, (200, tokens))])
    scores = scores.astype(np.float32)
    builder = GraphBuilder(onnx_ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="rank"))
    given = builder.input("scores", onnx_ir.DataType.FLOAT, ["batch", tokens])
    drop = Drop(keep, tokens - prefix, before=False, fused=False, ranking="cls")
    for name, ids in zip(("shuffle", "restore"), rank(builder.op, given, drop, prefix)):
        builder.add_output(ids, name)
    model = onnx_ir.Model(builder.graph, ir_version=IR_VERSION)
    found = engine(onnx_ir.to_proto(model).SerializeToString(), scores=scores)
    expected = np.array([order_of(row, keep, prefix) for row in scores])
    assert (found["shuffle"] == expected).all()
    assert (found["restore"] == expected.argsort(1)).all()


@pytest.mark.parametrize("spec", [pytest.param("none", marks=pytest.mark.slow), SPECS[-1]])
def test_in_a_file_for_one_batch_size_every_dimension_is_a_number(spec):
    model = onnx.load_from_string(built(spec, Form(2, kept=True, uint8=True)))
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    infos = {info.name: info for info in [*graph.input, *graph.output, *graph.value_info]}
    values = {name for node in graph.node for name in node.output}
    assert values <= infos.keys()
    for info in infos.values():
        assert all(dimension.HasField("dim_value") for dimension in info.type.tensor_type.shape.dim), info
    assert [(model.ir_version, item.domain, item.version) for item in model.opset_import] == [(10, "", 20)]


def test_images_of_bytes_are_normalised_inside():
    pixels = np.random.RandomState(2).randint(0, 256, (3, 16, 16, 3), np.uint8)
    data = Config().data
    images = ((pixels / 255 - data.mean) / data.std).transpose(0, 3, 1, 2).astype(np.float32)
    expected = in_onnxruntime(built("6(55%)+11", Form(0)), images=images)
    found = in_onnxruntime(built("6(55%)+11", Form(0, uint8=True)), images=pixels)
    assert expected.keys() == found.keys() == {"logits"}
    assert np.abs(found["logits"] - expected["logits"]).max() < 1e-4


def test_weights_of_half_size():
    whole, half = built("none", Form(3)), built("none", Form(3, float16=True))
    assert len(half) < 0.6 * len(whole)
    expected, found = (in_onnxruntime(content, images=IMAGES)["logits"] for content in (whole, half))
    assert 1e-5 < np.abs(found - expected).max() < 0.1


def test_weights_that_do_not_fit_are_refused():
    weights = {name: weight for name, weight in WEIGHTS.items() if name != "norm.bias"}
    with pytest.raises(UserError, match=r"checkpoint weights does not fit the model; missing: norm\.beta"):
        built("none", Form(), weights)


def test_a_file_is_written_without_mindspore(tmp_path):
    np.savez(tmp_path / "weights.npz", **WEIGHTS)
    code = f"""
import sys
sys.modules.update(mindspore=None, mindcv=None)
from pathlib import Path
from src.config import Config, ModelConfig
from src.export.form import Form
from src.export.onnx.file import write
from src.weights import read_checkpoint
sizes = {SIZES}
config = Config(model=ModelConfig(tokens="6(55%)+11", act="gelu_erf", **sizes))
write(Path("a.onnx"), config, read_checkpoint("weights.npz"), Form(3, kept=True), {{"tokens": "6(55%)+11"}})
print("written")
"""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "written\n"), done.stderr
    logits, kept = reference.forward(WEIGHTS, IMAGES, "6(55%)+11")
    content = (tmp_path / "a.onnx").read_bytes()
    check(in_onnxruntime(content, images=IMAGES), logits, kept)
    session = onnxruntime.InferenceSession(content)
    assert session.get_modelmeta().custom_metadata_map == {"tokens": "6(55%)+11"}
