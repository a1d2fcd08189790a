"""Measure the training step of every phase of a run, and what the whole run gains by them, weighted by epochs."""

import statistics
from collections.abc import Mapping, Sequence

from src import markdown
from src.benchmarks.measure import Report, conditions, peer_sizes, time_training
from src.benchmarks.timing import Timing, share_of_ideal
from src.config import Config, ImageSize, side_text
from src.runtime.environment import one_line
from src.schedules.costs import NO_FASTER, RunCosts, run_costs
from src.schedules.phases import Phase, config_of

Graph = tuple[str, ImageSize]


def measure_run(config: Config, pairs: int, steps: int) -> Report:
    """Measure the distinct steps of a run's phases, and the dense one at the final size, in turns.

    Args:
        pairs: Rounds in which every step has a turn.
        steps: Timed steps of a turn.
    """
    costs = run_costs(config)
    dense = Phase(0, "none", 1, 1, config.model.image_size)
    graphs = {phase.graph: config_of(config, phase) for phase in (dense, *costs.phases)}
    timings = time_training({name_of(graph): own for graph, own in graphs.items()}, pairs, steps)
    return {
        "environment": conditions(config, peer_sizes(config), pairs, steps, []),
        "rows": [_row(graph, costs, timings, config.data.batch_size) for graph in graphs],
        "run": _run(costs, timings),
    }


def name_of(graph: Graph) -> str:
    """Return a schedule and an image size as the name of a contestant."""
    return f"{graph[0]} at {side_text(graph[1])}"


def gains_of_run(phases: Sequence[Phase], timings: Mapping[str, Timing]) -> list[float]:
    """Return how much faster than dense a run is in each round, as fractions: every phase by its epochs."""
    last, gains = phases[-1].last, []
    for number, base in enumerate(timings[name_of(phases[0].graph)].base):
        own = sum(phase.epochs * timings[name_of(phase.graph)].seconds[number] for phase in phases)
        gains.append(last * base / own - 1)
    return gains


def table(report: Report) -> str:
    """Return the report as Markdown."""
    header = ["schedule", "image size", "epochs", "train img/s", "gain", "ideal", "share of ideal"]
    rows = [
        [f"`{row['spec']}`", row["image_size"], str(row["epochs"]),
         f"{row['train_img_s']:.2f} ±{100 * row['train_spread']:.0f}%", f"{100 * row['gain']:+.1f}%",
         f"{100 * row['ideal_gain']:+.1f}%", f"{100 * row['share_of_ideal']:.1f}%"]
        for row in report["rows"]
    ]  # fmt: skip
    run = report["run"]
    text = (
        f"the whole run of {run['epochs']} epochs: {1 + run['gain']:.3f} times as fast as dense"
        f" ({1 + run['gain_low']:.3f} to {1 + run['gain_high']:.3f} in the rounds),"
        f" by multiply-accumulates {1 + run['ideal_gain']:.3f} times; {100 * run['share_of_ideal']:.1f}% of that"
    )
    text += f"; {NO_FASTER}" if run["masked"] else ""
    return f"{markdown.table(header, rows)}\n{text}\n{one_line(report['environment'])}\n"


def _row(graph: Graph, costs: RunCosts, timings: Mapping[str, Timing], batch_size: int) -> Report:
    """Return the figures of a schedule at an image size; gains are over dense at the final size."""
    timing = timings[name_of(graph)]
    of_it = [(phase, plan) for phase, plan in zip(costs.phases, costs.plans) if phase.graph == graph]
    ideal = costs.gain_of(of_it[0][1]) if of_it else 0.0
    return {
        "spec": graph[0],
        "image_size": side_text(graph[1]),
        "epochs": sum(phase.epochs for phase, _ in of_it),
        "train_img_s": batch_size / timing.median,
        "train_spread": timing.spread,
        "gain": timing.gain,
        "ideal_gain": ideal,
        "share_of_ideal": share_of_ideal(timing.gain, ideal),
    }


def _run(costs: RunCosts, timings: Mapping[str, Timing]) -> Report:
    """Return what the whole run gains: the median over the rounds, and the least and the most of them."""
    gains = gains_of_run(costs.phases, timings)
    gain = statistics.median(gains)
    return {
        "epochs": costs.phases[-1].last,
        "gain": gain,
        "gain_low": min(gains),
        "gain_high": max(gains),
        "ideal_gain": costs.ideal_gain,
        "share_of_ideal": share_of_ideal(gain, costs.ideal_gain),
        "masked": any(plan.masked for plan in costs.plans),
    }
