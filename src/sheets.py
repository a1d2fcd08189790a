"""Contact sheets: rows of tiles in groups of columns, with headers, captions and a legend. All sizes are pixels.

From the top: heading; for each group its title, its note and a rule; for each column two lines; for each image a row
of tiles with marks and captions below; the legend.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN, GAP, GROUP_GAP, ROW_GAP, LINE = 16, 6, 28, 12, 17
MARK = 11
NARROWEST, WIDEST_TITLE = 136, 320  # of a group: room for captions; and what a title may claim

PAPER, INK, FAINT, RULE = (255, 255, 255), (28, 30, 34), (108, 112, 120), (190, 194, 202)

_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # no system has to have them
TEXT = ImageFont.truetype(str(_FONTS / "DejaVuSans.ttf"), 12)
BOLD = ImageFont.truetype(str(_FONTS / "DejaVuSans-Bold.ttf"), 13)


@dataclass(frozen=True)
class Tiles:
    """A column of tiles.

    Attributes:
        lines: Above the column.
        pixels: uint8 [B, h, w, 3].
        marks: For each image, small pictures below its tile, uint8 [MARK, MARK, 3].
    """

    lines: tuple[str, str]
    pixels: np.ndarray
    marks: Sequence[Sequence[np.ndarray]] = ()


@dataclass(frozen=True)
class Caption:
    """A line below a tile."""

    text: str
    colour: tuple[int, int, int] = INK


@dataclass(frozen=True)
class Group:
    """Columns under one title, and for each image the captions below its first tile."""

    title: str
    note: str
    columns: Sequence[Tiles]
    captions: Sequence[Sequence[Caption]]


@dataclass(frozen=True)
class Key:
    """An entry of the legend: uint8 [MARK, any, 3], and what it stands for."""

    swatch: np.ndarray
    text: str


@dataclass(frozen=True)
class Sheet:
    """What is on a sheet. The groups have equally many images."""

    heading: str
    groups: Sequence[Group]
    legend: Sequence[Key] = field(default_factory=tuple)


@dataclass(frozen=True)
class Layout:
    """Where everything is.

    Attributes:
        lefts: Of each group, of its columns.
        rights: Of each group.
        head, rows, legend: Tops of the groups' headers, of the first row, of the legend.
        row: Height of a row, with what is below its tiles.
        tile: Height of the highest tile.
        marks: Height of the marks below a tile.
        keys: Place of each entry of the legend.
        size: Width and height of the sheet.
    """

    lefts: tuple[tuple[int, ...], ...]
    rights: tuple[int, ...]
    head: int
    rows: int
    legend: int
    row: int
    tile: int
    marks: int
    keys: tuple[tuple[int, int], ...]
    size: tuple[int, int]


def lay_out(sheet: Sheet) -> Layout:
    """Place everything; the size follows from tiles, headers and legend, not from captions, which are shortened."""
    columns = [column for group in sheet.groups for column in group.columns]
    captions = [lines for group in sheet.groups for lines in group.captions]
    lefts, rights = _across(sheet.groups)
    heading = min(width(sheet.heading, BOLD), 2 * WIDEST_TITLE)
    inner = max([rights[-1] - MARGIN, heading, *map(_key_width, sheet.legend)])
    head = MARGIN + (LINE + GAP if sheet.heading else 0)
    notes = any(group.note for group in sheet.groups)
    rows = head + (1 + notes) * LINE + 2 * GAP + 2 * LINE
    tile = max(column.pixels.shape[1] for column in columns)
    marks = MARK + GAP if any(column.marks for column in columns) else 0
    row = tile + marks + GAP // 2 + LINE * max(map(len, captions), default=0) + ROW_GAP
    legend = rows + row * len(columns[0].pixels)
    keys, bottom = _flow(sheet.legend, inner, legend)
    return Layout(lefts, rights, head, rows, legend, row, tile, marks, keys, (inner + 2 * MARGIN, bottom + MARGIN))


def draw(sheet: Sheet) -> Image.Image:
    """The sheet as an RGB picture."""
    layout = lay_out(sheet)
    picture = Image.new("RGB", layout.size, PAPER)
    pen = ImageDraw.Draw(picture)
    write(pen, (MARGIN, MARGIN), sheet.heading, layout.size[0] - 2 * MARGIN, INK, BOLD)
    for group, lefts, right in zip(sheet.groups, layout.lefts, layout.rights):
        _draw_head(pen, group, lefts, right, layout)
        for column, left in zip(group.columns, lefts):
            _draw_tiles(picture, column, left, layout)
        for number, captions in enumerate(group.captions):
            top = layout.rows + number * layout.row + layout.tile + layout.marks + GAP // 2
            for line, caption in enumerate(captions):
                write(pen, (lefts[0], top + line * LINE), caption.text, right - lefts[0], caption.colour, TEXT)
    for key, (left, top) in zip(sheet.legend, layout.keys):
        picture.paste(Image.fromarray(key.swatch), (left, top + (LINE - MARK) // 2))
        write(pen, (left + key.swatch.shape[1] + GAP, top), key.text, layout.size[0], FAINT, TEXT)
    return picture


def _draw_head(pen: ImageDraw.ImageDraw, group: Group, lefts: tuple[int, ...], right: int, layout: Layout) -> None:
    top, room = layout.head, right - lefts[0]
    write(pen, (lefts[0], top), group.title, room, INK, BOLD)
    write(pen, (lefts[0], top + LINE), group.note, room, FAINT, TEXT)
    rule = layout.rows - 2 * LINE - GAP
    if group.title or group.note:
        pen.line([(lefts[0], rule), (right - 1, rule)], fill=RULE)
    for column, left in zip(group.columns, lefts):
        for line, text in enumerate(column.lines):
            write(pen, (left, rule + GAP // 2 + line * LINE), text, right - left, INK if line == 0 else FAINT, TEXT)


def _draw_tiles(picture: Image.Image, column: Tiles, left: int, layout: Layout) -> None:
    for number, tile in enumerate(column.pixels):
        top = layout.rows + number * layout.row
        picture.paste(Image.fromarray(tile), (left, top))
        for place, mark in enumerate(column.marks[number] if column.marks else ()):
            picture.paste(Image.fromarray(mark), (left + place * (MARK + GAP), top + layout.tile + GAP // 2))


def _across(groups: Sequence[Group]) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Left edges of all columns and right edges of the groups."""
    lefts, rights, left = [], [], MARGIN
    for group in groups:
        starts, x = [], left
        for column in group.columns:
            starts.append(x)
            x += max(column.pixels.shape[2], *(width(line, TEXT) + GAP for line in column.lines)) + GAP
        titles = max(width(group.title, BOLD), width(group.note, TEXT))
        lefts.append(tuple(starts))
        rights.append(max(x - GAP, left + NARROWEST, left + min(titles, WIDEST_TITLE)))
        left = rights[-1] + GROUP_GAP
    return tuple(lefts), tuple(rights)


def _flow(keys: Sequence[Key], room: int, top: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """Places of the legend's entries, in as many lines as they need, and where the last line ends."""
    places, left = [], MARGIN
    for key in keys:
        if left > MARGIN and left + _key_width(key) > MARGIN + room:
            left, top = MARGIN, top + LINE
        places.append((left, top))
        left += _key_width(key) + GROUP_GAP
    return tuple(places), top + (LINE if keys else 0)


def _key_width(key: Key) -> int:
    return key.swatch.shape[1] + GAP + width(key.text, TEXT)


def width(text: str, font: ImageFont.FreeTypeFont) -> int:
    """Pixels that a line takes."""
    return int(np.ceil(font.getlength(text)))


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    room: int,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
) -> None:
    """Write a line, shortened to the room that it has."""
    pen.text(place, shorten(text, room, font), fill=colour, font=font)


def shorten(text: str, room: int, font: ImageFont.FreeTypeFont) -> str:
    """The text, or as much of its beginning as fits with an ellipsis."""
    if width(text, font) <= room:
        return text
    while text and width(text + "…", font) > room:
        text = text[:-1]
    return text + "…"
