"""Hostile checkpoints, whose checksum is right: read or refused in one line, soon, without MindSpore's loader."""

import json
import random
import struct
import time
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import save_file

from src.config import Config
from src.errors import UserError
from src.weights import read_checkpoint
from src.weights.files import read_arrays
from tests.helpers import hostile

HARMLESS = {  # what such a file says is odd, and means no harm
    "entries in another order", "losses that are not finite", "NaN", "another patch size", "flipped bits",
}  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    return hostile.parts()


def test_every_kind_is_used_or_refused_in_one_line(parts, tmp_path, monkeypatch):
    network, state, arrays, training = parts
    monkeypatch.setattr(ms, "load_checkpoint", lambda *given, **named: pytest.fail("MindSpore's loader trusts files"))
    path, accepted, seconds = tmp_path / "a.ckpt", set(), {}
    for kind, content, is_state in hostile.checkpoints(arrays, training, random.Random(0)):
        path.write_bytes(content)
        began = time.monotonic()
        try:
            hostile.use(path, is_state, network, state)
            accepted.add(kind)
        except UserError as refused:
            assert 10 < len(str(refused)) < 2000, kind
        seconds[kind] = time.monotonic() - began
    assert accepted <= HARMLESS
    assert max(seconds.values()) < 2, max(seconds, key=seconds.get)
    assert len(seconds) > 60


def test_whole_files_are_read(parts, tmp_path):
    network, state, arrays, training = parts
    for is_state, entries in ((False, hostile.weights(arrays)), (True, hostile.state(training, losses=[1.0, 2.0]))):
        (tmp_path / "a.ckpt").write_bytes(hostile.encode(entries))
        hostile.use(tmp_path / "a.ckpt", is_state, network, state)


def test_arrays_that_mindspore_wrote_in_pieces_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr("mindspore.train.serialization.SLICE_SIZE", 1)  # KB, for 512 MB
    arrays = {"a": np.random.rand(40, 50), "b": np.float32(3), "c": np.arange(700, dtype=np.int32)}
    named = [{"name": name, "data": Tensor(array)} for name, array in arrays.items()]
    named.append({"name": "half", "data": Tensor([1.5, -2.0], ms.bfloat16)})
    ms.save_checkpoint(named, str(tmp_path / "a.ckpt"), crc_check=True)
    assert (tmp_path / "a.ckpt").read_bytes().count(b"\x0a\x01a") == 16
    read = read_arrays(tmp_path / "a.ckpt")
    for name, array in arrays.items():
        assert (read[name] == array).all()
        assert (read[name].shape, read[name].dtype) == (array.shape, array.dtype)
    assert read["half"].tolist() == [1.5, -2.0]


def test_a_file_without_a_checksum_is_a_strangers(parts, tmp_path):
    _, _, arrays, training = parts
    stranger = [hostile.entry(name, array) for name, array in arrays.items()]
    for entries, ours in ((stranger, False), (hostile.weights(arrays), True), (hostile.state(training), True)):
        (tmp_path / "a.ckpt").write_bytes(hostile.encode(entries, checksum=False))
        if ours:
            with pytest.raises(UserError, match="its checksum is missing"):
                read_arrays(tmp_path / "a.ckpt")
        else:
            assert read_arrays(tmp_path / "a.ckpt").keys() == arrays.keys()


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "message"),
    [
        ("F8_E4M3", [4], 4, "w is not of a type among F16"),
        ("BF16", [4], 8, "w is not of a type among F16"),
        ("BOOL", [4], 4, "w is not of a type among F16"),
        ("F32", [0, 4], 0, r"w has the shape \[0, 4\]"),
        ("F32", [1] * 40, 4, "w has the shape"),
        ("F32", [2**40], 2**42, "damaged"),
    ],
)
def test_safetensors_of_another_kind_are_refused(tmp_path, dtype, shape, size, message):
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * min(size, 100))
    with pytest.raises(UserError, match=message):
        read_arrays(tmp_path / "a.safetensors")


def test_a_single_number_for_a_weight_is_refused(parts, tmp_path):
    save_file({"head.weight": np.array(1.0), "patch_embed.proj.weight": np.array(2.0)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"missing: head\.weight"):
        read_checkpoint(tmp_path / "a.safetensors").fill_in(Config(model=hostile.MODEL))


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "a.ckpt").write_bytes(b"")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"a\.ckpt cannot be read: Permission denied"):
        read_arrays(tmp_path / "a.ckpt")
