"""LV-ViT's and DynamicViT's own names: to ours and back, in the registry's sizes, and as the start of a training."""

from dataclasses import replace

import numpy as np
import onnx_ir
import pytest
from safetensors.numpy import load_file, save_file

from src.config import ModelConfig, parse
from src.errors import UserError
from src.export.form import Form
from src.export.onnx.file import build
from src.models import from_checkpoint, from_config
from src.models.initial import initialise
from src.schedules import Geometry
from src.weights import convert, read_checkpoint
from src.weights.initial import read_initial
from src.weights.load import assign, shapes_of
from src.weights.oracle import read_oracle
from src.weights.timm import to_timm
from tests.export.test_onnx import check, in_onnxruntime
from tests.helpers import pytorch, reference_dynamicvit, reference_lvvit
from tests.helpers.commands import run_here

TOOL = "src.tools.convert"
STAGES = "1,2(50%,50%,predictor)"


def lvvit_names(dim=24, depth=2, classes=5, patches=16, patch=4, hidden=72):
    """Names and shapes of TokenLabeling's LV_ViT, as its code makes them."""
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + patches, dim)}
    for number, (inputs, size) in enumerate([(3, 7), (64, 3), (64, 3)], 1):
        shapes[f"patch_embed.conv{number}.weight"] = (64, inputs, size, size)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"patch_embed.bn{number}.{part}"] = (64,)
        shapes[f"patch_embed.bn{number}.num_batches_tracked"] = ()
    shapes |= {"patch_embed.proj.weight": (dim, 64, patch // 2, patch // 2), "patch_embed.proj.bias": (dim,)}
    return {**shapes, **block_names(dim, depth, hidden, False), **head_names("head", classes, dim),
            **head_names("aux_head", classes, dim)}  # fmt: skip


def deit_names(dim=24, depth=2, classes=5, patches=16, patch=4, hidden=96):
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + patches, dim),
              "patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,)}  # fmt: skip
    return {**shapes, **block_names(dim, depth, hidden, True), **head_names("head", classes, dim)}


def head_names(name, classes, dim):
    return {f"{name}.weight": (classes, dim), f"{name}.bias": (classes,)}


def block_names(dim, depth, hidden, qkv_bias):
    shapes = {"norm.weight": (dim,), "norm.bias": (dim,)}
    for i in range(depth):
        for name, (inputs, outputs) in {"attn.qkv": (dim, 3 * dim), "attn.proj": (dim, dim), "mlp.fc1": (dim, hidden),
                                        "mlp.fc2": (hidden, dim)}.items():  # fmt: skip
            shapes[f"blocks.{i}.{name}.weight"] = (outputs, inputs)
            shapes[f"blocks.{i}.{name}.bias"] = (outputs,)
        if not qkv_bias:
            del shapes[f"blocks.{i}.attn.qkv.bias"]
        shapes |= {f"blocks.{i}.norm{n}.{part}": (dim,) for n in (1, 2) for part in ("weight", "bias")}
    return shapes


def predictor_names(dim=24, stages=2):
    """Names and shapes of DynamicViT's `score_predictor`: `in_conv` is LayerNorm and Linear; `out_conv` has GELUs."""
    shapes = {}
    for s in range(stages):
        layers = {"in_conv.1": (dim, dim), "out_conv.0": (dim, dim // 2), "out_conv.2": (dim // 2, dim // 4),
                  "out_conv.4": (dim // 4, 2)}  # fmt: skip
        shapes |= {f"score_predictor.{s}.in_conv.0.{part}": (dim,) for part in ("weight", "bias")}
        for name, (inputs, outputs) in layers.items():
            shapes |= {
                f"score_predictor.{s}.{name}.weight": (outputs, inputs),
                f"score_predictor.{s}.{name}.bias": (outputs,),
            }
    return shapes


def drawn(shapes, seed=0):
    random = np.random.default_rng(seed)
    arrays = {name: 0.2 * random.standard_normal(shape, np.float32) for name, shape in shapes.items() if shape}
    counters = {name: np.array(0, np.int64) for name, shape in shapes.items() if not shape}
    variances = {name: np.abs(array) + 0.5 for name, array in arrays.items() if name.endswith("running_var")}
    return {**arrays, **counters, **variances}


CASES = {
    "lvvit": (lvvit_names(), "lvvit_ti_16_224", ["data.crop_pct=0.9"]),
    "deit": ({**deit_names(), **predictor_names()}, "skipvit_ti_16_224", ["data.crop_pct=0.875"]),
    "dylvvit": ({**lvvit_names(), **predictor_names()}, "lvvit_ti_16_224", ["data.crop_pct=0.875"]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_there_and_back_again_every_bit_is_the_same(tmp_path, capsys, case, kind):
    shapes, name, said = CASES[case]
    arrays = drawn(shapes)
    if kind == "pth":
        pytorch.save(tmp_path / "a.pth", arrays, *(["model"] if case == "deit" else []))
    else:
        save_file(arrays, tmp_path / "a.safetensors")
    result = run_here(TOOL, f"a.{kind}", "ours.ckpt", "model.num_heads=4", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{name}: ")
    assert all(words in result.stdout for words in ("gelu_erf, tokens none", "data.resize=pil", *said))
    result = run_here(TOOL, "ours.ckpt", "back.safetensors", "--to", "timm", cwd=tmp_path)
    assert "timm has no such model" in result.stdout
    assert "create_model" not in result.stdout
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[n], array) and back[n].dtype == array.dtype for n, array in arrays.items())
    network = from_checkpoint(tmp_path / "ours.ckpt")
    assert network.geometry.predictors == (0 if case == "lvvit" else 2)
    assert network.geometry.backbone == ("vit" if case == "deit" else "lvvit")
    if case != "lvvit":
        predictor = network.predictors[1]
        assert np.array_equal(predictor.out3.weight.asnumpy(), arrays["score_predictor.1.out_conv.4.weight"])
        assert np.array_equal(predictor.in_norm.gamma.asnumpy(), arrays["score_predictor.1.in_conv.0.weight"])
    if case != "deit":
        stem = network.patch_embed
        assert np.array_equal(stem.bn3.moving_variance.asnumpy(), arrays["patch_embed.bn3.running_var"])
        assert np.array_equal(stem.proj.weight.asnumpy(), arrays["patch_embed.proj.weight"].reshape(24, -1))


def test_what_is_converted_computes_what_the_reference_does(tmp_path):
    """LV-ViT with predictors, which need not be asked: by a schedule of theirs, and by one of the [CLS] token's.

    In ONNX, for it compiles nothing; the network of a checkpoint is compared with the references elsewhere.
    """
    weights = {**reference_lvvit.random_weights(0), **reference_dynamicvit.random_predictors(1, 24, stages=2)}
    arrays = {name: weight.astype(np.float32) for name, weight in weights.items()}
    pytorch.save(tmp_path / "a.pth.tar", to_timm(arrays, 2), "model", epoch=30)
    given = ("model.name=lvvit_s_16_224", "model.num_heads=4")  # whose residuals are halved: the file does not tell
    result = run_here(TOOL, "a.pth.tar", "ours.ckpt", *given, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    checkpoint = read_checkpoint(tmp_path / "ours.ckpt")
    images = np.random.RandomState(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    for spec, by in (("2,3(30%,50%,predictor)", reference_dynamicvit.topk_pass), ("2(50%)+4", reference_lvvit.forward)):
        expected = by(weights, images, spec, divisor=2)
        config = parse(checkpoint.config, "ours", {"model.tokens": spec})
        model = onnx_ir.to_proto(build(config, checkpoint, Form(2, kept=True), {}))
        check(in_onnxruntime(model.SerializeToString(), images=images), expected.logits, expected.kept)


@pytest.mark.parametrize(
    ("name", "sizes", "heads", "divisor", "crop"),
    [
        ("lvvit_ti_16_224", {"dim": 240, "depth": 12, "hidden": 720}, 4, 1, 0.9),
        ("lvvit_s_16_224", {"dim": 384, "depth": 16, "hidden": 1152}, 6, 2, 0.9),
        ("lvvit_m_16_224", {"dim": 512, "depth": 20, "hidden": 1536}, 8, 2, 1.0),
    ],
)
def test_the_shapes_tell_which_of_the_registry_it_is(tmp_path, name, sizes, heads, divisor, crop):
    """Arrays of one number, seen in all its places: none of this size is written."""
    from src.weights.convert import _model
    from src.weights.timm import from_timm

    one = np.float32(0)
    shapes = lvvit_names(**sizes, classes=1000, patches=196, patch=16)
    arrays = from_timm({n: np.broadcast_to(one, shape) for n, shape in shapes.items()})
    config = parse("{}", "test", _model(arrays, 3, tmp_path, {}))
    geometry = Geometry.from_config(config.model)
    assert config.model == ModelConfig(name, num_classes=1000)
    assert (geometry.num_heads, geometry.residual_divisor, config.data.crop_pct) == (heads, divisor, crop)
    assert shapes_of(geometry) == {n: array.shape for n, array in arrays.items()}
    counted = sum(array.size for n, array in arrays.items() if "moving" not in n)
    assert geometry.parameters == counted


@pytest.mark.parametrize(
    ("model", "total"),
    [
        (ModelConfig("lvvit_ti_16_224"), 8_534_720),
        (ModelConfig("lvvit_s_16_224"), 26_151_824),
        (ModelConfig("lvvit_m_16_224"), 55_830_544),
        (ModelConfig("skipvit_s_16_224", predictors=3), 22_774_414),
        (ModelConfig("lvvit_s_16_224", predictors=3), 26_875_574),
    ],
)
def test_shapes_have_the_published_number_of_weights(model, total):
    shapes = shapes_of(Geometry.from_config(model))
    assert sum(int(np.prod(shape)) for name, shape in shapes.items() if "moving" not in name) == total


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(
            "lvvit_s_16_224", image_size=(16, 32), patch_size=8, depth=2, embed_dim=24, num_heads=3, num_classes=7
        ),
        ModelConfig("lvvit_ti_16_224", STAGES, 16, 7, patch_size=4, depth=2, embed_dim=24),
        ModelConfig("skipvit_ti_16_224", image_size=32, depth=1, predictors=2, num_classes=7),
    ],
)
def test_shapes_are_those_of_the_network(model):
    shapes = {weight.name: tuple(weight.shape) for weight in from_config(model).get_parameters()}
    assert shapes_of(Geometry.from_config(model)) == shapes


def lvvit_with(**changed):
    arrays = drawn(lvvit_names())
    return {name: array for name, array in {**arrays, **changed}.items() if array is not None}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({f"blocks.{i}.attn.qkv.bias": np.zeros(72, np.float32) for i in range(2)}, "extra: blocks.0.attn.qkv.bias"),
        ({"aux_head.weight": None, "aux_head.bias": None}, "missing: aux_head.bias, aux_head.weight"),
        ({"patch_embed.bn2.running_var": None}, "missing: patch_embed.bn2.moving_variance"),
        ({"patch_embed.conv1.weight": np.zeros(3, np.float32)}, "its patch_embed.conv1.weight has 1 dimensions, not 4"),
        ({"patch_embed.conv1.weight": None}, "extra: "),
        ({"patch_embed.conv3.weight": np.zeros((128, 64, 3, 3), np.float32)}, "[128, 64, 3, 3] for [64, 64, 3, 3]"),
        ({"score_predictor.0.in_conv.1.weight": np.zeros((24, 24), np.float32)}, "missing: predictors.0.in_norm.beta"),
        ({"score_predictor.x": np.zeros(24, np.float32)}, "extra: predictors.x"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path, changed, message):
    save_file(lvvit_with(**changed), tmp_path / "a.safetensors")
    result = run_here(TOOL, "a.safetensors", "ours.ckpt", "model.num_heads=4", cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "ours.ckpt").exists()


@pytest.mark.parametrize("seed", range(3))
def test_files_changed_at_random_are_refused_in_one_line_or_read(tmp_path, seed):
    """Weights that are missing, of other shapes, names or types."""
    random, refused = np.random.default_rng(seed), 0
    base = drawn(CASES["dylvvit"][0])
    for _ in range(15):
        arrays, name = dict(base), str(random.choice(list(base)))
        sides = [int(side) for side in random.choice([1, 2, 24, 64], random.integers(5))]
        kind = random.integers(4)
        taken = arrays.pop(name)
        if kind:
            shape, own = (sides if kind == 1 else taken.shape), name.replace("0", "9") if kind == 2 else name
            arrays[own] = np.zeros(shape, np.int64 if kind == 3 else np.float32)
        save_file(arrays, tmp_path / "a.safetensors")
        try:
            convert.read(tmp_path / "a.safetensors", {"model.num_heads": 4}, "", *random.choice([None, 3], 2))
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
    assert refused > 5


def test_a_position_embedding_without_dimensions_is_refused(tmp_path):
    save_file(lvvit_with(pos_embed=np.array(1.0, np.float32)), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="of no ViT with a head; missing, or of another form: pos_embed"):
        convert.read(tmp_path / "a.safetensors", {"model.num_heads": 4}, "", 3, None)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_stem_for_images_of_other_channels(tmp_path, channels):
    arrays = drawn(lvvit_names())
    save_file(arrays, tmp_path / "a.safetensors")
    options = ("--to", "timm", "model.num_heads=4", "--in_channels", channels, "--num_classes", 7)
    assert run_here(TOOL, "a.safetensors", "b.safetensors", *options, cwd=tmp_path).returncode == 0
    back, before = load_file(tmp_path / "b.safetensors"), arrays["patch_embed.conv1.weight"]
    expected = before.sum(1, keepdims=True) if channels == 1 else before[:, [0, 1, 2, 0]] * np.float32(0.75)
    assert np.allclose(back["patch_embed.conv1.weight"], expected, atol=1e-6)
    assert back["head.weight"].shape == back["aux_head.weight"].shape == (7, 24)


# as what a training starts from

SMALL = {"image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 4, "act": "gelu_erf"}
LVVIT = {**SMALL, "name": "lvvit_ti_16_224"}
DYNAMIC = {**SMALL, "name": "skipvit_ti_16_224", "tokens": STAGES}


def starting(path, model, classes=5):
    config = parse("{}", "test", {"train.init": str(path), **{f"model.{key}": value for key, value in model.items()}})
    return read_initial(config, tuple("abcdefg"[:classes])), replace(config.model, num_classes=classes)


def test_an_lvvit_starts_with_its_moving_averages(tmp_path):
    save_file(drawn(lvvit_names()), tmp_path / "a.safetensors")
    initial, model = starting(tmp_path / "a.safetensors", LVVIT)
    network = from_config(model)
    initialise(network, initial)
    expected = read_checkpoint(tmp_path / "a.safetensors").arrays
    assert initial.remarks == ()
    for weight in network.get_parameters():
        assert np.array_equal(weight.asnumpy(), expected[weight.name]), weight.name


def test_both_heads_stay_as_initialised_for_other_classes(tmp_path):
    save_file(drawn(lvvit_names()), tmp_path / "a.safetensors")
    initial, model = starting(tmp_path / "a.safetensors", LVVIT, classes=3)
    network = from_config(model)
    before = {name: getattr(network, name).weight.asnumpy().copy() for name in ("head", "aux_head")}
    initialise(network, initial)
    assert all(np.array_equal(getattr(network, name).weight.asnumpy(), array) for name, array in before.items())
    assert initial.remarks == ("the head stays as initialised: the file has 5 outputs, this model 3",)


def test_dynamicvit_starts_from_a_plain_deit(tmp_path):
    """Its predictors are new; those of a DynamicViT are taken."""
    save_file(drawn(deit_names()), tmp_path / "deit.safetensors")
    initial, model = starting(tmp_path / "deit.safetensors", DYNAMIC)
    network = from_config(model)
    fresh = network.predictors[1].out1.weight.asnumpy().copy()
    initialise(network, initial)
    assert initial.remarks == ("the predictors stay as initialised: the file has 0, this model 2",)
    assert np.array_equal(network.predictors[1].out1.weight.asnumpy(), fresh)
    assert np.array_equal(network.head.weight.asnumpy(), drawn(deit_names())["head.weight"])
    arrays = drawn({**deit_names(), **predictor_names()})
    save_file(arrays, tmp_path / "dynamic.safetensors")
    initial, _ = starting(tmp_path / "dynamic.safetensors", DYNAMIC)
    initialise(network, initial)
    assert initial.remarks == ()
    assert np.array_equal(network.predictors[1].out1.weight.asnumpy(), arrays["score_predictor.1.out_conv.0.weight"])


@pytest.mark.parametrize(
    ("shapes", "model", "message"),
    [
        (lvvit_names(), {**SMALL, "name": "skipvit_ti_16_224"}, "its model.backbone is lvvit, not vit"),
        (deit_names(), LVVIT, "its model.backbone is vit, not lvvit"),
        (lvvit_names(patch=8), LVVIT, "its model.patch_size is 8, not 4"),
        ({n: s for n, s in lvvit_names().items() if "aux" not in n}, LVVIT, "missing: aux_head.bias"),
    ],
)
def test_a_file_of_another_kind_is_no_start(tmp_path, shapes, model, message):
    save_file(drawn(shapes), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=message):
        starting(tmp_path / "a.safetensors", model)


def test_an_lvvit_may_be_the_oracle(tmp_path):
    save_file(drawn(lvvit_names(dim=128)), tmp_path / "a.safetensors")
    file = str(tmp_path / "a.safetensors")
    told = {"model.tokens": "none", "train.tokens": "1(50%,oracle)+2", "train.oracle": file}
    oracle = read_oracle(file, parse("{}", "test", {**told, **{f"model.{key}": LVVIT[key] for key in LVVIT}}))
    assert (oracle.model.name, Geometry.from_config(oracle.model).num_heads) == ("lvvit_ti_16_224", 2)
    assign(from_config(oracle.model), oracle.file.arrays, tmp_path)
