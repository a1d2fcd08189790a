"""Checkpoints from strangers: MindCV's are loaded; damaged or hostile files are refused in one line, soon."""

import json
import struct

import mindspore as ms
import numpy as np
import pytest
from mindcv.models import create_model
from mindspore import Tensor
from safetensors.numpy import save_file

from src.errors import UserError
from src.models import from_checkpoint, from_config
from src.training.checkpoint import save_weights
from src.weights import read_checkpoint
from src.weights.files import read_arrays
from tests.helpers import hostile
from tests.helpers.configs import load


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    arrays = {f"layer{i}.weight": np.random.RandomState(i).rand(20, 30).astype(np.float32) for i in range(4)}
    data = [{"name": name, "data": Tensor(array)} for name, array in arrays.items()]
    ms.save_checkpoint(data, str(folder / "a.ckpt"), crc_check=True)
    save_file(arrays, folder / "a.safetensors")
    return (folder / "a.ckpt").read_bytes(), (folder / "a.safetensors").read_bytes()


def refused(path, content):
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_arrays(path)
    text = str(error.value)
    assert str(path) in text
    assert len(text.splitlines()) == 1
    assert len(text) < 500


@pytest.mark.parametrize("seed", range(24))
def test_a_flipped_bit_is_found(whole, tmp_path, seed):
    content = bytearray(whole[0])
    random = np.random.RandomState(seed)
    content[random.randint(len(content))] ^= 1 << random.randint(8)
    refused(tmp_path / "a.ckpt", bytes(content))


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", [0, 1])
def test_a_truncated_file_is_found(whole, tmp_path, kind, part):
    refused(tmp_path / ("a.ckpt", "a.safetensors")[kind], whole[kind][: int(part * len(whole[kind]))])


def test_strangers_are_refused(whole, tmp_path):
    noise = np.random.RandomState(0).bytes(100_000)
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    for content in (
        noise,
        b"\x80\x04\x95" + noise,  # a pickle's first bytes
        b"PK\x03\x04" + noise,
        struct.pack("<Q", 2**60) + b"{}",  # a header of an exabyte
        struct.pack("<Q", len(header)) + header,  # a tensor of four terabytes
        whole[0],  # another format's file
    ):
        refused(tmp_path / "a.safetensors", content)
    for content in (noise, b"\x0a\xff\xff\xff\xff\x7f" + noise, b"PK\x03\x04" + noise, whole[1]):
        refused(tmp_path / "a.ckpt", content)


def test_weights_of_mindcv_are_loaded(tmp_path):
    """Their names are ours, but the kernel of the patch embedding has four dimensions."""
    network, random = from_config(hostile.MODEL), np.random.RandomState(0)
    arrays = {p.name: random.rand(*p.shape).astype(np.float32) for p in network.get_parameters()}
    side = hostile.MODEL.patch_size
    kernel = arrays["patch_embed.proj.weight"].reshape(-1, 3, side, side)
    data = [{"name": n, "data": Tensor(a)} for n, a in {**arrays, "patch_embed.proj.weight": kernel}.items()]
    ms.save_checkpoint(data, str(tmp_path / "mindcv.ckpt"))
    checkpoint = read_checkpoint(tmp_path / "mindcv.ckpt")
    checkpoint.load_into(network)
    for parameter in network.get_parameters():
        assert (parameter.asnumpy() == arrays[parameter.name]).all(), parameter.name


def test_a_network_is_built_from_a_checkpoint_alone(tmp_path):
    """With what its configuration says and the functions of create_model would not know, such as the GELU."""
    (tmp_path / "config.yaml").write_text(
        "model: {tokens: 1(50%)+2, image_size: 16, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2,"
        " num_classes: 3, act: gelu_erf}"
    )
    config = load(tmp_path / "config.yaml")
    images = Tensor(np.random.RandomState(0).standard_normal((2, 3, 16, 16)).astype(np.float32))
    trained = from_config(config.model)
    save_weights(tmp_path / "best.ckpt", config, trained)
    found = from_checkpoint(tmp_path / "best.ckpt")
    assert (found(images).asnumpy() == trained.set_train(False)(images).asnumpy()).all()
    dense = from_checkpoint(tmp_path / "best.ckpt", tokens="none")
    assert not any(dense.plan.kept)
    with pytest.raises(UserError, match=r"unknown key model\.token; did you mean model.tokens"):
        from_checkpoint(tmp_path / "best.ckpt", token="none")
    with pytest.raises(UserError, match="num_classes 0: a network has a head; for its tokens"):
        create_model("skipvit_s_16_224", num_classes=0)
