"""The differences between MindSpore's releases 2.2 to 2.10: nothing else here asks for a version.

Run on 2.7.0 and 2.10.0. 2.2 to 2.6 need an older Python or an Ascend machine and were only read.
"""

import mindspore as ms
from google.protobuf.message import DecodeError
from mindspore.train.mind_ir_pb2 import ModelProto

PRECISION_MODE = "allow_fp32_to_fp16"


def set_device(target: str) -> None:
    """Choose the device: `set_device` came with 2.6."""
    if hasattr(ms, "set_device"):
        ms.set_device(target)
    else:
        ms.set_context(device_target=target)


def set_ascend() -> None:
    """Compile whole graphs through GE, with float16 only where an operator has no float32 kernel.

    910A has no other way to run graphs. 2.2 has no jit_level, and no backend but GE; 2.6 moved the precision mode out
    of the context.
    """
    if _release() >= (2, 3):
        ms.set_context(jit_config={"jit_level": "O2"})
    device_context = getattr(ms, "device_context", None)
    if device_context is not None:
        device_context.ascend.op_precision.precision_mode(PRECISION_MODE)
    else:
        ms.set_context(ascend_config={"precision_mode": PRECISION_MODE})


def user_info(said: dict[str, str]) -> bytes:
    """Return the bytes of a MindIR file that has only its `user_info`: a list of entries in 2.7, a map later."""
    model = ModelProto()
    if hasattr(model.user_info, "add"):
        for key, value in said.items():
            entry = model.user_info.add()
            entry.key, entry.value = key, value
    else:
        model.user_info.update(said)
    return bytes(model.SerializeToString())


def read_mindir(content: bytes) -> tuple[list[int], dict[str, str]]:
    """Return the shape of a MindIR file's first input, -1 for any number, and its `user_info`.

    Raises:
        ValueError: It is no such file.
    """
    model = ModelProto()
    try:
        model.ParseFromString(content)
        shape = list(model.graph.input[0].tensor[0].dims)
    except (DecodeError, IndexError) as error:
        raise ValueError(str(error)) from error
    info = model.user_info
    return shape, {entry.key: entry.value for entry in info} if hasattr(info, "add") else dict(info)


def _release() -> tuple[int, int]:
    major, minor = ms.__version__.split(".")[:2]
    return int(major), int(minor)
