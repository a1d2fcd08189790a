"""PyTorch's .pth and NumPy's .npz: read exactly, or refused in one line, nothing run. PyTorch 2.14 wrote files/."""

import io
import os
import pickle
import random
import subprocess
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from src.config import parse
from src.errors import UserError
from src.weights.files import read_arrays
from src.weights.initial import read_initial
from tests.helpers.commands import run_here

FILES = Path(__file__).parent / "files"
TRAINING = FILES / "training.pth"
NAMES = ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]


def drawn(seed):
    """The first arrays that the files were made with."""
    generator = np.random.RandomState(seed)
    shapes = [(1, 1, 8), (1, 5, 8), (8, 3, 4, 4), (8,)]
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in zip(NAMES, shapes)}


@pytest.mark.parametrize(
    ("name", "part", "seed", "tolerance"),
    [("training", "", 0, 0), ("training", "model_ema", 1, 0), ("half", "", 0, 2e-3), ("parameters", "", 0, 2e-2)],
)
def test_files_of_pytorch_are_read(name, part, seed, tolerance):
    """A training's checkpoint as DeiT and EViT write it, with its average, optimizer and arguments; half precision;
    parameters in bfloat16, whose names a parallel training has prefixed.
    """
    arrays = read_arrays(FILES / f"{name}.pth", part)
    assert len(arrays) == 32
    for own, expected in drawn(seed).items():
        assert arrays[own].shape == expected.shape
        assert np.abs(arrays[own].astype(np.float64) - expected).max() <= tolerance, own
    # in training.pth head.weight is stored by columns, and the last norm's weight and bias are one storage
    whole = read_arrays(TRAINING, part)
    for own in ("head.weight", "norm.weight", "norm.bias"):
        assert np.abs(arrays[own].astype(np.float64) - whole[own]).max() <= tolerance, own
    assert not np.array_equal(whole["norm.weight"], whole["norm.bias"])


def test_a_training_of_pytorch_is_converted(tmp_path):
    result = run_here("src.tools.convert", TRAINING, "a.ckpt", "model.num_heads=2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    arrays = read_arrays(tmp_path / "a.ckpt")
    assert np.array_equal(arrays["cls_token"], drawn(0)["cls_token"])
    assert np.array_equal(arrays["head.weight"], read_arrays(TRAINING)["head.weight"])


def test_a_training_starts_from_a_file_of_pytorch():
    sizes = {"image_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 2, "num_heads": 2, "num_classes": 3}
    config = parse("{}", "test", {"train.init": str(TRAINING), **{f"model.{key}": sizes[key] for key in sizes}})
    initial = read_initial(config, ("a", "b", "c"))
    assert np.array_equal(initial.arrays["head.weight"], read_arrays(TRAINING)["head.weight"])
    assert initial.remarks == ()


def refused(path, match=None, seconds=3):
    began = time.monotonic()
    with pytest.raises(UserError, match=match) as error:
        read_arrays(path)
    assert time.monotonic() - began < seconds
    text = str(error.value)
    assert path.name in text
    assert len(text.splitlines()) == 1
    assert len(text) < 500


def test_what_is_not_there_or_too_old_is_said():
    refused(FILES / "legacy.pth", r"PyTorch's format before 1\.6; write it anew with PyTorch: torch\.save")
    with pytest.raises(UserError, match="has no model_emma; it has model, model_ema, optimizer"):
        read_arrays(TRAINING, "model_emma")


def pth(path, pickled, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in entries.items():
            archive.writestr(f"archive/data/{name[1:]}", content)
    return path


class Evil:
    def __init__(self, call, *arguments):
        self.result = call, arguments

    def __reduce__(self):
        return self.result


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_no_code_of_a_pickle_is_run(tmp_path, protocol):
    """The same pickle, loaded by `pickle`, makes the file; where protocol 0's opcodes are unknown, they are named."""
    made = tmp_path / "made"
    calls = [Evil(os.system, f"touch {made}"), Evil(open, str(made), "w"), Evil(eval, f"open({str(made)!r}, 'w')"),
             Evil(subprocess.call, ["touch", str(made)])]  # fmt: skip
    for call in calls:
        pickled = pickle.dumps({"model": {"a": call}}, protocol)
        refused(pth(tmp_path / "evil.pth", pickled), "its pickle (wants|has the opcode) .* nothing was run")
        assert not made.exists()
        pickle.loads(pickled)
        assert made.exists(), "the pickle is harmless, and the test says nothing"
        made.unlink()


def test_opcodes_that_run_code_otherwise_are_refused(tmp_path):
    for pickled in (
        b"(S'x'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'x'\no.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02cbuiltins\neval\n\x8c\x011\x85R.",
        b"\x80\x02ccollections\nOrderedDict\n(X\x01\x00\x00\x00aK\x01tR.",
        b"\x80\x02ctorch\nFloatStorage\nK\x05\x85R.",
        b"\x80\x02X\x01\x00\x00\x00aK\x05\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
    ):
        refused(pth(tmp_path / "a.pth", pickled))


def test_bombs_are_refused_soon(tmp_path):
    doubling = b"\x80\x02K\x01" + b"q\x00h\x00\x86" * 60_000  # tuples of tuples of tuples
    for pickled in (
        doubling + b".", b"\x80\x02}" + doubling[2:] + b"K\x01s.", b"\x80\x02" + b"]" * 2**19 + b".",
        b"\x80\x02]r\xff\xff\xff\xff.", b"\x80\x02X\xff\xff\xff\x7fa.", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fa.",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", b"", b"\x80", b"(" * 1000 + b"t.", b"0.", b"\x80\x02t.",
    ):  # fmt: skip
        refused(pth(tmp_path / "a.pth", pickled), seconds=10)
    with zipfile.ZipFile(tmp_path / "zip.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**28))
    refused(tmp_path / "zip.pth", "its archive is compressed, and PyTorch's are not")
    with zipfile.ZipFile(tmp_path / "npz.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(2**28))
    refused(tmp_path / "npz.npz", "more bytes than weights can be compressed from")


def described(shape, strides, offset=0, size=4):
    """A pickle of {"model": {"w": a tensor of storage 0}}."""

    class Tensor:
        def __reduce__(self):
            return rebuild, (Storage(), offset, shape, strides, False, None)

    class Storage:
        pass

    def rebuild():
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            return ("storage", Named("torch", "FloatStorage"), "0", "cpu", size) if isinstance(value, Storage) else None

        def save(self, value, save_persistent_id=True):
            if isinstance(value, Named):
                self.write(b"c%s\n%s\n" % (value.module.encode(), value.name.encode()))
            elif value is rebuild:
                self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
            else:
                super().save(value, save_persistent_id)

    class Named:
        def __init__(self, module, name):
            self.module, self.name = module, name

    content = io.BytesIO()
    Pickler(content, 2).dump({"model": {"w": Tensor()}})
    return content.getvalue()


def test_tensors_that_claim_more_than_there_is_are_refused(tmp_path):
    storage = np.arange(4, dtype=np.float32).tobytes()
    path = pth(tmp_path / "a.pth", described((2, 2), (1, 2)), _0=storage)
    assert read_arrays(path)["w"].tolist() == [[0, 2], [1, 3]]
    for shape, strides, offset in (
        ((2, 3), (3, 1), 0), ((2, 2), (2, 1), 1), ((4,), (2,), 0), ((2**40,), (0,), 0), ((2, 2), (1,), 0),
        ((-1, 2), (2, 1), 0), ((2, 2), (-2, 1), 3), ((0, 2), (2, 1), 0), ((2**70,), (1,), 0), (("x",), (1,), 0),
        ((1,) * 40, (1,) * 40, 0), ((True, 2), (2, 1), 0), ((1000,), (0,), 0), ((1.5,), (1,), 0),
    ):  # fmt: skip
        refused(pth(tmp_path / "a.pth", described(shape, strides, offset), _0=storage))
    refused(pth(tmp_path / "a.pth", described((2, 2), (2, 1)), _1=storage), "the content of w is missing")
    refused(pth(tmp_path / "a.pth", described((2, 2), (2, 1)), _0=storage[:-1]), "w is larger than its content")


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_of_pytorch_are_refused_or_read(tmp_path, seed):
    """Flipped bits and cut ends: an entry's checksum or a line; what is read has the right form."""
    whole, generator, read = TRAINING.read_bytes(), random.Random(seed), 0
    expected = {name: array.shape for name, array in read_arrays(TRAINING).items()}
    path = tmp_path / "a.pth"
    for _ in range(60):
        content = bytearray(whole)
        if generator.random() < 0.3:
            del content[generator.randrange(len(content)) :]
        else:
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.unlink(missing_ok=True)
        path.write_bytes(bytes(content))
        try:
            arrays = read_arrays(path)
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            continue
        read += 1
        assert {name: array.shape for name, array in arrays.items()} == expected
    assert read < 55  # bits between the entries, and of those that are not read


def npy(**changes):
    content = io.BytesIO()
    np.save(content, np.arange(6, dtype=np.float32).reshape(2, 3))
    text = content.getvalue()
    for old, new in changes.get("replace", ()):
        text = text.replace(old, new)
    return text


def test_arrays_of_numpy_that_are_not_what_they_say_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    for content in (
        npy(replace=[(b"(2, 3), }", b"(99999999, 99999999), }"[:9])]), npy(replace=[(b"(2, 3)", b"(3, 3)")]),
        npy(replace=[(b"<f4", b"|O8")]), npy(replace=[(b"(2, 3)", b"(2, 0)")]), b"", npy()[:40], npy() + b"x",
        npy(replace=[(b"{'descr'", b"[" * 8)]), npy(replace=[(b"NUMPY\x01", b"NUMPY\x09")]),
        b"\x80\x04\x95" + bytes(100),
    ):  # fmt: skip
        path.unlink(missing_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", content)
        refused(path, "damaged, or no checkpoint")
    np.savez(path, a=np.array([Evil(os.system, "true")], object))
    refused(path, "a.npy is no array of numbers")
    np.savez(path, config=np.ones(3, np.float32))
    refused(path, "its config is not text")
