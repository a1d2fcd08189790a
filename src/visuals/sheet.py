"""Contact sheets of tokens, laid out with matplotlib: a row per image, a group of columns per network.

Lengths are in pixels: at 72 dots per inch a point of text is a pixel. A column is one `Axes` whose coordinates are
pixels from the top left of its first tile, so that tiles are drawn pixel for pixel.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Optional, Union

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from src.data.datasets import class_name
from src.data.pixels import pixels
from src.visuals import tokens
from src.visuals.tokens import Column, Stage

if TYPE_CHECKING:
    from src.models import SkipViT, TokenTracer

DPI = 72
MARGIN, GAP, GROUP_GAP, ROW_GAP, LINE, MARK = 16, 6, 28, 12, 17, 8
HEADER = 4 * LINE + 2 * GAP  # height of the titles above the tiles
NARROWEST, WIDEST_TITLE, LEGEND = 150, 320, 500  # of a column, of a group's title, of an entry of the legend
TEXT = FontProperties(family="DejaVu Sans", size=12)
BOLD = FontProperties(family="DejaVu Sans", size=13, weight="bold")
INK, FAINT, RULE, PAPER = "#1c1e22", "#6c7078", "#bec2ca", "#ffffff"
FUSED = "#e67814"
VERDICT = {True: "#16783c", False: "#be2828", None: INK}  # colour of a prediction: right, wrong, not known

_Handle = Any  # of an entry of the legend: an artist, or a tuple of them for `HandlerTuple`


@dataclass(frozen=True)
class _Group:
    """Columns under one title; the captions of an image, (text, colour), are lines below its first tile."""

    title: str
    note: str
    stages: Sequence[Stage]
    captions: Sequence[Sequence[tuple[str, str]]]

    @property
    def widths(self) -> list[int]:
        """Widths of the columns, each with the gap after it; titles may widen the last one."""
        widths = [max(stage.tiles.shape[2], NARROWEST) + GAP for stage in self.stages]
        titles = min(max(_width(self.title, BOLD), _width(self.note, TEXT)), WIDEST_TITLE)
        return [*widths[:-1], max(widths[-1], math.ceil(titles) - sum(widths[:-1]) + GAP) - GAP + GROUP_GAP]


def contact_sheet(
    images: np.ndarray,
    columns: Sequence[Column],
    titles: Sequence[str] = (),
    truths: Sequence[Optional[str]] = (),
    heading: str = "",
    stages: Callable[[np.ndarray, Column], list[Stage]] = tokens.stages,
) -> Image.Image:
    """Draw a row per image: the image, and for each network its attention and tokens by stage, and its prediction.

    A stage is a drop (the [CLS] attention in its block, then the kept patches, the others dimmed in place) or the
    return of the tokens that skipped. A dense network has one: the attention in its last block.

    Args:
        images: uint8 [B, H, W, 3].
        columns: The networks, side by side.
        titles: What each image is called; empty to leave it out.
        truths: The class of each image, by name; None where it is not known.
        heading: Text above everything.
        stages: What is drawn of a network.

    Returns:
        An RGB picture; its size does not depend on what is predicted.
    """
    truths = truths or [None] * len(images)
    names = [[("" if truth is None else f"true: {truth}", INK)] for truth in truths]
    if titles:
        names = [[*lines, (title, FAINT)] for lines, title in zip(names, titles)]
    size = f"{images.shape[2]}x{images.shape[1]}"
    groups = [_Group("", "", [Stage(("image", size), tokens.enlarge(images, columns[0].grid))], names)]
    for column in columns:
        captions = [[(text, VERDICT[right])] for text, right in tokens.predictions(column, truths)]
        groups.append(_Group(column.title, column.note, stages(images, column), captions))
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a class name may be in any script
        canvas = FigureCanvasAgg(_figure(groups, _legend(columns, groups), heading))
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def epoch_strip(
    images: np.ndarray,
    columns: Sequence[Column],
    titles: Sequence[str] = (),
    truths: Sequence[Optional[str]] = (),
    heading: str = "",
) -> Image.Image:
    """Draw, as `contact_sheet`, one column per network (by custom, an epoch): what its last drop leaves."""
    return contact_sheet(images, columns, titles, truths, heading, tokens.last_drop)


def token_sheet(
    network: "Union[SkipViT, TokenTracer]",
    images: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    title: str,
    classes: Sequence[str],
    labels: Optional[Sequence[int]] = None,
) -> Image.Image:
    """Draw the contact sheet of one network, which is left in evaluation mode.

    Args:
        network: The network; a `TokenTracer` of it compiles its graph once for many sheets.
        images: float32 [B, 3, H, W], normalised.
        mean, std: Of the normalisation, one number per channel, for pixels from 0 to 1.
        title: Heading of the sheet.
        classes: Names of the outputs.
        labels: The true class of each image, where known.
    """
    from src.models import TokenTracer

    tracer = network if isinstance(network, TokenTracer) else TokenTracer(network)
    truths = [] if labels is None else [class_name(classes, label) for label in labels]
    column = tokens.look(tracer, images, classes)
    return contact_sheet(pixels(images, mean, std), [column], truths=truths, heading=title)


def _figure(groups: Sequence[_Group], keys: Mapping[str, _Handle], heading: str) -> Figure:
    """Lay out the groups side by side; the size follows from tiles and legend, for other text is shortened."""
    shown = [stage for group in groups for stage in group.stages]
    marks = GAP + MARK if any(stage.fused is not None for stage in shown) else 0
    captions = max(stage.tiles.shape[1] for stage in shown) + marks + GAP // 2  # from a tile's top to its captions
    step = captions + LINE * max(len(lines) for group in groups for lines in group.captions) + ROW_GAP
    rows = step * len(shown[0].tiles)
    widths = [width for group in groups for width in group.widths]
    right = MARGIN + sum(widths)
    width = max(right - GROUP_GAP, MARGIN + LEGEND) + MARGIN
    top = MARGIN + (LINE + GAP if heading else 0) + HEADER
    ncols = (width - 2 * MARGIN) // LEGEND
    height = top + rows + LINE * math.ceil(len(keys) / ncols) + MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    grid = figure.add_gridspec(
        1, len(widths), width_ratios=widths, wspace=0, left=MARGIN / width, right=right / width,
        top=1 - top / height, bottom=1 - (top + rows) / height,
    )  # fmt: skip
    axes = [figure.add_subplot(grid[0, i], xlim=(0, size), ylim=(rows, 0)) for i, size in enumerate(widths)]
    _write(axes[0], -HEADER - LINE - GAP, heading, width - 2 * MARGIN, INK, BOLD)
    columns = iter(axes)
    for group in groups:
        _draw_group(group, [next(columns) for _ in group.stages], step, captions)
    figure.legend(
        list(keys.values()), list(keys), handler_map={tuple: HandlerTuple(ndivide=None, pad=0)}, ncols=ncols,
        loc="lower left", bbox_to_anchor=(MARGIN / width, GAP / height), borderaxespad=0, borderpad=0, frameon=False,
        prop=TEXT, labelcolor=FAINT, handlelength=2, handleheight=0.8, labelspacing=0.35,
    )  # fmt: skip
    return figure


def _draw_group(group: _Group, axes: Sequence[Axes], step: int, captions: int) -> None:
    """Draw titles, tiles and captions of a group on its columns."""
    room = sum(group.widths) - GROUP_GAP
    _write(axes[0], -HEADER, group.title, room, INK, BOLD)
    _write(axes[0], LINE - HEADER, group.note, room, FAINT)
    if group.title or group.note:
        axes[0].plot([0, room], [2 * LINE + GAP // 2 - HEADER] * 2, color=RULE, linewidth=1, clip_on=False)
    for column, stage, width in zip(axes, group.stages, group.widths):
        for line, text in enumerate(stage.title):
            _write(column, (line - 2) * LINE - GAP // 2, text, width - GAP, FAINT if line else INK)
        _draw_tiles(column, stage, step)
    for row, lines in enumerate(group.captions):
        for line, (text, colour) in enumerate(lines):
            _write(axes[0], row * step + captions + line * LINE, text, room, colour)


def _draw_tiles(axes: Axes, stage: Stage, step: int) -> None:
    """Draw the tiles of a column, `step` apart, and below each a diamond per fused token, hollow if it was dropped."""
    limits, (height, width) = axes.axis(), stage.tiles.shape[1:3]
    for row, tile in enumerate(stage.tiles):
        extent = (0, width, row * step + height, row * step)
        axes.imshow(tile, interpolation="nearest", extent=extent, aspect="auto")
    if stage.fused is not None:
        row, index = np.indices(stage.fused.shape)
        face, edge = np.where(stage.fused, FUSED, PAPER).ravel(), np.where(stage.fused, FUSED, FAINT).ravel()
        x, y = (index + 0.5) * (MARK + GAP), row * step + height + GAP + MARK / 2
        axes.scatter(x, y, s=MARK**2 / 2, c=face, marker="D", edgecolors=edge)
    axes.axis(limits)
    axes.set_axis_off()


def _write(axes: Axes, top: float, text: str, room: int, colour: str, font: FontProperties = TEXT) -> None:
    """Write a line at the left of a column, shortened to its room."""
    axes.text(0, top, _shorten(text, room, font), color=colour, fontproperties=font, va="top")


def _shorten(text: str, room: int, font: FontProperties) -> str:
    """Return the text, or as much of its beginning as fits into the room with an ellipsis."""
    if _width(text, font) <= room:
        return text
    text = text[: room // 3]  # no letter is narrower than 3 pixels
    while text and _width(f"{text}…", font) > room:
        text = text[:-1]
    return f"{text}…"


def _width(text: str, font: FontProperties) -> float:
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(text, font, ismath=False)[0]


def _legend(columns: Sequence[Column], groups: Sequence[_Group]) -> dict[str, _Handle]:
    """Return what the colours and marks on a sheet stand for."""
    drops = [(column, block) for column in columns for block in column.trace.kept]
    keys: dict[str, _Handle] = {}
    if drops:
        keys["dropped"] = Patch(facecolor=np.divide(tokens.DROPPED, 255), edgecolor=np.divide(tokens.LATTICE, 255))
    titles = {stage.title[1] for group in groups for stage in group.stages}
    for attention in sorted(titles & {tokens.ATTENTION, tokens.RECEIVED}):
        heat = tuple(Patch(facecolor=colour / 255, linewidth=0) for colour in tokens.HEAT[::15])
        keys[f"{attention}, mean over heads: from an image's least to its largest"] = heat
        if any(np.isnan(column.trace.attention[block - 1]).any() for column, block in drops):
            keys["dropped before"] = Patch(facecolor=np.divide(tokens.ABSENT, 255))
    fused = [column for column in columns if column.plan.schedule.fused and column.trace.kept]
    mark = partial(Line2D, [], [], linestyle="", marker="D", markersize=0.7 * MARK)
    if fused:
        keys["fused token, in which dropped ones live on"] = mark(color=FUSED)
    if any(len(column.trace.kept) > 1 for column in fused):
        keys["fused token that was dropped itself"] = mark(markerfacecolor=PAPER, markeredgecolor=FAINT)
    return keys
