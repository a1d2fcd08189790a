"""What the pictures of tokens show: kept and dropped patches, [CLS] attention, predictions.

Shape letters: B images of H x W pixels, drawn as tiles of h x w; N patches in a grid of rows x columns. A patch is a
whole number of pixels of a tile, so that what is drawn of a token covers its patch exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

import matplotlib
import numpy as np
from PIL import Image

from src.data.datasets import class_name
from src.schedules import Drop, Plan
from src.schedules.trace import Trace

if TYPE_CHECKING:
    from src.models import TokenTracer

TILE = 144  # pixels to which the longer side of a small image is enlarged, about
LARGEST = 288  # pixels of the longer side of a tile; larger images are averaged
FADE = 0.2  # share of its own colours that a dropped patch keeps; the rest is DROPPED
ATTENTION, RECEIVED = "[CLS] attention", "attention received"  # the latter in models without [CLS]

DROPPED, LATTICE, ABSENT = (78, 92, 122), (124, 140, 172), (196, 200, 208)
HEAT = (matplotlib.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class Column:
    """What one network did with the images: a group of columns on a sheet.

    Attributes:
        title: Text above the group; by custom the tokens spec.
        trace: Trace of the B images.
        plan: The schedule that the network ran.
        grid: Rows and columns of its patches.
        classes: Names of its outputs; an output without one is called by its index.
        note: Text below the title, such as the checkpoint.
    """

    title: str
    trace: Trace
    plan: Plan
    grid: tuple[int, int]
    classes: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Stage:
    """One tile per image: attention in a block, patches after a drop, or the image itself.

    Attributes:
        title: Two lines.
        tiles: uint8 [B, h, w, 3].
        fused: bool [B, F]: which of the F fused tokens made so far are in the sequence; None if none is ever made.
    """

    title: tuple[str, str]
    tiles: np.ndarray
    fused: Optional[np.ndarray] = None


def look(tracer: "TokenTracer", images: np.ndarray, classes: Sequence[str], note: str = "", seed: int = 0) -> Column:
    """Run a network on images and return what it did; the network is left in evaluation mode.

    Args:
        images: float32 [B, 3, H, W], normalised.
        note: For the column; by default what the schedule saves.
        seed: Of a random ranking.
    """
    from mindspore import Tensor

    network = tracer.network.set_train(False)
    trace = tracer(Tensor(images), seed)
    plan = network.plan
    note = note or (f"ideal gain {100 * plan.ideal_gain:.1f}%" if any(plan.kept) else "dense")
    return Column(str(plan.schedule), trace, plan, network.geometry.grid, classes, note)


def enlarge(images: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return images uint8 [B, H, W, 3] as tiles [B, h, w, 3]: pixels are repeated, or averaged in very large images."""
    height, width = images.shape[1:3]
    longest = max(height, width)
    if longest <= LARGEST:
        times = max(1, round(TILE / longest))
        return images.repeat(times, axis=1).repeat(times, axis=2)
    patch = max(1, height // grid[0] * LARGEST // longest)
    size = (grid[1] * patch, grid[0] * patch)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in images])


def token_tiles(tiles: np.ndarray, kept: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Dim the dropped patches of tiles in place, and leave the others as they are.

    Darkening would not show on black, nor bleaching on white: a dropped patch loses contrast and turns slate blue,
    with a line along its top and its left.

    Args:
        tiles: uint8 [B, h, w, 3].
        kept: Indices of the kept patches, int32 [B, K]; indices from N on are of fused tokens and are ignored.
    """
    patches = grid[0] * grid[1]
    stays = np.zeros((len(tiles), patches + kept.max(initial=0) + 1), bool)
    np.put_along_axis(stays, kept, True, axis=1)
    dimmed = np.rint(FADE * tiles + (1 - FADE) * np.array(DROPPED, np.float32)).astype(np.uint8)
    dimmed[:, :: tiles.shape[1] // grid[0]] = LATTICE
    dimmed[:, :, :: tiles.shape[2] // grid[1]] = LATTICE
    return np.where(_spread(stays[:, :patches], grid, tiles.shape)[..., None], tiles, dimmed)


def heat_tiles(attention: np.ndarray, grid: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Colour each patch by its attention, from each image's least to its largest.

    Args:
        attention: float32 [B, N]; NaN for patches that are not in the sequence, which are grey.
        shape: That of the tiles, [B, h, w, 3].

    Returns:
        uint8 [B, h, w, 3].
    """
    least, most = np.nanmin(attention, axis=1, keepdims=True), np.nanmax(attention, axis=1, keepdims=True)
    below = (most - attention) / np.where(most > least, most - least, 1)
    colours = HEAT[np.rint(255 * (1 - np.nan_to_num(below))).astype(int)]
    colours[np.isnan(attention)] = ABSENT
    return _spread(colours, grid, shape)


def stages(images: np.ndarray, column: Column) -> list[Stage]:
    """Return attention and patches of every drop, and the image where tokens return; if dense, the last attention.

    Args:
        images: uint8 [B, H, W, 3].
    """
    tiles, found = enlarge(images, column.grid), []
    for block, (drop, rejoins) in enumerate(zip(column.plan.drops, column.plan.rejoins), 1):
        if rejoins:
            found.append(Stage((f"block {block}", f"all {column.grid[0] * column.grid[1]} return"), tiles))
        if drop and not drop.before:
            found.append(_attention(column, block, tiles.shape))
        if drop:
            found.append(_drop(column, drop, block, tiles))
    return found or [_attention(column, len(column.plan.drops), tiles.shape)]


def last_drop(images: np.ndarray, column: Column) -> list[Stage]:
    """Return what the last drop leaves of images uint8 [B, H, W, 3]; if dense, the attention in the last block."""
    drops = {block: drop for block, drop in enumerate(column.plan.drops, 1) if drop}
    if not drops:
        return stages(images, column)
    block = max(drops)
    return [_drop(column, drops[block], block, enlarge(images, column.grid))]


def all_drops(images: np.ndarray, column: Column) -> list[Stage]:
    """Return what each drop leaves of images uint8 [B, H, W, 3]; if dense, that all patches stay."""
    tiles = enlarge(images, column.grid)
    drops = [_drop(column, drop, block, tiles) for block, drop in enumerate(column.plan.drops, 1) if drop]
    return drops or [Stage(("dense", "all patches stay"), tiles)]


def predictions(column: Column, truths: Sequence[Optional[str]]) -> list[tuple[str, Optional[bool]]]:
    """Return for each image the predicted class with its probability, and whether it is true, if that is known."""
    logits = column.trace.logits.astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    said = []
    for best, probability, truth in zip(probabilities.argmax(axis=1), probabilities.max(axis=1), truths):
        name = class_name(column.classes, best)
        mark = "" if truth is None else "✓ " if truth == name else "✗ "
        said.append((f"{mark}{100 * probability:.1f}%  {name}", None if truth is None else truth == name))
    return said


def _attention(column: Column, block: int, shape: tuple[int, ...]) -> Stage:
    what = ATTENTION if column.plan.prefix else RECEIVED
    return Stage((f"block {block}", what), heat_tiles(column.trace.attention[block - 1], column.grid, shape))


def _drop(column: Column, drop: Drop, block: int, tiles: np.ndarray) -> Stage:
    kept = column.trace.kept[block]
    stay = f"{drop.keep} of {drop.present} stay"
    fused = None
    if drop.fused:
        made = sum(other is not None for other in column.plan.drops[:block])
        indices = column.grid[0] * column.grid[1] + np.arange(made)
        fused = (kept[:, :, None] == indices).any(axis=1)
        fused[:, -1] = True  # the one that this drop makes
        stay += ", 1 fused"
    where = f"before block {block}" if drop.before else f"block {block}"
    return Stage((where, stay), token_tiles(tiles, kept, column.grid), fused)


def _spread(values: np.ndarray, grid: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Repeat one value per patch, [B, N, ...], for each pixel of the patch, [B, h, w, ...]."""
    rows, columns = grid
    square = values.reshape(len(values), rows, columns, *values.shape[2:])
    return square.repeat(shape[1] // rows, axis=1).repeat(shape[2] // columns, axis=2)
