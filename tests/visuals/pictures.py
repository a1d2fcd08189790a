"""Help for tests that look at pictures."""

import numpy as np
from PIL import ImageColor

from src.models import Trace, build
from src.schedules import parse, resolve
from src.visuals.tokens import Column

RANDOM = np.random.default_rng(0)


def noise(images, height, width):
    return RANDOM.integers(0, 256, (images, height, width, 3)).astype(np.uint8)


def patch(tiles, image, index, grid):
    """The pixels of a patch in a tile."""
    height, width = tiles.shape[1] // grid[0], tiles.shape[2] // grid[1]
    top, left = index // grid[1] * height, index % grid[1] * width
    return tiles[image, top : top + height, left : left + width].astype(float)


def find(sheet, tile):
    """Every (left, top) where a tile lies in a sheet, pixel for pixel, from left to right."""
    sheet = np.asarray(sheet)
    height, width = tile.shape[:2]
    rows = sheet[: len(sheet) - height + 1, : sheet.shape[1] - width + 1]
    corners = np.argwhere((rows == tile[0, 0]).all(axis=-1))
    return sorted((x, y) for y, x in corners.tolist() if (sheet[y : y + height, x : x + width] == tile).all())


def has(sheet, colour):
    return (np.asarray(sheet) == ImageColor.getrgb(colour)).all(axis=-1).any()


def by_hand(spec, kept, logits):
    """The column of a network of 2x2 patches that kept and predicted what is said."""
    net = build(spec, image_size=16, patch_size=8, embed_dim=16, num_heads=2, depth=4, num_classes=2)
    plan = resolve(parse(spec), net.geometry)
    attention = tuple(np.full((len(logits), 4), 0.25, np.float32) for _ in range(4))
    return Column("t", Trace(np.float32(logits), attention, kept), plan, (2, 2), ("ant", "bee"))
