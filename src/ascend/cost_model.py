"""A cost model of one training step on Ascend 910A, on paper: an estimate, never compared with the hardware.

It goes over the operators that the compiled graph really has. Each takes the longer of two times: its multiplications
at the cube unit's rate, with each dimension (of a convolution pixels and both channels) padded to 16, and its bytes at
the memory's. Half-precision batched
products whose last dimensions are not multiples of 16 are re-laid out besides. Nothing overlaps, and nothing waits for
the host, for data or for other devices.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from src import markdown
from src.ascend.graphs import Node, compiled_graph
from src.ascend.networks import training_inputs, training_step
from src.ascend.operators import FUSED, moves_memory
from src.config import Config
from src.errors import UserError
from src.runtime import device
from src.schedules import Geometry, Plan, parse, resolve
from src.schedules.paper import TABLE1, fitted_gain

CUBE = 16
# where the tensors of the output that a convolution makes, and of its kernel, are among those it takes and gives
CONVOLUTIONS = {"Conv2D": (-1, 1), "Conv2DBackpropInput": (0, 1), "Conv2DBackpropFilter": (0, -1)}
MACS_PER_S = 128e12  # 256 TFLOPS float16: Ascend 910, Hot Chips 31 (2019)
BYTES_PER_S = 1.2e12  # HBM2, the same source
CUBE_SHARE = 0.6  # assumed: what matrix products of this size reach of the peak
MEMORY_SHARE = 0.7  # assumed: what streams reach of the peak
SHOWN = 6  # operators whose share of the dense step is named

ASSUMPTIONS = (
    f"Assumed: {MACS_PER_S * 2 / 1e12:.0f} TFLOPS float16 of which products reach {100 * CUBE_SHARE:.0f}%,"
    f" {BYTES_PER_S / 1e12:.1f} TB/s of which streams reach {100 * MEMORY_SHARE:.0f}%; {', '.join(FUSED)} fused into"
    " the product before it. An estimate: not run on a 910A."
)

log = logging.getLogger("skipvit")


def estimate(nodes: Sequence[Node]) -> dict[str, float]:
    """Return the seconds that each kind of operator of a graph takes."""
    seconds: dict[str, float] = defaultdict(float)
    for node in nodes:
        if node.primitive not in FUSED and moves_memory(node.primitive):
            seconds[node.primitive] += _seconds(node)
    return dict(seconds)


def table(config: Config, specs: Sequence[str], folder: Path) -> str:
    """Return the predicted gain of schedules, as configured and with tokens aligned to 16, as Markdown.

    Args:
        folder: Where MindSpore writes its graphs (`src.ascend.graphs.dump_ir`).

    Raises:
        UserError: The configuration trains in float32.
    """
    if config.train.amp_level == "O0":
        raise UserError("--estimate is of float16, and train.amp_level is O0; add train.amp_level=O2")
    device.set_up("CPU", fused_kernels="off")
    estimates: dict[Plan, dict[str, float]] = {}  # a graph once: the dense one is the same for any alignment

    def of(spec: str, align: int) -> tuple[Plan, dict[str, float]]:
        plan = resolve(parse(spec), replace(Geometry.from_config(config.model), align_tokens=align))
        if plan not in estimates:
            estimates[plan] = _estimate(config, spec, align, folder)
        return plan, estimates[plan]

    _, dense = of("none", config.model.align_tokens)
    whole, rows = sum(dense.values()), []
    for spec in specs:
        (plan, by_operator), (aligned_plan, by_aligned) = of(spec, config.model.align_tokens), of(spec, CUBE)
        step, aligned = sum(by_operator.values()), sum(by_aligned.values())
        published = TABLE1[spec].img_s / TABLE1["none"].img_s - 1 if spec in TABLE1 else None
        log.info("%s: %.1f ms", spec, 1000 * step)
        rows.append(
            [
                f"`{spec}`",
                _tokens(plan),
                f"{1000 * step:.1f}",
                _percent(whole / step - 1),
                _percent(plan.training_gain),
                "" if published is None else _percent(published),
                _percent(fitted_gain(plan.training_gain)),
                _tokens(aligned_plan),
                _percent(aligned_plan.training_gain),
                _percent(whole / aligned - 1),
            ]
        )
    header = ["schedule", "tokens", "step ms", "gain", "ideal", "paper's", "half fixed"]
    header += ["tokens aligned to 16", "ideal", "gain"]
    longest = sorted(dense, key=lambda name: -dense[name])[:SHOWN]
    parts = ", ".join(f"{name} {100 * dense[name] / whole:.0f}%" for name in longest)
    return (
        f"{markdown.table(header, rows)}\n{config.model.name}, batch {config.data.batch_size}. The dense step: {parts}."
        f" {ASSUMPTIONS}\n"
    )


def _estimate(config: Config, spec: str, align: int, folder: Path) -> dict[str, float]:
    model = replace(config.model, tokens=spec, align_tokens=align)
    step = training_step(replace(config, model=model))
    return estimate(compiled_graph(folder, step, *training_inputs(config, step, config.data.batch_size)))


def _seconds(node: Node) -> float:
    moved = float(node.moved)
    if node.primitive not in ("MatMul", "BatchMatMul", *CONVOLUTIONS):
        return moved / (BYTES_PER_S * MEMORY_SHARE)
    if node.primitive == "BatchMatMul":
        moved += sum(2 * 2 * math.prod(shape) for kind, shape in node.tensors if _relaid(kind, shape))  # read, written
    return max(_macs(node) / (MACS_PER_S * CUBE_SHARE), moved / (BYTES_PER_S * MEMORY_SHARE))


def _relaid(kind: str, shape: tuple[int, ...]) -> bool:
    return kind == "float16" and any(size % CUBE for size in shape[-2:])


def _macs(node: Node) -> int:
    """Return the multiplications of a matrix product or convolution, whose dimensions are padded to the cube's."""
    if node.primitive in CONVOLUTIONS:
        of_output, of_kernel = CONVOLUTIONS[node.primitive]
        (_, (batch, _, height, width)), (_, (outputs, inputs, *size)) = node.tensors[of_output], node.tensors[of_kernel]
        return _pad(batch * height * width) * _pad(outputs) * _pad(inputs) * math.prod(size)
    (_, left), (_, out) = node.tensors[0], node.tensors[-1]
    batch, rows, columns = math.prod(out[:-2]), out[-2], out[-1]
    inner = math.prod(left) // (batch * rows)
    return batch * _pad(rows) * _pad(inner) * _pad(columns)


def _pad(size: int) -> int:
    return -(-size // CUBE) * CUBE


def _tokens(plan: Plan) -> str:
    return " ".join(map(str, dict.fromkeys(plan.tokens_out)))


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%"
