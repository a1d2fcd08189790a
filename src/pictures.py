"""Pictures of what networks do with their tokens: patches that stay, [CLS] attention, predictions.

Shape letters: B images of H x W pixels, drawn as tiles of h x w; N patches in a grid of rows x columns. Every patch
is a whole number of pixels in a tile, so that what is drawn of a token lies where the token does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Union

import matplotlib
import numpy as np
from mindspore import Tensor
from PIL import Image

from src.models.schedule import Plan
from src.models.trace import Trace, Tracer
from src.models.vit import SkipViT
from src.sheets import FAINT, INK, MARK, PAPER, Caption, Group, Key, Sheet, Tiles, draw

TILE = 144  # pixels to which the longer side of a small image is enlarged, about
LARGEST = 288  # pixels; larger images are made smaller
FADE = 0.2  # of its own colours, what a dropped patch keeps; the rest is DROPPED
ATTENTION = "[CLS] attention"

DROPPED, LATTICE, ABSENT = (78, 92, 122), (124, 140, 172), (196, 200, 208)
RIGHT, WRONG, FUSED = (22, 120, 60), (190, 40, 40), (230, 120, 20)
HEAT = (matplotlib.colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class Column:
    """What one network did with the images: a group of columns of a sheet.

    Attributes:
        title: Above the group; by custom the tokens spec.
        trace: Of the B images.
        plan: The schedule that the network ran.
        grid: Rows and columns of its patches.
        classes: Names of its outputs; an output without one is called by its number.
        note: Below the title, such as the checkpoint.
    """

    title: str
    trace: Trace
    plan: Plan
    grid: tuple[int, int]
    classes: Sequence[str] = ()
    note: str = ""


def contact_sheet(
    images: np.ndarray,
    columns: Sequence[Column],
    titles: Sequence[str] = (),
    truths: Sequence[Optional[str]] = (),
    heading: str = "",
) -> Image.Image:
    """A row an image: the image, and for each network its attention and tokens, stage by stage, and its prediction.

    A stage is a drop (the [CLS] attention in its block, then the patches that stay, the others dimmed in place) or the
    return of the tokens that skipped. A dense network has one: the attention in its last block.

    Args:
        images: uint8 [B, H, W, 3].
        columns: The networks, side by side.
        titles: What each image is called; none to leave it out.
        truths: The class of each image, by name; None where it is not known.
        heading: Above all.

    Returns:
        The picture, in RGB; its size does not depend on what is predicted.
    """
    return draw(_sheet(images, columns, [_stages(images, column) for column in columns], titles, truths, heading))


def epoch_strip(
    images: np.ndarray,
    columns: Sequence[Column],
    titles: Sequence[str] = (),
    truths: Sequence[Optional[str]] = (),
    heading: str = "",
) -> Image.Image:
    """A row an image and a column a network (by custom: an epoch): what is left after the last drop, or its attention.

    Args:
        As `contact_sheet`.
    """
    last = [max(column.trace.kept, default=0) for column in columns]
    tiles = [[_drop(images, c, block)] if block else _stages(images, c) for c, block in zip(columns, last)]
    return draw(_sheet(images, columns, tiles, titles, truths, heading))


def token_sheet(
    network: Union[SkipViT, Tracer],
    images: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    title: str,
    classes: Sequence[str],
    labels: Optional[Sequence[int]] = None,
) -> Image.Image:
    """The contact sheet of one network, which is left in evaluation mode.

    Args:
        network: A `Tracer` of it compiles its graph once for many sheets; a network, once for each.
        images: float32 [B, 3, H, W], normalised.
        mean, std: Of the normalisation, a number a channel, of pixels from 0 to 1.
        title: Above the sheet.
        classes: Names of the outputs.
        labels: The true class of each image, where known.
    """
    tracer = network if isinstance(network, Tracer) else Tracer(network)
    column = look(tracer, images, classes)
    truths = [] if labels is None else [_name(classes, label) for label in labels]
    return contact_sheet(pixels(images, mean, std), [column], truths=truths, heading=title)


def look(tracer: Tracer, images: np.ndarray, classes: Sequence[str], note: str = "", seed: int = 0) -> Column:
    """Run a network on normalised images, float32 [B, 3, H, W]; it is left in evaluation mode.

    Args:
        note: For the column; by default what the schedule saves.
        seed: Of a random ranking.
    """
    network = tracer.network.set_train(False)
    trace = tracer(Tensor(images), seed)
    plan = network.plan
    note = note or (f"ideal gain {100 * plan.ideal_gain:.1f}%" if any(plan.kept) else "dense")
    return Column(str(plan.schedule), trace, plan, network.patch_embed.grid, classes, note)


def pixels(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Normalised images, float32 [B, 3, H, W], as they were before: uint8 [B, H, W, 3]."""
    channels_last = images.transpose(0, 2, 3, 1) * np.float32(std) + np.float32(mean)
    return np.clip(np.rint(channels_last * 255), 0, 255).astype(np.uint8)


def enlarge(images: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Images uint8 [B, H, W, 3] as tiles [B, h, w, 3]: small ones of repeated pixels, very large ones averaged."""
    height, width = images.shape[1:3]
    longest = max(height, width)
    if longest <= LARGEST:
        times = max(1, round(TILE / longest))
        return images.repeat(times, axis=1).repeat(times, axis=2)
    patch = max(1, height // grid[0] * LARGEST // longest)
    size = (grid[1] * patch, grid[0] * patch)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in images])


def token_tiles(tiles: np.ndarray, kept: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Tiles whose dropped patches are dimmed in place; the others are left as they are.

    Black would look the same if it were darkened, and so would white if it were bleached: what is dropped loses its
    contrast and turns slate blue, with a line along the top and the left of every patch.

    Args:
        tiles: uint8 [B, h, w, 3].
        kept: Places of the patches that stay, int32 [B, K]; places from N on are of fused tokens and are passed over.
    """
    patches = grid[0] * grid[1]
    stays = np.zeros((len(tiles), patches + kept.max(initial=0) + 1), bool)
    np.put_along_axis(stays, kept, True, axis=1)
    dimmed = np.rint(FADE * tiles + (1 - FADE) * np.float32(DROPPED)).astype(np.uint8)
    dimmed[:, :: tiles.shape[1] // grid[0]] = LATTICE
    dimmed[:, :, :: tiles.shape[2] // grid[1]] = LATTICE
    return np.where(_spread(stays[:, :patches], grid, tiles.shape)[..., None], tiles, dimmed)


def heat_tiles(attention: np.ndarray, grid: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """Attention [B, N] to each patch as colours, uint8 [B, h, w, 3], from each image's least to its largest.

    Patches that are not in the sequence (NaN) are grey.

    Args:
        shape: That of the tiles, [B, h, w, 3].
    """
    least, most = np.nanmin(attention, axis=1, keepdims=True), np.nanmax(attention, axis=1, keepdims=True)
    below = (most - attention) / np.where(most > least, most - least, 1)
    colours = HEAT[np.rint(255 * (1 - np.nan_to_num(below))).astype(int)]
    colours[np.isnan(attention)] = ABSENT
    return _spread(colours, grid, shape)


def _spread(values: np.ndarray, grid: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """A value a patch, [B, N, ...] → a value a pixel, [B, h, w, ...]."""
    rows, columns = grid
    square = values.reshape(len(values), rows, columns, *values.shape[2:])
    return square.repeat(shape[1] // rows, axis=1).repeat(shape[2] // columns, axis=2)


def _stages(images: np.ndarray, column: Column) -> list[Tiles]:
    """Attention and patches at every drop, and the whole after a return; without a drop, the last block's attention."""
    tiles = []
    for block, (keep, rejoins) in enumerate(zip(column.plan.kept, column.plan.rejoins), 1):
        if rejoins:
            patches = column.grid[0] * column.grid[1]
            tiles.append(Tiles((f"block {block}", f"all {patches} return"), enlarge(images, column.grid)))
        if keep:
            tiles += [_attention(images, column, block), _drop(images, column, block)]
    return tiles or [_attention(images, column, len(column.plan.kept))]


def _attention(images: np.ndarray, column: Column, block: int) -> Tiles:
    shape = enlarge(images, column.grid).shape
    heat = heat_tiles(column.trace.attention[block - 1], column.grid, shape)
    return Tiles((f"block {block}", ATTENTION), heat)


def _drop(images: np.ndarray, column: Column, block: int) -> Tiles:
    plan, kept = column.plan, column.trace.kept[block]
    tiles = token_tiles(enlarge(images, column.grid), kept, column.grid)
    says = f"{plan.kept[block - 1]} of {plan.tokens_in[block - 1] - 1} stay"
    if not plan.schedule.fused:
        return Tiles((f"block {block}", says), tiles)
    made = sum(keep > 0 for keep in plan.kept[:block])
    places = column.grid[0] * column.grid[1] + np.arange(made)
    present = (kept[:, :, None] == places).any(axis=1)
    present[:, -1] = True  # the one that this drop makes
    return Tiles((f"block {block}", says + ", 1 fused"), tiles, [[_diamond(there) for there in row] for row in present])


def _sheet(
    images: np.ndarray,
    columns: Sequence[Column],
    tiles: Sequence[Sequence[Tiles]],
    titles: Sequence[str],
    truths: Sequence[Optional[str]],
    heading: str,
) -> Sheet:
    """The images, and beside them the tiles of each network with what it predicts."""
    truths = truths or [None] * len(images)
    under = [[Caption(f"true: {truth}" if truth is not None else "")] for truth in truths]
    under = [lines + [Caption(title, FAINT)] for lines, title in zip(under, titles)] if titles else under
    shown = Tiles(("image", f"{images.shape[2]}x{images.shape[1]}"), enlarge(images, columns[0].grid))
    has_attention = any(column.lines[1] == ATTENTION for group in tiles for column in group)
    groups = [Group(c.title, c.note, drawn, _predictions(c, truths)) for c, drawn in zip(columns, tiles)]
    return Sheet(heading, [Group("", "", [shown], under), *groups], _legend(columns, has_attention))


def _predictions(column: Column, truths: Sequence[Optional[str]]) -> list[list[Caption]]:
    logits = column.trace.logits.astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances = odds / odds.sum(axis=1, keepdims=True)
    captions = []
    for best, chance, truth in zip(chances.argmax(axis=1), chances.max(axis=1), truths):
        name = _name(column.classes, best)
        mark, colour = ("", INK) if truth is None else ("✓ ", RIGHT) if truth == name else ("✗ ", WRONG)
        captions.append([Caption(f"{mark}{100 * chance:.1f}%  {name}", colour)])
    return captions


def _name(classes: Sequence[str], number: int) -> str:
    return classes[number] if number < len(classes) else str(number)


def _legend(columns: Sequence[Column], has_attention: bool) -> list[Key]:
    drops = [(column, block) for column in columns for block in column.trace.kept]
    keys = []
    if drops:
        keys.append(Key(_dropped(), "dropped"))
    if has_attention:
        gradient = HEAT[np.linspace(0, 255, 6 * MARK).astype(int)][None].repeat(MARK, axis=0)
        keys.append(Key(gradient, "[CLS] attention, mean over heads: from an image's least to its largest"))
        if any(np.isnan(column.trace.attention[block - 1]).any() for column, block in drops):
            keys.append(Key(_plain(ABSENT), "dropped before"))
    if any(column.plan.schedule.fused for column, _ in drops):
        keys.append(Key(_diamond(True), "fused token, in which dropped ones live on"))
    if any(column.plan.schedule.fused and len(column.trace.kept) > 1 for column, _ in drops):
        keys.append(Key(_diamond(False), "fused token that was dropped itself"))
    return keys


def _plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((MARK, MARK, 3), colour, np.uint8)


def _dropped() -> np.ndarray:
    swatch = _plain(DROPPED)
    swatch[0] = swatch[:, 0] = LATTICE
    return swatch


def _diamond(filled: bool) -> np.ndarray:
    """The mark of a fused token, uint8 [MARK, MARK, 3]: filled if it is in the sequence."""
    places = np.abs(np.arange(MARK) - MARK // 2)
    distance = places[:, None] + places
    mark = _plain(PAPER)
    mark[distance <= MARK // 2] = FUSED if filled else FAINT
    if not filled:
        mark[distance <= MARK // 2 - 2] = PAPER
    return mark
