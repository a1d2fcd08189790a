"""What Ascend 910A has for each operator of a configuration's graphs, forward and training; nothing is run on one.

Example: python -m src.tools.ascend_check --config configs/skipvit_s.yaml --specs table1

Without --config: configs/skipvit_s.yaml.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from src import cli, runtime
from src.config import Config, load, sides, with_classes
from src.errors import FailureError
from src.tools.ascend_operators import FIRST, OPERATORS
from src.tools.graphs import Node, forward_graph, training_graph, written_graphs
from src.tools.paper import TABLE1
from src.tools.timing import markdown

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "skipvit_s.yaml"
LARGEST = 65504.0  # of float16

log = logging.getLogger("skipvit")


def main(argv: Sequence[str]) -> None:
    args = _parser().parse(argv)
    cli.start_log()
    with written_graphs() as folder:
        config = with_classes(load(args.config or CONFIG, args.overrides))
        if args.estimate:
            from src.tools.ascend_estimate import table as estimate

            text = estimate(config, _specs(args, config))
        else:
            text = check_config(config, _specs(args, config), args.batch_size, folder)
    print(text)
    if args.markdown:
        Path(args.markdown).write_text(text, encoding="utf-8")


def check_config(config: Config, specs: Sequence[str], batch_size: int, folder: Path) -> str:
    """Check the forward graph and the training graph of each schedule; the report, as Markdown.

    Args:
        folder: Where MindSpore writes its graphs (`src.tools.graphs.written_graphs`).

    Raises:
        FailureError: An operator has no route, a type has no kernel, a shape is dynamic, a constant too large.
    """
    runtime.set_up("CPU", fused_kernels="off")
    seen: dict[str, list[Node]] = {"forward": [], "training": []}
    lines, problems = [], []
    for spec in specs:
        for kind, nodes in _graphs(replace(config, model=replace(config.model, tokens=spec)), batch_size, folder):
            found = problems_of(nodes, training=kind == "training")
            dynamic = sum(node.dynamic for node in nodes)
            largest = max((abs(value) for node in nodes for value in node.constants), default=0.0)
            lines.append([f"`{spec}`", kind, str(len(nodes)), str(dynamic), f"{largest:g}", "; ".join(found) or "none"])
            log.info("%s, %s: %d operators, %s", spec, kind, len(nodes), "; ".join(found) or "all have a route")
            problems += [f"{spec}, {kind}: {problem}" for problem in found]
            seen[kind] += nodes
    if problems:
        raise FailureError("; ".join(problems))
    header = ["schedule", "graph", "operators", "dynamic shapes", "largest constant", "problems"]
    return f"{markdown(header, lines)}\n{_operators(seen)}"


def problems_of(nodes: Sequence[Node], training: bool) -> list[str]:
    """What a 910A could not run, or would run slowly without need.

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


def _graphs(config: Config, batch_size: int, folder: Path) -> list[tuple[str, list[Node]]]:
    import numpy as np
    from mindspore import Tensor

    from src.models import from_config
    from src.training.state import new_state

    images = Tensor(np.zeros((batch_size, 3, *sides(config.model.image_size)), np.float32))
    exported = from_config(config.model).set_train(False)
    forward = forward_graph(exported, images, *exported.draw(batch_size, 0))
    state = new_state(config, lambda: from_config(config.model, config.train.amp_level), [1e-4])
    mixed = config.data.mixup or config.data.cutmix
    classes = state.network.geometry.num_classes
    labels = np.zeros((batch_size, classes), np.float32) if mixed else np.zeros(batch_size, np.int32)
    step = state.step(config, config.model.tokens)
    inputs = images, Tensor(labels), *step.network.draw(batch_size, 0)
    return [("forward", forward), ("training", training_graph(folder, step, *inputs))]


def _operators(seen: dict[str, list[Node]]) -> str:
    """The operators of all graphs, and what there is for each."""
    rows = []
    counts = {kind: Counter(node.primitive for node in nodes) for kind, nodes in seen.items()}
    for name in sorted(set().union(*counts.values())):
        operator = OPERATORS[name]
        types = sorted({t for nodes in seen.values() for node in nodes if node.primitive == name for t in node.types})
        route = {FIRST: "every release", "pass": "a pass"}.get(operator.route, f"since {operator.route}")
        kernel = operator.kernel or ("none needed" if not operator.note else "none")
        where = " ".join(kind for kind in seen if counts[kind][name])
        rows.append([name, where, ", ".join(types), route, kernel, operator.note])
    return markdown(["operator", "graphs", "types", "route in GE", "AI Core kernel", "note"], rows)


def _specs(args: argparse.Namespace, config: Config) -> list[str]:
    given = args.specs or [config.model.tokens]
    return [spec for text in given for spec in (TABLE1 if text == "table1" else (text,))]


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--specs", nargs="+", metavar="SPEC", help="schedules (the configuration's); table1: all of the paper's Table 1"
    )
    parser.add_argument("--batch_size", type=cli.whole, default=2, metavar="N", help="images of a batch (2)")
    parser.add_argument("--estimate", action="store_true", help="instead: what a step would take, on paper")
    parser.add_argument("--markdown", metavar="FILE", help="write the report")
    return parser


if __name__ == "__main__":
    cli.run(main)
