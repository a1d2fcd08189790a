"""Read the operators of a compiled graph, with their types and shapes, from what MindSpore writes."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

if TYPE_CHECKING:
    from mindspore import nn

# Bookkeeping that no device computes.
BOOKKEEPING = {
    "Call", "Constant", "Depend", "Load", "MakeTuple", "Partial", "Return", "Switch", "TupleGetItem", "UpdateState",
}  # fmt: skip

_NODE = re.compile(r"^ +%\d+\([^=]*\) = (?:PrimFunc_)?(?:\w+::)?(\w+)\(")
_TYPE = re.compile(r"Tensor\[(\w+)\]")
_UNKNOWN = re.compile(r"[(,] *-[12] *[,)]")  # -1: a dimension, -2: the rank
_NUMBER = re.compile(r"\b(?:F32|F16|value=)\(?(-?(?:\d[\d.e+-]*|inf|nan))")


@dataclass(frozen=True)
class Node:
    """One operator of a graph.

    Attributes:
        primitive: Its name in MindSpore.
        types: Of the tensors it takes and gives: float16, float32, int32, bool, ...
        dynamic: Whether a dimension of what it gives is unknown before it runs.
        constants: The floating point numbers among its arguments.
    """

    primitive: str
    types: frozenset[str]
    dynamic: bool
    constants: tuple[float, ...] = ()


def forward_graph(network: "nn.Cell", *inputs: object) -> list[Node]:
    """Return the operators of a network as it is exported."""
    import mindspore as ms
    from mindspore.train.mind_ir_pb2 import ModelProto

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.mindir"
        ms.export(network, *inputs, file_name=str(path), file_format="MINDIR")
        model = ModelProto()
        model.ParseFromString(path.read_bytes())
    nodes, types = [], {}
    for graph in [model.graph, *model.functions]:
        for node in graph.node:
            name = node.op_type.split("::")[-1].split(":")[0]
            given = [t for attribute in node.attribute if attribute.name == "shape" for t in attribute.tensors]
            names = {_type(tensor.data_type) for tensor in given}
            types.update(dict.fromkeys(node.output, names))
            taken = set().union(*(types.get(source, set()) for source in node.input))
            dynamic = any(size < 0 for tensor in given for size in tensor.dims)
            nodes.append(Node(name, frozenset(names | taken), dynamic))
    return [node for node in nodes if node.primitive not in BOOKKEEPING]


@contextmanager
def dump_ir() -> Iterator[Path]:
    """Have MindSpore write its graphs, after the front end's last pass, to the folder that is yielded.

    Raises:
        RuntimeError: MindSpore is imported already, and reads these settings no more.
    """
    if "mindspore" in sys.modules:
        raise RuntimeError("MindSpore reads where to write its graphs when it is imported; enter this before")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(MS_DEV_SAVE_GRAPHS="2", MS_DEV_SAVE_GRAPHS_PATH=folder, MS_DEV_DUMP_IR_PASSES="validate")
        yield Path(folder)


def training_graph(folder: Path, step: "nn.Cell", *inputs: object) -> list[Node]:
    """Return the operators of a training step as MindSpore's front end leaves them for Ascend's graph engine.

    The step is compiled as if for a 910A. Where that has operators without a CPU kernel, the compiler stops after the
    graph was written, and that is enough.

    Args:
        folder: The folder that `dump_ir` yields.
    """
    shutil.rmtree(folder)
    problem = None
    try:
        with _as_if_on_910a(step):
            step.compile(*inputs)
    except (RuntimeError, TypeError) as error:
        problem = error
    files = sorted(folder.glob("**/*_validate_*.ir"), key=lambda file: int(file.name.split("_")[0]))
    if not files:
        raise problem or RuntimeError("MindSpore wrote no graph")
    return read_ir(files[-1].read_text(encoding="utf-8"))


def read_ir(text: str) -> list[Node]:
    """Parse the operators of a graph in MindSpore's text form."""
    lines = text.splitlines()
    nodes = []
    for line, following in zip(lines, [*lines[1:], ""]):
        found = _NODE.match(line)
        if not found or found[1] in BOOKKEEPING:
            continue
        types = frozenset(kind.lower() for kind in _TYPE.findall(following))
        dynamic = _UNKNOWN.search(following.rpartition("->")[2]) is not None
        constants = tuple(float(number) for number in _NUMBER.findall(line))
        nodes.append(Node(found[1], types, dynamic, constants))
    return nodes


def _type(number: int) -> str:
    from mindspore.train.mind_ir_pb2 import TensorProto

    name = TensorProto.DataType.Name(number).lower()
    return {"float": "float32"}.get(name, name)


@contextmanager
def _as_if_on_910a(step: "nn.Cell") -> Iterator[None]:
    """Take 910A's branch where the graph of a step depends on the device: in the check for overflow."""
    import mindspore as ms

    on_ascend = getattr(step, "on_ascend", None)
    with (
        mock.patch("mindspore.amp._ascend_target", ms.constexpr(lambda: True)),
        mock.patch("mindspore.amp._ascend_910a_target", ms.constexpr(lambda: True)),
    ):
        if on_ascend is not None:
            step.on_ascend = True
        try:
            yield
        finally:
            if on_ascend is not None:
                step.on_ascend = on_ascend
