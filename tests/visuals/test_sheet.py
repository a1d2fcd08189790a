"""How tokens are laid out on sheets: every tile at its position, pixel for pixel, and every text in its room."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from mindspore import Tensor

from src.models import Trace, build, trace
from src.visuals import sheet
from src.visuals.sheet import (
    FUSED,
    GAP,
    GROUP_GAP,
    HEADER,
    LINE,
    MARGIN,
    MARK,
    NARROWEST,
    PAPER,
    ROW_GAP,
    VERDICT,
    contact_sheet,
    epoch_strip,
)
from src.visuals.tokens import Column, enlarge, heat_tiles, token_tiles
from tests.visuals.pictures import by_hand, find, has, noise

LONG = "a very long name of a class " * 9
KEPT = {1: np.int32([[0, 1], [1, 3]]), 3: np.int32([[0, 4], [2, 3]])}  # 4 is the fused token of block 1


@pytest.fixture(scope="module")
def traced():
    """Two images, and a dense and a skipping network's columns of them."""
    images, columns = noise(2, 16, 48), []
    for spec in ("none", "2(50%)+4"):
        sizes = {"image_size": (16, 48), "patch_size": 8, "embed_dim": 16, "num_heads": 2, "depth": 4}
        net = build(spec, num_classes=3, **sizes).set_train(False)
        seen = trace(net, Tensor((images.transpose(0, 3, 1, 2) / 255).astype(np.float32)))
        columns.append(Column(spec, seen, net.plan, net.geometry.grid, ("ant", "bee", "cat")))
    return images, *columns


@pytest.fixture
def figures(monkeypatch):
    """The figures that have been drawn."""
    drawn, figure = [], sheet._figure
    monkeypatch.setattr(sheet, "_figure", lambda *given: drawn.append(figure(*given)) or drawn[-1])
    return drawn


def texts(figure):
    """The texts on a figure, {text: colour}, without the legend's."""
    shown = [text for text in figure.findobj(Text) if text.get_text() and text not in figure.legends[0].get_texts()]
    return {text.get_text(): to_hex(text.get_color()) for text in shown}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def check_texts(figure):
    """No text leaves the picture or overlaps another one."""
    boxes = [text.get_window_extent() for text in figure.findobj(Text) if text.get_text()]
    for number, box in enumerate(boxes):
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
        for other in boxes[:number]:
            across, down = (min(box.max[i], other.max[i]) - max(box.min[i], other.min[i]) for i in (0, 1))
            assert across <= 1 or down <= 3  # boxes of lines include what hangs below them


def test_a_sheet_has_every_stage_at_its_position(traced):
    images, _, column = traced
    drawn = contact_sheet(images, [column], ["one.png", "two.png"], ["ant", None], "heading")
    left = MARGIN + NARROWEST + GROUP_GAP
    top = MARGIN + LINE + GAP + HEADER
    step = 48 + GAP // 2 + 2 * LINE + ROW_GAP
    tiles = enlarge(images, (2, 6))
    heat = heat_tiles(column.trace.attention[1], (2, 6), tiles.shape)
    tokens = token_tiles(tiles, column.trace.kept[2], (2, 6))
    for image in range(2):
        row = top + image * step
        # the second is where it is back
        assert find(drawn, tiles[image]) == [(MARGIN, row), (left + 2 * (NARROWEST + GAP), row)]
        assert find(drawn, heat[image]) == [(left, row)]
        assert find(drawn, tokens[image]) == [(left + NARROWEST + GAP, row)]
    assert drawn.width == left + 3 * NARROWEST + 2 * GAP + MARGIN
    assert drawn.height == top + 2 * step + 2 * LINE + MARGIN


def test_a_sheet_says_what_it_shows(traced, figures):
    images, _, column = traced
    contact_sheet(images, [replace(column, note="a note")], ["one.png", "two.png"], ["ant", None], "heading")
    (figure,) = figures
    said = texts(figure)
    expected = ["heading", "2(50%)+4", "a note", "image", "48x16", "block 2", "[CLS] attention", "6 of 12 stay",
                "block 4", "all 12 return", "true: ant", "one.png", "two.png"]  # fmt: skip
    assert set(expected) <= set(said)
    (known,) = [text for text in said if text[0] in "✓✗"]
    assert said[known] == VERDICT[known[0] == "✓"]
    assert len(said) == len(expected) + 2
    assert legend(figure) == [
        "dropped", "[CLS] attention, mean over heads: from an image's least to its largest",
    ]  # fmt: skip
    check_texts(figure)


def test_the_legend_says_what_is_on_the_sheet(traced, figures):
    images, dense, skipping = traced
    attention = "[CLS] attention, mean over heads: from an image's least to its largest"
    square, logits = noise(2, 16, 16), [[0, 1], [1, 0]]
    twice = by_hand("1,3(50%,34%)+fused", KEPT, logits)
    twice.trace.attention[2][:, 0] = np.nan
    contact_sheet(images, [dense])
    epoch_strip(images, [skipping])
    contact_sheet(square, [by_hand("1(50%)+fused", {1: KEPT[1]}, logits)])
    contact_sheet(square, [twice])
    fused = "fused token, in which dropped ones live on"
    assert [legend(figure) for figure in figures] == [
        [attention],
        ["dropped"],
        ["dropped", attention, fused],
        ["dropped", attention, "dropped before", fused, "fused token that was dropped itself"],
    ]


def test_long_texts_are_shortened_and_do_not_change_the_size(traced, figures):
    images, dense, skipping = traced
    columns = [replace(column, classes=[LONG] * 3, note=LONG) for column in (dense, skipping, dense)]
    short = [replace(column, classes="abc") for column in columns]
    sizes = [contact_sheet(images, group, [LONG] * 2, [LONG] * 2, LONG).size for group in (columns, short)]
    assert sizes[0] == sizes[1]
    check_texts(figures[0])
    shortened = [text for text in texts(figures[0]) if text.endswith("…")]
    assert {"a v", "tru", "✓ "} <= {text[:3] if text[0] != "✓" else "✓ " for text in shortened}


def test_text_is_shortened_to_its_room():
    long = sheet._shorten("a long name of a class", 60, sheet.TEXT)
    assert long.endswith("…")
    assert "a long name of a class".startswith(long[:-1])
    assert len(long) > 4
    assert sheet._width(long, sheet.TEXT) <= 60
    assert sheet._shorten("short", 60, sheet.TEXT) == "short"


def test_the_size_of_a_sheet_does_not_depend_on_what_is_predicted(traced):
    images, dense, _ = traced
    columns = [Column("t", dense.trace, dense.plan, dense.grid, [name] * 3) for name in ("a", LONG)]
    assert contact_sheet(images, columns[:1]).size == contact_sheet(images, columns[1:]).size


def test_networks_are_side_by_side_and_a_dense_one_shows_its_last_block(traced):
    images, dense, skipping = traced
    drawn = contact_sheet(images, [dense, skipping])
    tiles = enlarge(images, (2, 6))
    ((left, top),) = find(drawn, heat_tiles(dense.trace.attention[3], (2, 6), tiles.shape)[1])
    ((right, same),) = find(drawn, token_tiles(tiles, skipping.trace.kept[2], (2, 6))[1])
    assert (right - left, same) == (NARROWEST + GROUP_GAP + NARROWEST + GAP, top)


def test_a_strip_has_a_column_for_each_epoch(traced):
    images, _, column = traced
    tokens = token_tiles(enlarge(images, (2, 6)), column.trace.kept[2], (2, 6))
    strip = epoch_strip(images, [column] * 3)
    assert [x for x, _ in find(strip, tokens[0])] == [MARGIN + i * (NARROWEST + GROUP_GAP) for i in (1, 2, 3)]


@pytest.mark.parametrize(("height", "width", "side"), [(224, 224, 16), (64, 16, 8), (518, 518, 14), (96, 640, 16)])
def test_tiles_of_every_size_are_drawn_pixel_for_pixel(height, width, side):
    images, grid = noise(3, height, width), (height // side, width // side)
    net = build("1(50%)+fused", image_size=(height, width), patch_size=side, embed_dim=16, num_heads=2, depth=2)
    kept = np.tile(np.arange(grid[0] * grid[1] // 2, dtype=np.int32), (3, 1))
    attention = np.float32(np.random.default_rng(1).random((3, grid[0] * grid[1])))
    seen = Trace(np.zeros((3, 2), np.float32), (attention, attention), {1: kept})
    drawn = contact_sheet(images, [Column("t", seen, net.plan, grid)])
    tiles = enlarge(images, grid)
    for expected in (tiles, heat_tiles(attention, grid, tiles.shape), token_tiles(tiles, kept, grid)):
        assert [len(find(drawn, tile)) for tile in expected] == [1, 1, 1]


def test_a_fused_token_has_a_mark_that_tells_whether_it_was_kept():
    images, logits = noise(2, 16, 16), [[0, 1], [1, 0]]
    drawn = contact_sheet(images, [by_hand("1,3(50%,34%)+fused", KEPT, logits)])
    tiles = enlarge(images, (2, 2))

    def marks(block, image):
        ((left, top),) = find(drawn, token_tiles(tiles, KEPT[block], (2, 2))[image])
        middle = top + 144 + GAP + MARK // 2
        return [
            to_hex(np.divide(drawn.getpixel((left + int((i + 0.5) * (MARK + GAP)), middle)), 255)) for i in range(3)
        ]

    assert marks(1, 0) == marks(1, 1) == [FUSED, PAPER, PAPER]  # one, and then nothing
    assert marks(3, 0) == [FUSED, FUSED, PAPER]
    assert marks(3, 1) == [PAPER, FUSED, PAPER]  # the first is hollow
    skipping = by_hand("1(50%)+3", {1: KEPT[1]}, logits)
    assert not has(contact_sheet(images, [skipping]), FUSED)


def test_right_and_wrong_predictions_are_told_apart():
    images, column = noise(1, 16, 16), by_hand("none", {}, [[0, 3]])
    drawn = [contact_sheet(images, [column], truths=[truth]) for truth in ("bee", "ant", None)]
    assert [has(picture, VERDICT[True]) for picture in drawn] == [True, False, False]
    assert [has(picture, VERDICT[False]) for picture in drawn] == [False, True, False]


def test_names_in_any_script_are_drawn_as_they_are_and_without_a_warning(figures, recwarn):
    column = replace(by_hand("none", {}, [[0, 3]]), classes=("ant", "犬 $x_1$"))
    contact_sheet(noise(1, 16, 16), [column], ["$"], ["犬 $x_1$"])
    assert "✓ 95.3%  犬 $x_1$" in texts(figures[0])
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert matplotlib.rcParams["text.parse_math"]  # as before


def test_nothing_of_it_is_a_global_figure(traced):
    images, dense, _ = traced
    from matplotlib import pyplot as plt

    before = plt.get_fignums()
    assert (np.asarray(contact_sheet(images, [dense])) == np.asarray(contact_sheet(images, [dense]))).all()
    assert plt.get_fignums() == before
