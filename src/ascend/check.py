"""Look up every operator of a configuration's graphs, forward and training, among those of Ascend 910A."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from src import markdown
from src.ascend.graphs import Node, compiled_graph, forward_graph
from src.ascend.networks import training_cells, zero_images
from src.ascend.operators import FIRST, OPERATORS
from src.config import Config, ImageSize, side_text, sides, with_tokens
from src.errors import RunError
from src.runtime import device
from src.schedules.notation import without_oracle

LARGEST = 65504.0  # of float16

log = logging.getLogger("skipvit")


def check_config(config: Config, wanted: Sequence[tuple[str, ImageSize]], batch_size: int, folder: Path) -> str:
    """Check the forward and the training graph of each schedule at an image size; return the report as Markdown.

    Args:
        wanted: Schedules and image sizes.
        folder: Where MindSpore writes its graphs (`src.ascend.graphs.dump_ir`).

    Raises:
        RunError: An operator has no route, a type has no kernel, a shape is dynamic, a constant too large.
    """
    device.set_up("CPU", fused_kernels="off")
    seen: dict[str, list[Node]] = {"forward": [], "training": []}
    lines, problems = [], []
    for spec, size in wanted:
        spec_at = spec if sides(size) == sides(config.model.image_size) else f"{spec} at {side_text(size)}"
        for kind, nodes in _graphs(with_tokens(config, spec), size, batch_size, folder):
            found = problems_of(nodes, training=kind == "training")
            dynamic = sum(node.dynamic for node in nodes)
            largest = max((abs(value) for node in nodes for value in node.constants), default=0.0)
            lines.append(
                [f"`{spec_at}`", kind, str(len(nodes)), str(dynamic), f"{largest:g}", "; ".join(found) or "none"]
            )
            log.info("%s, %s: %d operators, %s", spec_at, kind, len(nodes), "; ".join(found) or "all have a route")
            problems += [f"{spec_at}, {kind}: {problem}" for problem in found]
            seen[kind] += nodes
    if problems:
        raise RunError("; ".join(problems))
    header = ["schedule", "graph", "operators", "dynamic shapes", "largest constant", "problems"]
    return f"{markdown.table(header, lines)}\n{_operators(seen)}"


def problems_of(nodes: Sequence[Node], training: bool) -> list[str]:
    """Return what a 910A could not run, or would run slowly without need.

    Args:
        training: Whether what MindSpore's own gradients write is let through: it has a route since 2.6.
    """
    problems = []
    for name in sorted({node.primitive for node in nodes}):
        operator = OPERATORS.get(name)
        types = frozenset().union(*(node.types for node in nodes if node.primitive == name))
        if operator is None:
            problems.append(f"{name} is not among the operators with a known route")
        elif operator.route not in (FIRST, "pass") and not training:
            problems.append(f"{name} has a route since {operator.route} only")
        elif operator.types and types - operator.types:
            problems.append(f"{name} has no kernel for {', '.join(sorted(types - operator.types))}")
        elif types & {"int64", "float64", "bfloat16"}:
            problems.append(f"{name} is of {', '.join(sorted(types & {'int64', 'float64', 'bfloat16'}))}")
    problems += sorted({f"{node.primitive} has a dynamic shape" for node in nodes if node.dynamic})
    large = {f"{v:g} of {node.primitive}" for node in nodes for v in node.constants if not abs(v) <= LARGEST}
    return problems + [f"the constant {text} is beyond float16" for text in sorted(large)]


def _graphs(config: Config, size: ImageSize, batch_size: int, folder: Path) -> list[tuple[str, list[Node]]]:
    from src.models import from_config

    sized = replace(config, model=replace(config.model, image_size=size))
    evaluated = with_tokens(config, without_oracle(config.model.tokens)).model
    exported = from_config(evaluated, target="ascend").with_tokens(evaluated.tokens, size).set_train(False)
    forward = forward_graph(exported, zero_images(sized, batch_size), *exported.sample(batch_size, 0))
    training = [compiled_graph(folder, cell, *inputs) for cell, inputs in training_cells(sized, batch_size)]
    return [("forward", forward), *(("training", nodes) for nodes in training)]


def _operators(seen: dict[str, list[Node]]) -> str:
    """Return the table of the operators of all graphs, and what there is for each."""
    rows = []
    counts = {kind: Counter(node.primitive for node in nodes) for kind, nodes in seen.items()}
    for name in sorted(set().union(*counts.values())):
        operator = OPERATORS[name]
        types = sorted({t for nodes in seen.values() for node in nodes if node.primitive == name for t in node.types})
        route = {FIRST: "every release", "pass": "a pass"}.get(operator.route, f"since {operator.route}")
        kernel = operator.kernel or ("none needed" if not operator.note else "none")
        where = " ".join(kind for kind in seen if counts[kind][name])
        rows.append([name, where, ", ".join(types), route, kernel, operator.note])
    return markdown.table(["operator", "graphs", "types", "route in GE", "AI Core kernel", "note"], rows)
