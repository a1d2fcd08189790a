"""Curves of the share that drops take, cut into plateaus of constant schedules, each of which is one training graph.

EViT (arXiv 2202.07800) lowers its keep rate along a cosine with every step, which is a new shape now and then; a static
graph is compiled for each. A plateau has the value of the curve at its middle.
"""

import math
import re
from collections.abc import Iterator

from src.config import PhaseConfig
from src.errors import UserError
from src.schedules.geometry import Geometry
from src.schedules.notation import parse
from src.schedules.plan import resolve

DIGITS = 2  # of a plateau's percentages
SAMPLES = 10  # of an epoch, for the cost of a curve that is not cut
_RATIO = re.compile(r"([0-9.]+)%")


def plateaus(phase: PhaseConfig, tokens: str, geometry: Geometry) -> Iterator[tuple[str, int]]:
    """Yield the schedules of a phase's plateaus and their epochs.

    One under which as many tokens leave as under the curve's first, last or another plateau's schedule is that one: it
    needs no graph of its own.

    Args:
        tokens: The schedule that the curve goes to.
        geometry: Of the model at the phase's image size.

    Raises:
        UserError: The two schedules differ in more than their ratios, or do not fit the model.
    """
    number, start = phase.plateaus or 1, phase.from_tokens or "none"
    known = {resolve(parse(spec), geometry).kept: spec for spec in (start, tokens)}
    bounds = [part * phase.epochs // number for part in range(number + 1)]
    for first, end in zip(bounds, bounds[1:]):
        spec = blend(start, tokens, share(phase.curve, (first + end) / 2 / phase.epochs))
        yield known.setdefault(resolve(parse(spec), geometry).kept, spec), end - first


def uncut_macs(phase: PhaseConfig, tokens: str, geometry: Geometry) -> float:
    """Return the mean multiply-accumulates of a phase's training images under its curve, if that is not cut."""
    steps = SAMPLES * phase.epochs
    shares = (share(phase.curve, (step + 0.5) / steps) for step in range(steps))
    specs = (blend(phase.from_tokens or "none", tokens, part, digits=9) for part in shares)
    return sum(resolve(parse(spec), geometry).trained_macs for spec in specs) / steps


def share(curve: object, time: float) -> float:
    """Return how much of its way a curve has gone, from 0 to 1, after a share of its time."""
    return (1 - math.cos(math.pi * time)) / 2 if curve == "cosine" else time


def blend(first: str, last: str, part: float, digits: int = DIGITS) -> str:
    """Return the schedule whose ratios have gone a part of the way from those of one schedule to those of another.

    Raises:
        UserError: The schedules differ in more than their ratios; `none` is any schedule with ratios of 0%.
    """
    first, last = str(parse(first)), str(parse(last))
    zero = _RATIO.sub("0%", last if first == "none" else first)
    first, last = (zero if spec == "none" else spec for spec in (first, last))
    if first == "none" or _RATIO.sub("%", first) != _RATIO.sub("%", last):
        raise UserError(f"a curve goes from {first!r} to {last!r}, which must differ in their ratios alone")
    ratios = iter(_ratios(first, last, part))
    return str(parse(_RATIO.sub(lambda _: f"{next(ratios):.{digits}f}%", last)))


def _ratios(first: str, last: str, part: float) -> Iterator[float]:
    for start, end in zip(_RATIO.findall(first), _RATIO.findall(last)):
        yield float(start) + (float(end) - float(start)) * part
