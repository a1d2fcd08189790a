"""Metrics by epoch as SVG to stand in a page: its colours and fonts are the page's."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from src.report.runs import Run

INCHES = (5.6, 3.3)  # of 72 units of the SVG
INK, MUTED, LINE = "#010101", "#020202", "#030303"  # stand for colours of the page
COLOURS = 6  # of runs; from the seventh on they repeat, with other dashes
DASHES = ("", "6 2.5", "1.5 2", "7 2 1.5 2", "3 2", "10 3")
FEW = 40  # points of a curve that are marked


@dataclass(frozen=True)
class Metric:
    """A column of metrics.csv, what a reader calls it, how its values are written, and whether 0 is in sight."""

    column: str
    title: str
    form: str
    from_zero: bool = False


METRICS = (
    Metric("loss", "Training loss", "{:.4g}"),
    Metric("top1", "Top-1 on the validation images, %", "{:.4g}"),
    Metric("lr", "Learning rate", "{:.3g}", True),
    Metric("img_s", "Training throughput, images per second", "{:.4g}", True),
)


@dataclass(frozen=True)
class Curve:
    """A metric's curves of all runs.

    Attributes:
        svg: None if no run has a value of this metric.
        words: What the curves show, for those who cannot see them.
    """

    title: str
    svg: Optional[str]
    words: str


def draw(metric: Metric, runs: Sequence[Run]) -> Curve:
    """One metric of all runs over their epochs."""
    series = [[(row.epoch, value) for row in run.rows if (value := getattr(row, metric.column)) is not None]
              for run in runs]  # fmt: skip
    words = "; ".join(_in_words(metric, run, points) for run, points in zip(runs, series))
    if not any(series):
        return Curve(metric.title, None, words)
    settings = {"svg.fonttype": "none", "svg.hashsalt": metric.column, "text.parse_math": False, "font.size": 12}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.add_subplot()
        _lines(axes, series)
        _phases(axes, runs)
        _frame(axes, metric, max(run.done for run in runs))
        file = io.StringIO()
        plain = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=plain)
    return Curve(metric.title, _for_page(file.getvalue(), metric.column), words)


def dashes(number: int) -> str:
    """SVG's pattern of dashes of a run, counted from 0: lines can be told apart without colours."""
    return DASHES[(number + number // COLOURS) % len(DASHES)]


def _lines(axes: Axes, series: Sequence[Sequence[tuple[int, float]]]) -> None:
    for number, points in enumerate(series):
        pattern = tuple(float(length) for length in dashes(number).split())
        axes.plot(
            *zip(*points) if points else ((), ()),
            color=f"#0a0a{number % COLOURS:02x}", linewidth=1.8, linestyle=(0, pattern) if pattern else "-",
            marker="o" if len(points) <= FEW else "", markersize=3.5 if len(points) > 1 else 6,
        )  # fmt: skip


def _phases(axes: Axes, runs: Sequence[Run]) -> None:
    """Where schedules change: named above, if it is the same in all runs; a line alone is in its run's colour."""
    begun = [run for run in runs if run.rows]
    alike = len({tuple((phase.tokens, phase.first) for phase in run.phases) for run in begun}) == 1
    switches = [(phase.first, number) for number, run in enumerate(runs) for phase in run.phases[1:]]
    for epoch in {epoch for epoch, _ in switches}:
        of = [number for other, number in switches if other == epoch]
        colour = f"#0a0a{of[0] % COLOURS:02x}" if len(of) == 1 and not alike else MUTED
        axes.axvline(epoch - 0.5, color=colour, linewidth=1, linestyle=(0, (2, 2)))
    if alike:
        for phase in max(begun, key=lambda run: run.done).phases:
            middle = (phase.first + phase.last) / 2
            axes.text(middle, 1.02, phase.tokens, transform=axes.get_xaxis_transform(), ha="center", color=MUTED)


def _frame(axes: Axes, metric: Metric, epochs: int) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=INK, pad=5)
    margin = max(0.025 * epochs, 0.3)
    axes.set_xlim(1 - margin, epochs + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    if metric.from_zero:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.set_xlabel("epoch", color=MUTED)


def _in_words(metric: Metric, run: Run, points: Sequence[tuple[int, float]]) -> str:
    if not points:
        return f"{run.name}: no value yet"
    first, last = (f"{metric.form.format(value)} in epoch {epoch}" for epoch, value in (points[0], points[-1]))
    return f"{run.name}: {first}" + (f", {last}" if len(points) > 1 else "")


def _for_page(svg: str, name: str) -> str:
    """Without what is a document's, with identifiers of its own, the page's font, and its variables for colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' (?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")]) + svg[svg.index(">") :]
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for stand_in, variable in ((INK, "ink"), (MUTED, "muted"), (LINE, "line")):
        svg = svg.replace(stand_in, f"var(--{variable})")
    return re.sub(r"#0a0a(\d\d)", lambda match: f"var(--run-{int(match[1])})", svg)
