"""What is drawn of tokens: dimmed patches, heat maps, stages and predictions, as arrays."""

import numpy as np
import pytest

from src.data.pixels import pixels
from src.models import TokenTracer, build
from src.visuals import sheet, tokens
from src.visuals.tokens import enlarge, heat_tiles, last_drop, look, predictions, stages, token_tiles
from tests.visuals.pictures import RANDOM, by_hand, find, has, noise, patch

SIZES = [(16, 16, 4), (32, 32, 4), (224, 224, 16), (16, 48, 8), (64, 16, 8), (518, 518, 14), (96, 640, 16)]
KEPT = {1: np.int32([[0, 1], [1, 3]]), 3: np.int32([[0, 4], [2, 3]])}  # 4 is the fused token of block 1


@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_dropped_patches_are_dimmed_in_place_and_the_others_are_as_they_were(height, width, side):
    grid = (height // side, width // side)
    tiles = enlarge(noise(2, height, width), grid)
    assert tiles.shape[1] % grid[0] == tiles.shape[2] % grid[1] == 0
    assert 96 <= max(tiles.shape[1:3]) <= 288
    count = grid[0] * grid[1]
    kept = RANDOM.permuted(np.tile(np.arange(count), (2, 1)), axis=1)[:, : count // 2]
    drawn = token_tiles(tiles, kept, grid)
    for image in range(2):
        for index in range(count):
            before, after = patch(tiles, image, index, grid), patch(drawn, image, index, grid)
            if index in kept[image]:
                assert (after == before).all()
            else:
                faded = tokens.FADE * before + (1 - tokens.FADE) * np.array(tokens.DROPPED)
                assert np.abs(after - faded)[1:, 1:].max() < 0.51
                assert (after[0] == tokens.LATTICE).all()
                assert (after[:, 0] == tokens.LATTICE).all()
                assert after.std() < before.std()


def test_small_images_are_enlarged_pixel_by_pixel():
    images = noise(1, 16, 16)
    tiles = enlarge(images, (4, 4))
    assert tiles.shape == (1, 144, 144, 3)
    assert (tiles[:, ::9, ::9] == images).all()
    assert (tiles[:, 8::9, 8::9] == images).all()


def test_what_is_dropped_shows_on_black_and_on_white():
    for value in (0, 255):
        tiles = np.full((1, 16, 16, 3), value, np.uint8)
        dropped = token_tiles(tiles, np.array([[0]]), (4, 4))[0, -1, -1]
        assert np.abs(dropped.astype(int) - value).min() > 50


@pytest.mark.parametrize(("height", "width", "side"), SIZES)
def test_the_brightest_patch_of_the_heat_map_has_most_attention(height, width, side):
    grid = (height // side, width // side)
    count = grid[0] * grid[1]
    attention = RANDOM.random((2, count), np.float32)
    attention[:, 1] = np.nan
    most = np.nanargmax(attention, axis=1)
    shape = enlarge(noise(2, height, width), grid).shape
    heat = heat_tiles(attention, grid, shape)
    assert heat.shape == shape
    for image in range(2):
        assert (patch(heat, image, 1, grid) == tokens.ABSENT).all()
        assert (patch(heat, image, most[image], grid) == tokens.HEAT[255]).all()
        light = [patch(heat, image, index, grid).sum() for index in range(count) if index != 1]
        assert max(light) == patch(heat, image, most[image], grid).sum()


def test_the_stages_of_drops_and_of_the_return():
    images, column = noise(2, 16, 16), by_hand("1(50%)+3", {1: KEPT[1]}, [[0, 1], [1, 0]])
    attention, drop, back = stages(images, column)
    tiles = enlarge(images, (2, 2))
    assert [stage.title for stage in (attention, drop, back)] == [
        ("block 1", "[CLS] attention"), ("block 1", "2 of 4 stay"), ("block 3", "all 4 return"),
    ]  # fmt: skip
    assert (attention.tiles == heat_tiles(column.trace.attention[0], (2, 2), tiles.shape)).all()
    assert (drop.tiles == token_tiles(tiles, KEPT[1], (2, 2))).all()
    assert (back.tiles == tiles).all()
    (last,) = last_drop(images, column)
    assert last.title == drop.title
    assert (last.tiles == drop.tiles).all()
    assert [stage.fused for stage in (attention, drop, back, last)] == [None] * 4


def test_the_stages_of_routes():
    """What leaves before a block is not ranked by its attention, so none is shown; every return is."""
    kept = {1: KEPT[1], 2: KEPT[1], 3: KEPT[1]}
    column = by_hand("<1..2(50%,norm)+next;3(50%)+4", kept, [[0, 1], [1, 0]])
    assert [stage.title for stage in stages(noise(2, 16, 16), column)] == [
        ("before block 1", "2 of 4 stay"), ("block 2", "all 4 return"), ("before block 2", "2 of 4 stay"),
        ("block 3", "all 4 return"), ("block 3", "[CLS] attention"), ("block 3", "2 of 4 stay"),
        ("block 4", "all 4 return"),
    ]  # fmt: skip


def test_a_dense_network_has_the_attention_in_its_last_block():
    images, column = noise(1, 16, 16), by_hand("none", {}, [[0, 1]])
    column.trace.attention[3][:] = [[1, 2, 3, 4]]
    for (stage,) in (stages(images, column), last_drop(images, column)):
        assert stage.title == ("block 4", "[CLS] attention")
        assert (patch(stage.tiles, 0, 3, (2, 2)) == tokens.HEAT[255]).all()


def test_a_fused_token_is_in_the_sequence_until_it_is_dropped_itself():
    _, first, _, second = stages(noise(2, 16, 16), by_hand("1,3(50%,34%)+fused", KEPT, [[0, 1], [1, 0]]))
    assert first.title == ("block 1", "2 of 4 stay, 1 fused")
    assert first.fused.tolist() == [[True], [True]]
    assert second.title == ("block 3", "2 of 3 stay, 1 fused")
    assert second.fused.tolist() == [[True, True], [False, True]]


def test_predictions_are_marked_right_or_wrong():
    column = by_hand("none", {}, [[0, 3], [0, 3], [3, 0]])
    assert predictions(column, ["bee", "ant", None]) == [
        ("✓ 95.3%  bee", True), ("✗ 95.3%  bee", False), ("95.3%  ant", None),
    ]  # fmt: skip


def test_an_output_without_a_name_is_called_by_its_index():
    net = build("none", image_size=16, patch_size=8, embed_dim=16, num_heads=2, depth=2, num_classes=5)
    column = look(TokenTracer(net), np.zeros((1, 3, 16, 16), np.float32), ())
    ((said, right),) = predictions(column, [None])
    assert said.split()[-1] == str(column.trace.logits[0].argmax())
    assert right is None
    assert (column.title, column.note) == ("none", "dense")


def test_the_sheet_of_a_network_shows_the_pixels_before_normalisation():
    images, mean, std = noise(2, 16, 16), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    net = build("2(50%)+fused", image_size=16, patch_size=8, embed_dim=16, num_heads=2, depth=2, num_classes=2)
    inputs = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    assert (pixels(inputs, mean, std) == images).all()
    drawn = sheet.token_sheet(net, inputs, mean, std, "epoch 3", ("ant", "bee"), [0, 1])
    assert drawn.mode == "RGB"
    assert find(drawn, enlarge(images, (2, 2))[0])
    assert has(drawn, sheet.FUSED)
    assert has(drawn, sheet.VERDICT[True]) or has(drawn, sheet.VERDICT[False])
    assert not net.training
