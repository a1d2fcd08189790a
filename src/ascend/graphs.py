"""Read the operators of a compiled graph, with their types and shapes, from what MindSpore writes."""

import math
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
_TENSORS = re.compile(  # one tensor, or a tuple of them
    r"<Tensor\[(\w+)\], \(([\d, ]*)\)|<Tuple\[([^<>]*Tensor[^<>]*)\], TupleShape\((.*?)\)(?:, elements_use_flags|>)"
)
_REPEATED = re.compile(r"Tensor\[(\w+)\](?:\*(\d+))?")
_SIZES = re.compile(r"\(([\d, ]*)\)")
_BITS = re.compile(r"\d+")
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
        tensors: Type and shape of each tensor it takes and then gives; empty where the graph's form does not tell.
    """

    primitive: str
    types: frozenset[str]
    dynamic: bool
    constants: tuple[float, ...] = ()
    tensors: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def moved(self) -> int:
        """Bytes of the tensors it takes and gives, each once."""
        return sum(_width(kind) * math.prod(shape) for kind, shape in self.tensors)


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


def compiled_graph(folder: Path, cell: "nn.Cell", *inputs: object) -> list[Node]:
    """Return the operators of a cell's graph as MindSpore's front end leaves them for Ascend's graph engine.

    It is compiled as if for a 910A. Where that has operators without a CPU kernel, the compiler stops after the
    graph was written, and that is enough.

    Args:
        folder: The folder that `dump_ir` yields.
    """
    shutil.rmtree(folder)
    problem = None
    try:
        with _as_if_on_910a(cell):
            cell.compile(*inputs)
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
        nodes.append(Node(found[1], types, dynamic, constants, _tensors(following)))
    return nodes


def _tensors(signature: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the type and shape of all tensors in the line that gives those of an operator, in its order."""
    found: list[tuple[str, str]] = []
    for single, sizes, several, shapes in _TENSORS.findall(signature):
        kinds = [kind for kind, times in _REPEATED.findall(several) for _ in range(int(times or 1))]
        found += zip(kinds, _SIZES.findall(shapes)) if several else [(single, sizes)]
    return tuple((kind.lower(), tuple(map(int, filter(None, sizes.split(", "))))) for kind, sizes in found)


def _width(kind: str) -> int:
    """Return the bytes of a number of a type: of float16 2, of bool 1."""
    bits = _BITS.search(kind)
    return int(bits[0]) // 8 if bits else 1


def _type(number: int) -> str:
    from mindspore.train.mind_ir_pb2 import TensorProto

    name = TensorProto.DataType.Name(number).lower()
    return {"float": "float32"}.get(name, name)


@contextmanager
def _as_if_on_910a(step: "nn.Cell") -> Iterator[None]:
    """Take 910A's branch where the graph of a step depends on the device: in the check for overflow."""
    import mindspore as ms

    step = getattr(step, "step", step)  # where gradients are accumulated
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
