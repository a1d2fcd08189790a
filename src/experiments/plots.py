"""The plots of an experiment."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from src.experiments.costs import Spent
from src.experiments.grids import Panel, arrange
from src.experiments.results import Summary
from src.experiments.variants import DENSE, Variant

if TYPE_CHECKING:
    from src.experiments.matrix import Row

BLUE, GOLD, GREY = "#2a6f97", "#e9c46a", "#6c757d"
MARKERS = "osD^v<>pP"
DISTINCT = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#8a6d00",
)  # Okabe and Ito, colour-blind safe
ENTRIES = 24  # of a column of a legend beside a plot 5 inches high
LINES = ("-", "--", "-.", ":")
MARKED = 20  # evaluations of a curve, at most, that have markers


def plot_accuracy(summaries: Sequence[Summary], path: Path) -> None:
    """Draw top-1 over training speed, with standard deviations, and the Pareto front, as PNG."""
    figure, axes = plt.subplots(figsize=(9.5, 5), layout="constrained")
    points = [(1 + (found.gain or 0), found.top1) for found in summaries]
    for found, point, colour, marker in zip(summaries, points, _colours(len(points)), itertools.cycle(MARKERS)):
        axes.errorbar(
            *point, yerr=found.sd, fmt=marker, color=colour, markersize=8, capsize=3, label=str(found.variant)
        )
    axes.margins(x=0.08, y=0.12)
    (left, _), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    x, y = zip(*pareto(points))
    axes.step([left, *x, x[-1]], [y[0], *y, bottom], where="pre", color=GOLD, linewidth=2, zorder=0,
              label="Pareto front")  # fmt: skip
    axes.set_xlim(left=left)
    axes.set_ylim(bottom=bottom)
    axes.set_xlabel("training speed, relative to dense")
    bars = " (bars: standard deviation)" if any(found.sd is not None for found in summaries) else ", one seed"
    axes.set_ylabel(f"top-1 after the last epoch, %{bars}")
    axes.grid(alpha=0.3)
    _legend(figure)
    _save(figure, path)


def plot_matrix(groups: "Mapping[str, Sequence[Row]]", path: Path) -> None:
    """Draw top-1 over multiply-accumulates with intervals, one line a ranking, as PNG."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for (ranking, rows), colour, marker in zip(groups.items(), itertools.cycle(DISTINCT), itertools.cycle(MARKERS)):
        tops = np.array([row.top1 for row in rows])
        errors = [tops - [row.low for row in rows], [row.high for row in rows] - tops]
        axes.errorbar([row.macs / 1e9 for row in rows], tops, yerr=errors, fmt=marker, color=colour, capsize=3,
                      linestyle="" if ranking == "dense" else "-", label=ranking)  # fmt: skip
    axes.set_xlabel("GMACs of an image")
    axes.set_ylabel("top-1, % (bars: 95% interval)")
    axes.grid(alpha=0.3)
    axes.legend(title="tokens ranked by")
    _save(figure, path)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in one coordinate and equals or beats in the other, sorted, once each."""
    return sorted({p for p in points if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)})


def plot_curves(curves: Mapping[Variant, Sequence[Sequence[tuple[int, float]]]], path: Path) -> None:
    """Draw top-1 by epoch as PNG, the mean over seeds.

    A band from the lowest seed to the highest is left out where so many overlap that none can be seen.

    Args:
        curves: For each variant, for each seed, (epoch, top-1).
    """
    figure, axes = plt.subplots(figsize=(9.5, 5), layout="constrained")
    banded = max(map(len, curves.values())) > 1 and len(curves) <= len(DISTINCT)
    for (colour, marker, line), (variant, seeds) in zip(_styles(curves), curves.items()):
        epochs = [epoch for epoch, _ in seeds[0]]
        values = np.array([[top1 for _, top1 in seed] for seed in seeds])
        axes.plot(epochs, values.mean(axis=0), line, color=colour, marker=marker if len(epochs) <= MARKED else None,
                  markersize=5, linewidth=1.5, label=str(variant))  # fmt: skip
        if banded:
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    several = "mean over seeds; band: lowest to highest" if banded else "mean over seeds"
    axes.set_ylabel(f"top-1, % ({several if max(map(len, curves.values())) > 1 else 'one seed'})")
    axes.grid(alpha=0.3)
    _legend(figure)
    _save(figure, path)


def plot_costs(summaries: Sequence[Summary], allowed: float, path: Path) -> None:
    """Draw the difference of top-1 to the dense model, with its 95% interval, over multiplications, as PNG.

    Args:
        summaries: Of the dense model and of variants whose costs are known.
        allowed: The loss that is marked, percentage points.
    """
    figure, axes = plt.subplots(figsize=(9.5, 5), layout="constrained")
    axes.axhline(0, color="black", linewidth=1, zorder=0)
    axes.axhline(-allowed, color=GREY, linewidth=1, linestyle="--", zorder=0, label=f"{allowed} points lost")
    styles = zip(itertools.cycle(DISTINCT), itertools.cycle(MARKERS[1:]))
    for found in summaries:
        colour, marker = ("black", "*") if found.difference is None else next(styles)
        axes.errorbar(
            [found.cost], [found.difference or 0], yerr=[found.margin or 0], fmt=marker, color=colour,
            markersize=14 if marker == "*" else 8, capsize=4, label=str(found.variant),
        )  # fmt: skip
    axes.margins(x=0.1, y=0.12)
    axes.set_xlabel("multiplications of the whole training, relative to dense")
    how = "bars: 95% interval of pairs" if any(found.margin is not None for found in summaries) else "one seed"
    axes.set_ylabel(f"top-1, difference to dense, points ({how})")
    axes.grid(alpha=0.3)
    _legend(figure)
    _save(figure, path)


def plot_cost_curves(lines: Mapping[Variant, Sequence[Sequence[Spent]]], path: Path) -> None:
    """Draw top-1 over the multiplications so far as PNG, the median over seeds.

    Args:
        lines: For each variant, for each seed, its epochs, with multiplications relative to the whole dense training.
    """
    figure, axes = plt.subplots(figsize=(9.5, 5), layout="constrained")
    for (colour, marker, line), (variant, seeds) in zip(_styles(lines), lines.items()):
        epochs = [epochs for epochs in zip(*seeds) if all(epoch.top1 is not None for epoch in epochs)]
        x = [np.median([epoch.macs for epoch in seeds_of_one]) for seeds_of_one in epochs]
        y = [np.median([epoch.top1 for epoch in seeds_of_one]) for seeds_of_one in epochs]
        axes.plot(
            x, y, line, color=colour, marker=marker, markersize=5, linewidth=2.2 if variant == DENSE else 1.4,
            label=str(variant),
        )  # fmt: skip
        if variant == DENSE:
            axes.axhline(y[-1], color="black", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("multiplications so far, relative to the whole dense training")
    several = max(map(len, lines.values())) > 1
    axes.set_ylabel(f"top-1, % ({'median over seeds' if several else 'one seed'}; dotted: dense, at its end)")
    axes.grid(alpha=0.3)
    _legend(figure)
    _save(figure, path)


def plot_groups(groups: Mapping[str, Sequence[Summary]], dense: Summary, path: Path) -> None:
    """Draw the difference of top-1 to the dense model, with its 95% interval, a panel a group, as PNG."""
    heights = [len(found) for found in groups.values()]
    figure, panels = plt.subplots(
        len(groups), 1, figsize=(8, 0.45 * sum(heights) + 0.9 * len(groups)), sharex=True, squeeze=False,
        height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for axes, (name, found) in zip(panels[:, 0], groups.items()):
        values = [summary.difference or 0 for summary in found]
        axes.errorbar(
            values, range(len(found)), xerr=[summary.margin or 0 for summary in found], fmt="o", color=BLUE,
            ecolor=GREY, capsize=3,
        )  # fmt: skip
        axes.axvline(0, color=GOLD, linewidth=2, zorder=0)
        axes.set_yticks(range(len(found)), [str(summary.variant) for summary in found], fontsize=8)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_title(name, loc="left", fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    known = any(summary.margin is not None for found in groups.values() for summary in found)
    how = "95% interval" if known else "one seed"
    panels[-1, 0].set_xlabel(f"difference of top-1 to dense ({dense.top1:.2f}%), percentage points, {how}")
    _save(figure, path)


def plot_distances(panels: Sequence[Panel], path: Path) -> None:
    """Draw heat maps of where tokens leave and return, a column a panel and a row a ranking, as PNG."""
    rankings = list(panels[0].cells)
    size = (5.2 * len(panels), 3.3 * len(rankings))
    figure, grid = plt.subplots(len(rankings), len(panels), figsize=size, squeeze=False, layout="constrained")
    for panel, column in zip(panels, grid.T):
        values = [value for cells in panel.cells.values() for value in cells.values()]
        low, high = min(values), max(values)
        if panel.differs:
            high = max(-low, high) or 1.0
            low = -high
        every = [cell for cells in panel.cells.values() for cell in cells]
        for ranking, axes in zip(rankings, column):
            starts, backs, numbers = arrange(panel.cells[ranking], every)
            drawn = axes.imshow(numbers, cmap="RdBu" if panel.differs else "YlGn", vmin=low, vmax=high, aspect="auto")
            for row, across in zip(*np.nonzero(~np.isnan(numbers))):
                number = numbers[row, across]
                bright = np.dot(drawn.cmap(drawn.norm(number))[:3], (0.3, 0.59, 0.11)) > 0.5
                axes.text(across, row, panel.form.format(number), ha="center", va="center",
                          color="black" if bright else "white")  # fmt: skip
            axes.set_xticks(range(len(backs)), backs)
            axes.set_yticks(range(len(starts)), starts)
            axes.set_xlabel("back before block")
            axes.set_ylabel("leave in block")
            axes.set_title(f"{panel.title}\nranked by {ranking}", fontsize=10)
    _save(figure, path)


def plot_shares(lines: "Mapping[str, Mapping[float, Row]]", dense: "Optional[Row]", path: Path) -> None:
    """Draw top-1 with intervals over the percentage of tokens that leave, one line a ranking, as PNG."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    if dense is not None:
        axes.axhline(dense.top1, color="black", linewidth=1, zorder=0, label="dense")
    styles = zip(itertools.cycle(DISTINCT), itertools.cycle(MARKERS))
    for number, ((ranking, line), (colour, marker)) in enumerate(zip(lines.items(), styles)):
        tops = np.array([row.top1 for row in line.values()])
        errors = [tops - [row.low for row in line.values()], [row.high for row in line.values()] - tops]
        beside = np.array(list(line)) + 0.4 * (number - (len(lines) - 1) / 2)  # so that bars do not cover each other
        axes.errorbar(beside, tops, yerr=errors, fmt=marker, color=colour, capsize=3, linestyle="-", label=ranking)
    axes.set_xticks(sorted({share for line in lines.values() for share in line}))
    axes.set_xlabel("tokens that leave, %")
    axes.set_ylabel("top-1, % (bars: 95% interval)")
    axes.grid(alpha=0.3)
    axes.legend(title="ranked by")
    _save(figure, path)


def _styles(variants: Iterable[Variant]) -> Iterator[tuple[str, str, str]]:
    """Yield colour, marker and line of each variant; the dense model is black."""
    styles = zip(itertools.cycle(DISTINCT), itertools.cycle(MARKERS[1:]), itertools.cycle(LINES))
    for variant in variants:
        yield ("black", "*", "-") if variant == DENSE else next(styles)


def _colours(number: int) -> np.ndarray:
    return plt.get_cmap("viridis")(np.linspace(0, 0.92, number))


def _legend(figure: plt.Figure) -> None:
    """Name what is drawn beside the plot, in as many columns as it takes to fit."""
    entries = sum(len(axes.get_legend_handles_labels()[1]) for axes in figure.axes)
    figure.legend(loc="outside right upper", fontsize=9, ncols=-(-entries // ENTRIES))


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=120)
    plt.close(figure)
