"""Checkpoints by somebody who means harm, of every kind, each different for other random numbers."""

import binascii
import struct
from dataclasses import dataclass, replace

import numpy as np

from src.config import Config, ModelConfig, dump, parse
from src.models import from_config
from src.runs import RunFolder
from src.training.checkpoint import restore_state
from src.training.state import create_train_state
from src.weights import read_checkpoint
from src.weights.files import CONFIG

MODEL = ModelConfig(image_size=8, patch_size=4, embed_dim=8, depth=2, num_heads=2, num_classes=3, tokens="none")
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)


@dataclass(frozen=True)
class Entry:
    name: bytes
    dims: tuple[int, ...]
    kind: bytes
    content: bytes
    extra: bytes = b""


def varint(value):
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def encode(entries, checksum=True):
    """The bytes of a file with these entries, and MindSpore's checksum."""
    body = b""
    for entry in entries:
        dims = b"".join(b"\x08" + varint(side) for side in entry.dims)
        tensor = dims + field(2, entry.kind) + field(3, entry.content)
        body += field(1, field(1, entry.name) + field(2, tensor) + entry.extra)
    return with_checksum(body) if checksum else body


def with_checksum(body):
    return body + b"crc_num" + binascii.crc32(body).to_bytes(10, "big")


def entry(name, array):
    kinds = {"f4": b"Float32", "f8": b"Float64", "f2": b"Float16", "i4": b"Int32", "i8": b"Int64", "u1": b"UInt8"}
    array = np.asarray(array)
    return Entry(name.encode(), array.shape, kinds[array.dtype.str[1:]], array.tobytes())


def config_entry(text):
    return entry(CONFIG, np.frombuffer(text if isinstance(text, bytes) else text.encode(), np.uint8))


def weights(arrays):
    """Entries of whole weights and their configuration."""
    return [*(entry(name, array) for name, array in arrays.items()), config_entry(dump(Config(model=MODEL)))]


PROGRESS = {"epoch": 1.0, "best_phase": 1.0, "best_top1": 50.0, "skipped": 0.0}


def state(arrays, **progress):
    """Entries of a training's whole state."""
    saved = [
        entry(f"reached.{name}", np.asarray(value, np.float64)) for name, value in {**PROGRESS, **progress}.items()
    ]
    return [*(entry(name, array) for name, array in arrays.items()), *saved, config_entry(dump(Config(model=MODEL)))]


def _replaced(entries, random, **fields):
    index = random.randrange(len(entries) - 1)  # not the configuration
    return [*entries[:index], replace(entries[index], **fields), *entries[index + 1 :]]


def _kinds_of_entries(random):
    """How one entry, or the list of them, is spoilt: by name, a function of the entries."""
    some = random.randrange
    vast = random.choice([2**31, 2**40, 2**62, 2**63 - 1])
    fields = {
        "dims of other bytes": {"dims": (some(1, 99), some(1, 99), some(1, 9))},
        "vast dims": {"dims": (vast, some(1, 9))},
        "overflowing dims": {"dims": (2**32, 2**32, 2**32)},
        "negative dims": {"dims": (-some(1, 99), some(1, 9))},
        "a dim of 0": {"dims": (0, some(1, 9)), "content": b""},
        "empty": {"dims": (0,), "content": b""},
        "no dims": {"dims": ()},
        "a single number": {"dims": (), "content": struct.pack("<f", 1.0), "kind": b"Float32"},
        "many dims": {"dims": (1,) * some(9, 5000)},
        "Int8": {"kind": b"Int8"}, "Bool": {"kind": b"Bool"}, "str": {"kind": b"str"}, "Int4": {"kind": b"Int4"},
        "an unknown type": {"kind": random.choice([b"Float8", b"", b"\xff\xfe", b"x" * some(1, 10**6), b"float32"])},
        "whole numbers": {"kind": b"Int32"}, "Float64 of Float32": {"kind": b"Float64"},
        "BFloat16": {"kind": b"BFloat16"},
        "no content": {"content": b""}, "a long content": {"content": random.randbytes(some(1, 99))},
        "no name": {"name": b""}, "a long name": {"name": b"n" * some(300, 10**6)},
        "a name that is not UTF-8": {"name": random.randbytes(some(1, 40)) + b"\xff"},
        "a name with control codes": {"name": b"\x1b]0;x\x07\x1b[2J\r\n" + str(some(99)).encode()},
        "another name": {"name": f"blocks.{some(10**9)}.weight".encode()},
        "a map of tensors": {"extra": field(3, b"")}, "a second tensor": {"extra": field(2, b"")},
        "an unknown field": {"extra": varint(some(4, 2**28) << 3 | some(8)) + random.randbytes(some(20))},
    }  # fmt: skip
    return {name: lambda entries, given=given: _replaced(entries, random, **given) for name, given in fields.items()}


def kinds_of_configs(random):
    """Configurations that a checkpoint may bring along, by name."""
    some = random.randrange
    text = dump(Config(model=MODEL))
    wide, deep = random.choice([512, 4096, 2**14]), random.choice([24, 1000])
    return {
        "a config that is not UTF-8": b"\xff\xfe" + random.randbytes(some(1, 99)),
        "an empty config": b"", "a config of NUL": b"\0" * some(1, 99),
        "a long config": ("#" + "x" * some(2**16, 2**20)).encode(),
        "a bomb of aliases": BOMB, "a tag": "train: {seed: !!bool x}",
        "a tag of Python": "!!python/object/apply:os._exit [3]",
        "nested lists": "[" * some(100, 30000), "nested mappings": "{a: " * some(100, 9000),
        "a vast network": text.replace("embed_dim: 8", f"embed_dim: {wide}").replace("depth: 2", f"depth: {deep}"),
        "a vast image": text.replace("image_size: 8", "image_size: 16384").replace("patch_size: 4", "patch_size: 1"),
        "vast classes": text.replace("num_classes: 3", f"num_classes: {10 ** some(5, 12)}"),
        "vast epochs": text.replace("epochs: 300", f"epochs: {'9' * some(5, 9000)}"),
        "an unknown key": text + f"  zzz{some(10**6)}: 1\n",
        "many unknown keys": "".join(f"k{i}: {{}}\n" for i in range(4000)),
        "control codes": text.replace("sklearn:digits", '"\\e]0;owned\\a\\e[2J"'),
        "NUL in a name": text.replace("sklearn:digits", '"a\\0b"'),
        "half a character": text.replace("sklearn:digits", '"a\\ud800"'),
        "another patch size": text.replace("patch_size: 4", f"patch_size: {random.choice([1, 2, 8, 3])}"),
    }  # fmt: skip


def _kinds_of_progress(random):
    wrong = random.choice([np.nan, np.inf, -np.inf, 1e300, -5.0, 0.5])
    name = random.choice(["epoch", "best_phase", "skipped"])
    return {
        "a progress that is no count": {name: wrong},
        "a progress of another shape": {name: np.zeros(random.choice([(1,), (2, 2), (5,)]))},
        "a top-1 that is none": {"best_top1": random.choice([np.nan, np.inf, -2.0, [1.0, 2.0]])},
        "losses of another shape": {"losses": np.zeros(random.choice([(), (2, 2)]))},
        "losses that are not finite": {"losses": np.full(random.randrange(1, 9), wrong)},
        "a progress of another name": {random.choice(["epochs", "__class__"]): 1.0},
    }


def _kinds_of_bytes(random, whole):
    """How the bytes of a whole file are spoilt, before a checksum that fits."""
    some, body = random.randrange, whole[:-17]
    at = some(len(body))
    flipped = bytearray(body)
    for _ in range(some(1, 9)):
        flipped[some(len(body))] ^= 1 << some(8)
    return {
        "flipped bits": lambda: with_checksum(bytes(flipped)),
        "cut": lambda: with_checksum(body[:at]),
        "bytes inserted": lambda: with_checksum(body[:at] + random.randbytes(some(1, 40)) + body[at:]),
        "bytes left out": lambda: with_checksum(body[:at] + body[at + some(1, 40) :]),
        "twice": lambda: with_checksum(body + body),
        "numbers that never end": lambda: with_checksum(b"\x0a" + b"\xff" * some(1, 10**5)),
        "a vast length": lambda: with_checksum(b"\x0a" + varint(2 ** some(20, 64) - 1) + body),
        "nothing but empty entries": lambda: with_checksum(b"\x0a\x00" * some(1, 10**5)),
        "groups": lambda: with_checksum(b"\x0b" * some(1, 10**5)),
        "no checksum": lambda: body,
        "another checksum": lambda: body + b"crc_num" + random.randbytes(10),
        "nothing": lambda: b"", "only a checksum": lambda: with_checksum(b""),
        "noise": lambda: random.randbytes(some(1, 5000)),
    }  # fmt: skip


def checkpoints(network, training, random):
    """Yield a file of every kind: (kind, bytes, whether it stands for a training's state).

    Args:
        network: A network's weights by name.
        training: The parameters of a training's state by name.
    """
    for is_state, whole in ((False, weights(network)), (True, state(training))):
        for kind, spoil in _kinds_of_entries(random).items():
            yield kind, encode(spoil(whole)), is_state
        for kind, spoil in _kinds_of_bytes(random, encode(whole)).items():
            yield kind, spoil(), is_state
        yield "entries in another order", encode(random.sample(whole, len(whole))), is_state
        yield "an entry is missing", encode(random.sample(whole, len(whole) - 1)), is_state
        yield "an entry twice", encode([*whole, random.choice(whole)]), is_state
    for kind, text in kinds_of_configs(random).items():
        yield kind, encode([*weights(network)[:-1], config_entry(text)]), False
    for kind, progress in _kinds_of_progress(random).items():
        yield kind, encode(state(training, **progress)), True
    for name in ("head.weight", "patch_embed.proj.weight"):
        for wrong in (np.float32(1), np.zeros(3, np.float32), np.zeros((3, 8, 1, 1), np.float32)):
            yield f"{name} {wrong.shape}", encode(weights({**network, name: wrong})), False
    yield "NaN", encode(weights({name: np.full_like(array, np.nan) for name, array in network.items()})), False


def parts():
    """The network of `MODEL`, the state of a training of it, and the arrays of both by name."""
    network = from_config(MODEL)
    state = create_train_state(Config(model=MODEL), lambda: from_config(MODEL), [0.1])
    arrays = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    return network, state, arrays, {name: value.asnumpy() for name, value in state.parameters().items()}


def use(path, is_state, network, state):
    """As the commands do: a state is resumed, weights and the configuration beside them make a network; return that."""
    if is_state:
        run = RunFolder(path.parent)
        run.last = path
        restore_state(run, state, steps=3)
        return None
    checkpoint = read_checkpoint(path)
    config = Config(model=MODEL) if checkpoint.config is None else parse(checkpoint.config, "its configuration")
    config = checkpoint.fill_in(config)
    checkpoint.load_into(network)
    return config
