"""What a training costs, epoch by epoch, and when it had the dense model's accuracy. Never imports MindSpore."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from src.config import Config, ImageSize
from src.runs import Metrics
from src.schedules import Geometry, parse, resolve

Speed = Callable[[Metrics], float]


@dataclass(frozen=True)
class Spent:
    """A training up to the end of an epoch.

    Attributes:
        top1: Percent, after the epoch, if it was evaluated then.
        macs: Multiply-accumulates of the forward passes in training; of a backward pass there are twice as many.
        seconds: Of training, with compiling, in whatever ran beside it; NaN if unknown of an epoch.
        time: What is compared: `seconds`, or what they come to at speeds that were measured in turns.
    """

    epoch: int
    top1: Optional[float]
    macs: float
    seconds: float
    time: float


@dataclass(frozen=True)
class Costs:
    """A training's costs relative to the dense training of the same seed: 1 is what that one takes as a whole.

    The dense accuracy is reached in the first epoch after which top-1 is never again below that of the dense model's
    last epoch; infinity if there is none. A single lucky epoch is not enough, and it is measured on the same images.

    Attributes:
        cost, time: Of the whole training: multiplications, and time.
        reached_epoch, reached_cost, reached_time: When the dense accuracy was reached.
        reached_seconds: The same, in seconds as they were.
    """

    cost: Optional[float]
    time: Optional[float]
    reached_epoch: Optional[float]
    reached_cost: Optional[float]
    reached_time: Optional[float]
    reached_seconds: Optional[float]


def follow(rows: Sequence[Metrics], config: Config, images: float, speed: Optional[Speed] = None) -> list[Spent]:
    """Add up what a training costs, epoch by epoch.

    Args:
        rows: Its epochs, of which each says under which schedule and at which size it trained.
        images: Of an epoch.
        speed: Training images per second of an epoch, where they were measured.
    """
    spent, macs = [], {}
    total = Spent(0, None, 0.0, 0.0, 0.0)
    for row in rows:
        kind = (row.tokens, size_of(row, config))
        if kind not in macs:
            model = replace(config.model, image_size=kind[1])
            macs[kind] = resolve(parse(row.tokens), Geometry.from_config(model)).trained_macs
        seconds = math.nan if row.seconds is None else row.seconds
        time = images / speed(row) if speed else seconds
        total = Spent(row.epoch, row.top1, total.macs + images * macs[kind], total.seconds + seconds, total.time + time)
        spent.append(total)
    return spent


def size_of(row: Metrics, config: Config) -> ImageSize:
    """Return the image size that an epoch trained with, which files from before there were several do not say."""
    height, _, width = row.image_size.partition("x")
    if not height:
        return config.model.image_size
    return (int(height), int(width)) if width else int(height)


def reached(spent: Sequence[Spent], top1: float) -> Optional[Spent]:
    """Return the first evaluated epoch after which top-1 is never below `top1`; None if the last one is below."""
    first = None
    for epoch in reversed([epoch for epoch in spent if epoch.top1 is not None]):
        if epoch.top1 is None or epoch.top1 < top1:
            break
        first = epoch
    return first


def compare(own: Sequence[Spent], dense: Sequence[Spent]) -> Costs:
    """Return the costs of a training relative to the dense one of the same seed."""
    whole, end = dense[-1], own[-1]
    never = Spent(0, None, math.inf, math.inf, math.inf)
    top1 = whole.top1
    found = None if top1 is None else reached(own, top1) or never
    return Costs(
        _known(end.macs / whole.macs, 4),
        _known(end.time / whole.time, 4),
        None if found is None else math.inf if found is never else found.epoch,
        None if found is None else _known(found.macs / whole.macs, 4),
        None if found is None else _known(found.time / whole.time, 4),
        None if found is None else _known(found.seconds, 1),
    )


def _known(value: float, digits: int) -> Optional[float]:
    return None if math.isnan(value) else round(value, digits)
