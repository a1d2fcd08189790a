"""The operators of this project's graphs, and what Ascend 910A has for each.

Sources: the graph engine's adapters and fallbacks in MindSpore's branches r2.2 to r2.7
(mindspore/ccsrc/transform/graph_ir/op_declare, later plugin/.../op_adapter/op_declare, and the expanders under
backend/common), and the AI Core operators of SoC Ascend910 in CANN 8.1.RC1 (aic-ascend910-ops-info.json). Types are
given where the kernel limits them. Nothing here was run on a 910A.
"""

from dataclasses import dataclass

FIRST = "2.2"  # of the releases looked at: a route in every one of them


@dataclass(frozen=True)
class Operator:
    """The route of one primitive.

    Attributes:
        route: The first release of MindSpore whose graph engine takes it; "pass" if a pass rewrites it beforehand.
        kernel: AI Core operators that compute it; empty if it only renames memory, or runs elsewhere.
        types: Of the tensors that the kernels take; empty if they take what is used here.
        note: Remarks.
    """

    route: str = FIRST
    kernel: str = ""
    types: frozenset[str] = frozenset()
    note: str = ""


def _same(*names: str) -> dict[str, Operator]:
    """List primitives that have a route in every release and an AI Core operator of their name."""
    return {name: Operator(kernel=name) for name in names}


# What CANN's graph engine joins to the operator before it, by its reference of graph fusion patterns (CANN 8.0):
# MatMulBiasAddFusionPass makes MatMul and BiasAdd one MatMulV2 with a bias.
FUSED = ("BiasAdd",)

_FLOATS = frozenset({"float16", "float32"})

OPERATORS: dict[str, Operator] = {
    **_same(
        "Abs", "Add", "AddN", "Assign", "AssignAdd", "BatchNorm", "BatchNormGrad", "BiasAdd", "BiasAddGrad",
        "BroadcastTo", "Cast", "Div", "Equal", "Erf", "Exp", "Greater", "GreaterEqual", "LayerNorm",
        "LayerNormGrad", "Less", "LessEqual", "LogicalAnd", "LogicalOr", "Maximum", "Minimum", "Mul", "Neg",
        "OneHot", "OnesLike", "Pow", "RealDiv", "Reciprocal", "ReduceAll", "ReduceMax", "ReduceMean",
        "ReduceMin", "ReduceSum", "ReluGrad", "ReverseV2", "Select", "Slice", "SoftmaxCrossEntropyWithLogits",
        "Sqrt", "Square", "StridedSlice", "StridedSliceGrad", "Sub", "Tanh", "TanhGrad", "Tile", "Transpose",
        "ZerosLike",
        "NPUClearFloatStatusV2", "NPUGetFloatStatusV2",
    ),
    "MatMul": Operator(kernel="MatMulV2", note="cube unit: float16, summed in float32"),
    "BatchMatMul": Operator(kernel="BatchMatMul", note="cube unit: float16, summed in float32"),
    **{name: Operator(kernel=name, note="cube unit: float16, summed in float32")
       for name in ("Conv2D", "Conv2DBackpropFilter", "Conv2DBackpropInput")},
    "ReLU": Operator(kernel="Relu"),
    "LogSoftmax": Operator(kernel="LogSoftmaxV2"),
    "GeLU": Operator(kernel="Gelu", note="the tanh formula"),
    "GeLUGrad": Operator(kernel="GeluGrad", note="the tanh formula"),
    "Softmax": Operator(kernel="SoftmaxV2"),
    "LogSoftmaxGrad": Operator(kernel="LogSoftmaxGrad"),
    "CumSum": Operator(kernel="Cumsum"),
    "Concat": Operator(kernel="ConcatD"),
    "Stack": Operator(kernel="Pack"),
    "Unstack": Operator(kernel="Unpack"),
    "Split": Operator(kernel="SplitD"),
    "Reshape": Operator(),
    "ExpandDims": Operator(),
    "Gather": Operator(kernel="GatherV2", types=_FLOATS | {"int32"}, note="indices are int32"),
    "ScatterNd": Operator(kernel="ScatterNd", types=frozenset({"float32", "int32"}), note="of int32 indices only"),
    "ApplyMomentum": Operator(kernel="ApplyMomentumD"),
    "AdamWeightDecay": Operator("pass", "Mul, Add, Square, Sqrt, RealDiv, Sub, Assign", note="a pass splits it"),
    "Dropout": Operator("pass", "DropOutDoMask", note="slow: its mask is drawn on the AI CPU"),
    "IsFinite": Operator(note="slow: AI CPU; of the loss alone, where the loss scale is fixed"),
    "SoftmaxBackward": Operator("2.6", "SoftmaxGrad", note="written by 2.10's own gradient; before it SoftmaxGrad"),
    "SumExt": Operator("2.6", "ReduceSum", note="written by 2.10's own gradient; before it ReduceSum"),
    "SplitWithSize": Operator("2.6", "SplitV", note="written by 2.10's own gradient; before it Slice"),
    "Muls": Operator("2.6", "Muls", note="written by 2.10's own gradient; before it Mul"),
}  # fmt: skip


def moves_memory(primitive: str) -> bool:
    """Tell whether an operator does more than give memory another shape; one that is not listed does."""
    operator = OPERATORS.get(primitive)
    return operator is None or bool(operator.kernel or operator.note)
