"""How schedules of one drop differ: by where tokens leave and return, or by how many leave. Never imports MindSpore."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.schedules import parse
from src.schedules.notation import Route

Cell = tuple[int, int]  # the block in which tokens leave, and the one before which they return


@dataclass(frozen=True)
class Panel:
    """A quantity of every cell.

    Attributes:
        form: How a number is written, such as "{:+.2f}".
        cells: By ranking.
        differs: Whether 0 is the middle of its colours.
    """

    title: str
    form: str
    cells: Mapping[str, Mapping[Cell, float]]
    differs: bool = False


def by_distance(specs: Iterable[str]) -> Mapping[str, Mapping[Cell, str]]:
    """Return the schedules by ranking and cell; none unless they differ in those alone, with several on both axes.

    The dense schedule is left out.
    """
    routes = _single(specs)
    starts = {route.stages[0].block for route in routes.values()}
    backs = {route.rejoin for route in routes.values()}
    ratios = {route.stages[0].ratio for route in routes.values()}
    if len(ratios) != 1 or None in backs or len(starts) < 2 or len(backs) < 2:
        return {}
    grids: dict[str, dict[Cell, str]] = {}
    for spec, route in routes.items():
        grids.setdefault(route.ranking, {})[route.stages[0].block, route.rejoin or 0] = spec
    return grids


def by_share(specs: Iterable[str]) -> Mapping[str, Mapping[float, str]]:
    """Return the schedules by ranking and percentage that leaves, ascending; none unless they differ in those alone.

    The dense schedule is left out.
    """
    routes = _single(specs)
    places = {(route.stages[0].block, route.rejoin, route.fused) for route in routes.values()}
    if len(places) != 1 or len({route.stages[0].ratio for route in routes.values()}) < 2:
        return {}
    lines: dict[str, dict[float, str]] = {}
    for spec, route in sorted(routes.items(), key=lambda entry: entry[1].stages[0].ratio):
        lines.setdefault(route.ranking, {})[float(100 * route.stages[0].ratio)] = spec
    return lines


def panels(
    differences: Mapping[str, float], gains: Mapping[str, float], base: str, top1: float, measured: bool = False
) -> Sequence[Panel]:
    """Return what the heat maps of schedules show; nothing unless they are a grid (`by_distance`).

    Args:
        differences, gains: Of each schedule against `base`, whose top-1 is given: points of top-1, and a fraction.
        measured: Whether the gains are.
    """
    grids = by_distance(differences)
    if not grids:
        return ()

    def cells(values: Mapping[str, float]) -> Mapping[str, Mapping[Cell, float]]:
        return {name: {cell: values[spec] for cell, spec in grid.items()} for name, grid in grids.items()}

    return (
        Panel(f"top-1, difference to {base} ({top1:.2f}%), points", "{:+.2f}", cells(differences), differs=True),
        Panel(f"{'measured' if measured else 'ideal'} gain on {base}", "{:+.1%}", cells(gains)),
    )


def arrange(cells: Mapping[Cell, float], all_cells: Iterable[Cell]) -> tuple[Sequence[int], Sequence[int], np.ndarray]:
    """Return the starts, a row each, the returns, a column each, and the numbers; NaN where there is no cell.

    Args:
        all_cells: Those of all rankings, so that their grids have the same axes.
    """
    starts, backs = (sorted({cell[axis] for cell in all_cells}) for axis in (0, 1))
    numbers = np.full((len(starts), len(backs)), np.nan)
    for (start, back), number in cells.items():
        numbers[starts.index(start), backs.index(back)] = number
    return starts, backs, numbers


def _single(specs: Iterable[str]) -> dict[str, Route]:
    """Return the route of each schedule but the dense one; none if one is not of a single drop within a block."""
    schedules = {spec: parse(spec) for spec in specs if spec != "none"}
    if any(len(schedule.stages) != 1 or schedule.routes[0].before for schedule in schedules.values()):
        return {}
    return {spec: schedule.routes[0] for spec, schedule in schedules.items()}
