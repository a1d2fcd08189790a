"""Metrics by epoch as SVG pictures for a page, each for a light and for a dark colour scheme."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from src.visuals.report.runs import Run

INCHES = (5.6, 3.3)
DASHES = ("", "6 2.5", "1.5 2", "7 2 1.5 2", "3 2", "10 3")
FEW = 40  # points up to which each is marked
MOST_NAMED = 4  # phases whose names have room above a picture


_Points = list[tuple[int, float]]  # (epoch, value)


@dataclass(frozen=True)
class Scheme:
    """Colours of the page: text, lesser text, rules, and curves; from the seventh run on they repeat, with dashes."""

    ink: str
    muted: str
    line: str
    runs: tuple[str, ...]


LIGHT = Scheme("#1c2126", "#59626c", "#dddcd4", ("#1f5fa6", "#b04a00", "#1d7a4c", "#7a3d9a", "#b3263f", "#4f5d00"))
DARK = Scheme("#e7e6e1", "#a0a8b0", "#33383d", ("#74b3ff", "#f4a259", "#62c895", "#cb9df2", "#ff8c9c", "#c3cf5b"))
COLOURS = len(LIGHT.runs)


@dataclass(frozen=True)
class Metric:
    """A column of metrics.csv, what a reader calls it, the format of its values, and whether the axis begins at 0."""

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
        words: What the curves show, for those who cannot see them.
        light, dark: Data URIs of the picture in either scheme; empty if no run has a value of this metric.
    """

    title: str
    words: str
    light: str = ""
    dark: str = ""


def draw(metric: Metric, runs: Sequence[Run]) -> Curve:
    """Draw one metric of all runs over their epochs."""
    series = [[(row.epoch, value) for row in run.rows if (value := getattr(row, metric.column)) is not None]
              for run in runs]  # fmt: skip
    words = "; ".join(_in_words(metric, run, points) for run, points in zip(runs, series))
    if not any(series):
        return Curve(metric.title, words)
    return Curve(metric.title, words, *(_draw(metric, runs, series, scheme) for scheme in (LIGHT, DARK)))


def dashes(index: int) -> str:
    """Return SVG's pattern of dashes of a run, counted from 0, so that lines can be told apart without colours."""
    return DASHES[(index + index // COLOURS) % len(DASHES)]


def _draw(metric: Metric, runs: Sequence[Run], series: Sequence[_Points], scheme: Scheme) -> str:
    """Draw the points of each run and return the picture as a data URI, the same for the same points."""
    settings = {"svg.fonttype": "none", "svg.hashsalt": metric.column, "text.parse_math": False, "font.size": 12}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.add_subplot()
        _lines(axes, series, scheme)
        _phases(axes, runs, scheme)
        _frame(axes, metric, max(run.done for run in runs), scheme)
        file = io.BytesIO()
        undated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=undated)
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _lines(axes: Axes, series: Sequence[_Points], scheme: Scheme) -> None:
    for index, points in enumerate(series):
        pattern = tuple(float(length) for length in dashes(index).split())
        axes.plot(
            *zip(*points) if points else ((), ()),
            color=scheme.runs[index % COLOURS], linewidth=1.8, linestyle=(0, pattern) if pattern else "-",
            marker="o" if len(points) <= FEW else "", markersize=3.5 if len(points) > 1 else 6,
        )  # fmt: skip


def _phases(axes: Axes, runs: Sequence[Run], scheme: Scheme) -> None:
    """Mark where schedules change: named above, if it is the same in all runs; a lone line has its run's colour."""
    begun = [run for run in runs if run.rows]
    alike = len({tuple((phase.tokens, phase.first) for phase in run.phases) for run in begun}) == 1
    switches = [(phase.first, index) for index, run in enumerate(runs) for phase in run.phases[1:]]
    for epoch in sorted({epoch for epoch, _ in switches}):
        of = [index for other, index in switches if other == epoch]
        colour = scheme.runs[of[0] % COLOURS] if len(of) == 1 and not alike else scheme.muted
        axes.axvline(epoch - 0.5, color=colour, linewidth=1, linestyle=(0, (2, 2)))
    longest = max(begun, key=lambda run: run.done).phases if begun else []
    if alike and len(longest) <= MOST_NAMED:
        for phase in longest:
            middle, above = (phase.first + phase.last) / 2, axes.get_xaxis_transform()
            axes.text(middle, 1.02, phase.tokens, transform=above, ha="center", color=scheme.muted)


def _frame(axes: Axes, metric: Metric, epochs: int, scheme: Scheme) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(scheme.muted)
    axes.grid(axis="y", color=scheme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelcolor=scheme.ink, pad=5)
    margin = max(0.025 * epochs, 0.3)
    axes.set_xlim(1 - margin, epochs + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    if metric.from_zero:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.set_xlabel("epoch", color=scheme.muted)


def _in_words(metric: Metric, run: Run, points: Sequence[tuple[int, float]]) -> str:
    if not points:
        return f"{run.name}: no value yet"
    first, last = (f"{metric.form.format(value)} in epoch {epoch}" for epoch, value in (points[0], points[-1]))
    return f"{run.name}: {first}" + (f", {last}" if len(points) > 1 else "")
