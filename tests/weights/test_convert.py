"""Weights of others to ours and back: names, shapes, heads, channels, configuration; against timm where it is."""

import os
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import load_file, save_file

from src.config import Config, ModelConfig, parse
from src.errors import UserError
from src.models import from_config, trace
from src.schedules import Geometry
from src.weights import convert, google, read_checkpoint
from src.weights.load import shapes_of
from src.weights.timm import from_timm, to_timm
from tests.helpers import reference
from tests.helpers.commands import ROOT, run_here

TOOL = "src.tools.convert"
TIMM_PYTHON = os.environ.get("TIMM_PYTHON", "")  # an interpreter that has torch and timm
needs_timm = pytest.mark.skipif(not TIMM_PYTHON, reason="TIMM_PYTHON names no interpreter with timm")
HEADS = "model.num_heads=4"


def timm_arrays(seed=0, **sizes):
    """Random float32 weights by timm's names, of a ViT of 16x16 pixels, patch 4, 24 channels, 12 blocks, 5 classes."""
    arrays = {name: array.astype(np.float32) for name, array in reference.random_weights(seed, **sizes).items()}
    kernel = arrays["patch_embed.proj.weight"]
    return {**arrays, "patch_embed.proj.weight": kernel.reshape(len(kernel), 3, 4, 4)}


@pytest.fixture
def file(tmp_path):
    save_file(timm_arrays(depth=2), tmp_path / "timm.safetensors")
    return tmp_path / "timm.safetensors"


def converted(*arguments, cwd):
    result = run_here(TOOL, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig("skipvit_ti_16_224", num_classes=7, depth=2, image_size=(32, 48)),
        ModelConfig("skipvit_ti_distilled_16_224", num_classes=7, depth=1, image_size=32),
        ModelConfig("skipvit_ti_16_224", num_classes=7, depth=1, image_size=32, pool="avg", mlp_ratio=2.5),
    ],
)
def test_shapes_are_those_of_the_network(model):
    shapes = {weight.name: tuple(weight.shape) for weight in from_config(model).get_parameters()}
    assert shapes_of(Geometry.from_config(model)) == shapes


@pytest.mark.parametrize("distilled", [False, True])
def test_there_and_back_again_every_bit_is_the_same(tmp_path, distilled):
    arrays = timm_arrays(depth=2, distilled=distilled)
    save_file(arrays, tmp_path / "timm.safetensors")
    said = converted("timm.safetensors", "ours.ckpt", HEADS, cwd=tmp_path)
    assert f"skipvit_ti{'_distilled' * distilled}_16_224: " in said
    assert "data.resize=pil data.interpolation=bicubic" in said
    converted("ours.ckpt", "back.safetensors", "--to", "timm", cwd=tmp_path)
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], array) and back[name].dtype == array.dtype for name, array in arrays.items())
    config = parse(read_checkpoint(tmp_path / "back.safetensors").config, "back")
    assert config == parse(read_checkpoint(tmp_path / "ours.ckpt").config, "ours")
    assert (config.model.act, config.data.resize, config.model.depth) == ("gelu_erf", "pil", 2)


def test_what_is_converted_computes_what_the_reference_does(tmp_path):
    arrays, spec = timm_arrays(depth=3), "1(50%)+3"
    save_file(arrays, tmp_path / "timm.safetensors")
    converted("timm.safetensors", "ours.ckpt", HEADS, f"model.tokens={spec}", cwd=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "ours.ckpt")
    network = from_config(parse(checkpoint.config, "ours").model).set_train(False)
    checkpoint.load_into(network)
    images = np.random.RandomState(1).standard_normal((2, 3, 16, 16)).astype(np.float32)
    expected, _ = reference.forward({name: a.astype(np.float64) for name, a in arrays.items()}, images, spec)
    assert np.abs(network(Tensor(images)).asnumpy() - expected).max() < 2e-4


def test_positions_are_resampled_where_the_images_are_of_another_size(file, tmp_path):
    """By the network's own resampling inside its graph, which is compared with PyTorch's elsewhere."""
    converted(file, "ours.ckpt", HEADS, cwd=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "ours.ckpt")
    model = parse(checkpoint.config, "ours").model
    own, larger = from_config(model), from_config(replace(model, image_size=(24, 32)))
    checkpoint.load_into(own)
    checkpoint.load_into(larger)
    expected = own.with_tokens("none", (24, 32)).positions().asnumpy()
    assert np.abs(larger.pos_embed.asnumpy() - expected).max() < 1e-5
    with pytest.raises(UserError, match=r"other shape: head\.weight \[5, 24\] for \[6, 24\]"):
        checkpoint.load_into(from_config(replace(model, num_classes=6, image_size=24)))
    with pytest.raises(UserError, match=r"extra: cls_token; other shape: pos_embed \[1, 17, 24\] for \[1, 36, 24\]"):
        checkpoint.load_into(from_config(replace(model, pool="avg", image_size=24)))


def test_a_fresh_head_only_when_asked(file, tmp_path):
    result = run_here(TOOL, file, "a.ckpt", HEADS, "model.num_classes=7", cwd=tmp_path)
    assert "other shape: head.weight [5, 24] for [7, 24], head.bias [5] for [7]" in result.stderr
    assert not (tmp_path / "a.ckpt").exists()
    converted(file, "a.ckpt", HEADS, "--num_classes", 7, cwd=tmp_path)
    arrays, before = read_checkpoint(tmp_path / "a.ckpt").arrays, from_timm(load_file(file))
    assert arrays["head.weight"].shape == (7, 24)
    assert 0.015 < arrays["head.weight"].std() < 0.025
    assert not arrays["head.bias"].any()
    assert all(np.array_equal(arrays[name], before[name]) for name in before if not name.startswith("head"))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_as_timm_adapts_them(file, tmp_path, channels):
    """timm sums the channels for one, and repeats them for four, scaled by 3/4: a grey image's embedding stays."""
    said = converted(file, "a.safetensors", "--to", "timm", HEADS, "--in_channels", channels, cwd=tmp_path)
    assert f"in_chans={channels}" in said
    before = load_file(file)["patch_embed.proj.weight"]
    kernel = load_file(tmp_path / "a.safetensors")["patch_embed.proj.weight"]
    if channels == 1:
        assert np.allclose(kernel[:, 0], before[:, 0] + before[:, 1] + before[:, 2], atol=1e-6)
    else:
        assert np.array_equal(kernel, before[:, [0, 1, 2, 0]] * np.float32(0.75))


def google_arrays(arrays, heads=4):
    """Weights by Google's names, in the forms that Flax has them."""
    dim = arrays["cls_token"].shape[2]
    result = {
        "embedding/kernel": np.moveaxis(arrays["patch_embed.proj.weight"], (0, 1, 2, 3), (3, 2, 0, 1)),
        "embedding/bias": arrays["patch_embed.proj.bias"], "cls": arrays["cls_token"],
        "Transformer/posembed_input/pos_embedding": arrays["pos_embed"],
        "Transformer/encoder_norm/scale": arrays["norm.weight"], "Transformer/encoder_norm/bias": arrays["norm.bias"],
        "head/kernel": arrays["head.weight"].T, "head/bias": arrays["head.bias"],
    }  # fmt: skip
    for i in range(sum(name.endswith("attn.qkv.bias") for name in arrays)):
        ours, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for number, norm in ((0, "norm1"), (2, "norm2")):
            result[f"{theirs}LayerNorm_{number}/scale"] = arrays[f"{ours}{norm}.weight"]
            result[f"{theirs}LayerNorm_{number}/bias"] = arrays[f"{ours}{norm}.bias"]
        for number, name in enumerate(("query", "key", "value")):
            rows = slice(number * dim, (number + 1) * dim)
            result[f"{attention}{name}/kernel"] = arrays[f"{ours}attn.qkv.weight"][rows].T.reshape(dim, heads, -1)
            result[f"{attention}{name}/bias"] = arrays[f"{ours}attn.qkv.bias"][rows].reshape(heads, -1)
        result[f"{attention}out/kernel"] = arrays[f"{ours}attn.proj.weight"].T.reshape(heads, -1, dim)
        result[f"{attention}out/bias"] = arrays[f"{ours}attn.proj.bias"]
        for number, name in enumerate(("fc1", "fc2")):
            result[f"{theirs}MlpBlock_3/Dense_{number}/kernel"] = arrays[f"{ours}mlp.{name}.weight"].T
            result[f"{theirs}MlpBlock_3/Dense_{number}/bias"] = arrays[f"{ours}mlp.{name}.bias"]
    return result


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_names_of_google(tmp_path, prefix):
    arrays = timm_arrays(depth=2)
    stored = {prefix + name: array for name, array in google_arrays(arrays).items()}
    np.savez(tmp_path / "vit.npz", **stored)
    back = google.to_timm(dict(np.load(tmp_path / "vit.npz")))
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())
    said = converted("vit.npz", "a.ckpt", HEADS, cwd=tmp_path)
    assert "gelu_tanh" in said
    assert "data.crop_pct=0.9 data.mean=[0.5,0.5,0.5] data.std=[0.5,0.5,0.5]" in said
    assert np.array_equal(read_checkpoint(tmp_path / "a.ckpt").arrays["blocks.1.attn.qkv.weight"],
                          arrays["blocks.1.attn.qkv.weight"])  # fmt: skip
    np.savez(tmp_path / "more.npz", **stored, **{f"{prefix}pre_logits/bias": np.zeros(3, np.float32)})
    assert "extra: pre_logits/bias" in run_here(TOOL, "more.npz", "b.ckpt", HEADS, cwd=tmp_path).stderr


def test_a_state_of_a_training_of_ours_gives_its_average(tmp_path):
    """What is evaluated of it is what is converted."""
    from tests.helpers import hostile

    arrays = {f"network.{name}": np.ones(shape, np.float32)
              for name, shape in shapes_of(Geometry.from_config(hostile.MODEL)).items()}  # fmt: skip
    arrays |= {name.replace("network.", "ema."): 2 * array for name, array in arrays.items()}
    (tmp_path / "last.ckpt").write_bytes(hostile.encode(hostile.state(arrays)))
    converted("last.ckpt", "a.safetensors", "--to", "timm", cwd=tmp_path)
    assert all((array == 2).all() for array in load_file(tmp_path / "a.safetensors").values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["timm.safetensors", "a.ckpt"], "nothing tells the number of attention heads; add model.num_heads=N"),
        (["timm.safetensors", "a.ckpt", HEADS, "model.embed_dim=32"], "shape: cls_token [1, 1, 24] for [1, 1, 32]"),
        (["timm.safetensors", "a.ckpt", HEADS, "model.patch_size=8"], "patch_embed.proj.weight [24, 48] for [24, 192]"),
        (["timm.safetensors", "a.ckpt", HEADS, "model.depth=3"], "missing: blocks.2.attn.proj.bias"),
        (["timm.safetensors", "a.ckpt", HEADS, "model.depth=1"], "extra: blocks.1.attn.proj.bias"),
        (["timm.safetensors", "a.ckpt", HEADS, "model.tokens=3(50%)"], "block 3 is out of range"),
        (["timm.safetensors", "a.safetensors"], "OUT a.safetensors must end in .ckpt with --to ours"),
        (["timm.safetensors", "no/a.ckpt"], "the folder no does not exist"),
        (["timm.safetensors", "timm.safetensors", "--to", "timm"], "is the same file as IN"),
        (["timm.safetensors"], "convert takes two files, IN and OUT, not 1"),
        (["timm.safetensors", "a.ckpt", "--part", "model_ema"], "only .pth and .pt have parts such as model_ema"),
        (["other.txt", "a.ckpt"], "must end in .ckpt, .safetensors, .pth, .pt or .npz"),
        (["headless.safetensors", "a.ckpt", HEADS], "of no ViT with a head; missing, or of another form: head.weight"),
        (["other.safetensors", "a.ckpt"], "is of no ViT: it has no patch_embed.proj.weight"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(file, tmp_path, arguments, message):
    save_file({n: a for n, a in load_file(file).items() if "head" not in n}, tmp_path / "headless.safetensors")
    save_file({"layer.weight": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    (tmp_path / "other.txt").touch()
    result = run_here(TOOL, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "a.ckpt").exists()


def test_any_number_of_hidden_channels_can_be_told_as_a_ratio():
    assert convert.mlp_ratio(384, 1536) == 4
    assert any(int(dim * (hidden / dim)) != hidden for dim in range(1, 100) for hidden in range(1, 400))
    assert all(int(dim * convert.mlp_ratio(dim, hidden)) == hidden for dim in range(1, 100) for hidden in range(1, 400))


def test_all_names_are_listed(file, tmp_path):
    arrays = load_file(file)
    save_file({name: array for name, array in arrays.items() if ".mlp." not in name or "fc1.weight" in name}
              | {f"extra.{i}": np.zeros(1, np.float32) for i in range(5)}, tmp_path / "less.safetensors")  # fmt: skip
    result = run_here(TOOL, "less.safetensors", "a.ckpt", HEADS, cwd=tmp_path)
    assert result.returncode == 2
    lines = result.stdout.splitlines()
    for name in [f"missing: blocks.{i}.mlp.fc{n}" for i in range(2) for n in ("1.bias", "2.bias", "2.weight")]:
        assert name in lines
    assert all(f"extra: extra.{i}" in lines for i in range(5))


def test_weights_shown_other_pixels_are_warned_of(file, tmp_path, caplog):
    converted(file, "a.ckpt", HEADS, cwd=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "a.ckpt")
    checkpoint.warn_of_pixels(parse(checkpoint.config, "a"))
    assert not caplog.text
    checkpoint.warn_of_pixels(parse(checkpoint.config, "a", {"data.resize": "mindspore", "data.mean": [0.5] * 3}))
    assert "it expects data.mean=[0.485, 0.456, 0.406] data.resize=pil" in caplog.text
    caplog.clear()
    read_checkpoint(file).warn_of_pixels(Config())
    assert "it expects data.resize=pil" in caplog.text


@pytest.mark.slow
def test_eval_of_a_converted_file_tells_of_other_pixels(file, tmp_path, photos, caplog):
    """The whole way: converted with a fresh head, evaluated as it says, and otherwise."""
    converted(file, "a.ckpt", HEADS, "--num_classes", 3, "model.tokens=1(50%)+2", cwd=tmp_path)
    given = ["--ckpt", "a.ckpt", f"data.root={photos}", "data.batch_size=9", "model.image_size=24"]
    for more, told in (([], False), (["data.resize=mindspore"], True)):
        result = run_here("eval", *given, *more, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert '"images": 9, "tokens": "1(50%)+2"' in result.stdout
        assert ("it expects data.resize=pil" in caplog.text) == told


@pytest.mark.slow
@pytest.mark.parametrize(("size", "pixels"), [("ti", 224), ("s", 224), ("b", 224), ("s", 384)])
def test_full_sizes_there_and_back(tmp_path, size, pixels):
    model = ModelConfig(f"skipvit_{size}_16_224", image_size=pixels, num_classes=1000)
    random = np.random.default_rng(0)
    shapes = shapes_of(Geometry.from_config(model))
    arrays = to_timm({name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}, 16)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, tmp_path / "timm.safetensors")
    said = converted("timm.safetensors", "ours.ckpt", cwd=tmp_path)
    assert said.startswith(f"{model.name}: {sum(a.size for a in arrays.values()):,} parameters, {pixels} pixels")
    converted("ours.ckpt", "back.safetensors", "--to", "timm", cwd=tmp_path)
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["none", "4,7,10(30%,30%,30%)+fused", "4,7(30%,30%)+11"])
def test_a_deit_s_computes_what_the_reference_does(tmp_path, spec):
    """DeiT-S at 224 pixels with timm's names, random, converted, against float64."""
    random, shapes = np.random.default_rng(0), shapes_of(Geometry.from_config(ModelConfig(num_classes=1000)))
    arrays = to_timm({name: 0.05 * random.standard_normal(shape, np.float32) for name, shape in shapes.items()}, 16)
    arrays = {name: np.ascontiguousarray(a + ("norm" in name and "weight" in name)) for name, a in arrays.items()}
    save_file(arrays, tmp_path / "timm.safetensors")
    converted("timm.safetensors", "ours.ckpt", f"model.tokens={spec}", cwd=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "ours.ckpt")
    network = from_config(parse(checkpoint.config, "ours").model).set_train(False)
    checkpoint.load_into(network)
    images = random.standard_normal((2, 3, 224, 224), np.float32)
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    expected, kept = reference.forward(wide, images, spec, heads=6, patch=16)
    traced = trace(network, Tensor(images))
    assert np.abs(traced.logits - expected).max() < 2e-4
    assert all((places == kept[block]).all() for block, places in traced.kept.items())
    assert expected.std() > 0.1


MAKE = """
import sys, numpy as np, timm, torch
from safetensors.torch import save_file
torch.manual_seed(0)
model = timm.create_model(sys.argv[1]).eval()
for name, weight in model.named_parameters():
    if not name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
        torch.nn.init.normal_(weight, std=0.05)
images = torch.from_numpy(np.random.RandomState(1).standard_normal((2, 3, 224, 224)).astype(np.float32))
with torch.no_grad():
    np.save("logits.npy", model(images).numpy())
torch.save({"model": model.state_dict(), "epoch": 300}, "deit.pth")
"""
LOAD = """
import sys, numpy as np, timm, torch
from safetensors.torch import load_file
model = eval(sys.argv[1]).eval()
model.load_state_dict(load_file("back.safetensors"), strict=True)
images = torch.from_numpy(np.random.RandomState(1).standard_normal((2, *map(int, sys.argv[2:]))).astype(np.float32))
with torch.no_grad():
    np.save("logits.npy", model(images).numpy())
"""


def run_timm(code, *arguments, cwd):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [TIMM_PYTHON, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(cwd / "logits.npy")


@pytest.mark.slow
@needs_timm
@pytest.mark.parametrize("name", ["deit_small_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_logits_of_timm_itself(tmp_path, name):
    """A .pth of timm's, random, converted: its logits; back again timm loads it with strict=True, and computes them."""
    expected = run_timm(MAKE, name, cwd=tmp_path)
    assert expected.std() > 0.1
    converted("deit.pth", "ours.ckpt", cwd=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "ours.ckpt")
    network = from_config(parse(checkpoint.config, "ours").model).set_train(False)
    checkpoint.load_into(network)
    images = np.random.RandomState(1).standard_normal((2, 3, 224, 224)).astype(np.float32)
    assert np.abs(network(Tensor(images)).asnumpy() - expected).max() < 2e-4
    call = converted("ours.ckpt", "back.safetensors", "--to", "timm", cwd=tmp_path).splitlines()[-1]
    logits = run_timm(LOAD, call.removeprefix("load with: "), 3, 224, 224, cwd=tmp_path)
    assert np.abs(logits - expected).max() < 1e-6


@pytest.mark.slow
@needs_timm
@pytest.mark.parametrize(
    "options",
    [
        {"model.act": "gelu_tanh", "model.image_size": [16, 24]},
        {"model.pool": "avg"},
        {"model.name": "skipvit_ti_distilled_16_224"},
    ],
)
def test_timm_computes_what_a_network_of_ours_does(tmp_path, options):
    """A network of ours, of odd sizes, is loaded by the line of Python that the tool prints."""
    from src.weights.files import write_weights

    sizes = {"image_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 4, "num_classes": 5}
    given = {"model.name": "skipvit_ti_16_224", **{f"model.{key}": value for key, value in sizes.items()}, **options}
    config = parse("{}", "test", given)
    network = from_config(config.model).set_train(False)
    write_weights(tmp_path / "ours.ckpt", {w.name: w.value() for w in network.get_parameters()}, config)
    call = converted("ours.ckpt", "back.safetensors", "--to", "timm", cwd=tmp_path).splitlines()[-1]
    height, width = given["model.image_size"] if isinstance(given["model.image_size"], list) else (16, 16)
    images = np.random.RandomState(1).standard_normal((2, 3, height, width)).astype(np.float32)
    logits = run_timm(LOAD, call.removeprefix("load with: "), 3, height, width, cwd=tmp_path)
    assert np.abs(network(Tensor(images)).asnumpy() - logits).max() < 2e-5


@pytest.mark.slow
@needs_timm
def test_names_of_google_are_read_as_timm_reads_them(tmp_path):
    stored = google_arrays(timm_arrays(depth=2))
    np.savez(tmp_path / "vit.npz", **stored)
    code = """
import numpy as np, timm
from safetensors.torch import save_file
sizes = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=4, num_classes=5)
model = timm.create_model("vit_tiny_patch16_224", **sizes)
model.load_pretrained("vit.npz")
save_file(model.state_dict(), "timm.safetensors")
np.save("logits.npy", 0)
"""
    run_timm(code, cwd=tmp_path)
    converted("vit.npz", "back.safetensors", "--to", "timm", HEADS, cwd=tmp_path)
    theirs, ours = load_file(tmp_path / "timm.safetensors"), load_file(tmp_path / "back.safetensors")
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[name], ours[name]) for name in theirs)


def test_mindcvs_own_vit_is_converted(tmp_path):
    """Its checkpoint, of MindCV's own class, and its logits."""
    import mindspore as ms
    from mindcv.models.vit import VisionTransformer

    network = VisionTransformer(image_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=4, num_classes=5)
    for seed, weight in enumerate(network.get_parameters()):
        weight.set_data(Tensor(np.random.RandomState(seed).standard_normal(weight.shape).astype(np.float32) * 0.2))
    ms.save_checkpoint(network, str(tmp_path / "mindcv.ckpt"))
    converted("mindcv.ckpt", "ours.ckpt", HEADS, cwd=tmp_path)
    checkpoint = read_checkpoint(tmp_path / "ours.ckpt")
    config = parse(checkpoint.config, "ours")
    assert config.data.resize == "mindspore"
    ours = from_config(config.model).set_train(False)
    checkpoint.load_into(ours)
    images = Tensor(np.random.RandomState(1).standard_normal((2, 3, 16, 16)).astype(np.float32))
    assert np.abs(ours(images).asnumpy() - network.set_train(False)(images).asnumpy()).max() < 2e-4


def test_weights_in_a_damaged_configuration_are_refused(file, tmp_path):
    from safetensors.numpy import save_file as save

    save(load_file(file), tmp_path / "a.safetensors", {"config": "model: [1"})
    assert "is not valid YAML" in run_here(TOOL, "a.safetensors", "a.ckpt", cwd=tmp_path).stderr
    shutil.copy(ROOT / "README.md", tmp_path / "a.npz")
    assert "damaged, or no checkpoint" in run_here(TOOL, "a.npz", "a.ckpt", cwd=tmp_path).stderr
