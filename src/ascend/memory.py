"""Bytes that the operators of a graph move in memory, an image, counted from the graph itself.

Every operator reads each of its inputs and writes each of its outputs once, as on a device that runs it as a kernel of
its own. The graphs of two batch sizes are compared, so that weights, of which a batch of any size moves the same, drop
out. What the graph engine fuses is not counted here.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from src import markdown
from src.ascend import networks
from src.ascend.graphs import Node, compiled_graph
from src.ascend.operators import moves_memory
from src.config import Config, with_tokens
from src.runtime import device
from src.schedules import Geometry

if TYPE_CHECKING:
    from mindspore import nn

BATCHES = (2, 4)
SHOWN = 0.5  # MB an image; operators below are one row
MINDCV = "MindCV's VisionTransformer"


def megabytes(nodes: Mapping[int, Sequence[Node]]) -> dict[str, float]:
    """Return MB (10^6 bytes) an image by operator, from the graphs of two batch sizes."""
    small, large = sorted(nodes)
    moved = {batch: _by_operator(nodes[batch]) for batch in (small, large)}
    names = moved[small].keys() | moved[large].keys()
    return {name: (moved[large][name] - moved[small][name]) / (large - small) / 1e6 for name in names}


def training_megabytes(config: Config, folder: Path) -> dict[str, float]:
    """Return MB an image by operator of a configuration's training step.

    Args:
        folder: Where MindSpore writes its graphs (`src.ascend.graphs.dump_ir`).
    """
    step = networks.training_step(config)
    return _count(folder, step, lambda batch: networks.training_inputs(config, step, batch))


def forward_megabytes(config: Config, folder: Path) -> dict[str, float]:
    """Return MB an image by operator of a configuration's forward pass, in the precision of its training."""
    from src.models import from_config

    network = from_config(config.model, config.train.amp_level, "ascend").set_train(False)
    return _count(folder, network, lambda batch: (networks.zero_images(config, batch), *network.sample(batch, 0)))


def report(config: Config, specs: Sequence[str], folder: Path) -> str:
    """Return MB an image of schedules and of MindCV's class, in all and by operator, as Markdown.

    Of LV-ViT MindCV has none.

    Raises:
        UserError: MindCV's class has no such size.
    """
    device.set_up("CPU", fused_kernels="off")
    forward, training = {}, {}
    has_peer = Geometry.from_config(config.model).backbone == "vit"
    if has_peer:
        network = networks.mindcv_network(config).set_train(False)
        step = networks.mindcv_step(config)
        forward[MINDCV] = _count(folder, network, lambda batch: (networks.zero_images(config, batch),))
        training[MINDCV] = _count(folder, step, lambda batch: networks.training_batch(config, batch))
    for spec in specs:
        configured = with_tokens(config, spec)
        forward[f"`{spec}`"] = forward_megabytes(configured, folder)
        training[f"`{spec}`"] = training_megabytes(configured, folder)
    rows = [[name, _mb(forward[name]), _mb(training[name])] for name in training]
    header, alone = ["MB an image", "forward", "training"], ""
    if has_peer:
        total = sum(training[MINDCV].values())
        header.append("beside MindCV's")
        for row, by in zip(rows, training.values()):
            row.append(f"{100 * (sum(by.values()) / total - 1):+.0f}%")
    else:
        alone = " MindCV has no LV-ViT to compare with."
    parts = f"{markdown.table(header, rows)}\n{_operators(training)}"
    return f"{parts}\n{config.model.name}, {config.train.amp_level}.{alone} Not run on a 910A.\n"


def _count(folder: Path, cell: "nn.Cell", inputs: Callable[[int], tuple]) -> dict[str, float]:
    return megabytes({batch: compiled_graph(folder, cell, *inputs(batch)) for batch in BATCHES})


def _by_operator(nodes: Sequence[Node]) -> Counter[str]:
    moved: Counter[str] = Counter()
    for node in nodes:
        if moves_memory(node.primitive):
            moved[node.primitive] += node.moved
    return moved


def _operators(training: dict[str, dict[str, float]]) -> str:
    """Return the table of the operators of training steps; small ones are one row."""
    names = sorted({name for by in training.values() for name in by}, key=lambda n: -max(_of(training, n)))
    large = [name for name in names if max(_of(training, name)) >= SHOWN]
    rows = [[name, *(f"{value:.1f}" for value in _of(training, name))] for name in large]
    rest = [sum(by.get(name, 0.0) for name in names if name not in large) for by in training.values()]
    rows.append([f"{len(names) - len(large)} others", *(f"{value:.1f}" for value in rest)])
    return markdown.table(["training, MB an image", *training], rows)


def _of(training: dict[str, dict[str, float]], name: str) -> list[float]:
    return [by.get(name, 0.0) for by in training.values()]


def _mb(by: dict[str, float]) -> str:
    return f"{sum(by.values()):.0f}"
