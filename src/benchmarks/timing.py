"""Interleaved timing: contestants take turns, so that a machine whose speed drifts drifts for all of them."""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

Name = TypeVar("Name", bound=Hashable)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Timing:
    """The seconds of a contestant in each round, and of the contestant it is compared with."""

    seconds: tuple[float, ...]
    base: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, a fraction of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median

    @property
    def gain(self) -> float:
        """How much faster than the base, a fraction: the median over rounds of base / own, minus 1."""
        return statistics.median(self.gains)

    @property
    def gains(self) -> tuple[float, ...]:
        """The gain of each round."""
        return tuple(b / s - 1 for b, s in zip(self.base, self.seconds))

    @property
    def gain_figures(self) -> dict[str, float]:
        """The gain, and the least and the greatest of the rounds', for a report."""
        return {"gain": self.gain, "gain_low": min(self.gains), "gain_high": max(self.gains)}


def interleave(
    contestants: dict[str, Callable[[], None]],
    rounds: int,
    steps: int,
    base: str,
    progress: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time contestants in turns: in each round each runs once untimed and `steps` times timed.

    The untimed run fills the caches that the contestant before has emptied. The order is reversed in every other
    round, so that none always follows the same one.

    Args:
        contestants: What to run once, by name.
        base: The contestant that the others' gain is measured against.

    Returns:
        Seconds of one run, for each contestant.
    """

    def turn(run: Callable[[], None]) -> float:
        run()
        started = clock()
        for _ in range(steps):
            run()
        return (clock() - started) / steps

    seconds = take_turns({name: partial(turn, run) for name, run in contestants.items()}, rounds, progress)
    return {name: Timing(tuple(times), tuple(seconds[base])) for name, times in seconds.items()}


def take_turns(
    turns: Mapping[Name, Callable[[], Result]], rounds: int, progress: Callable[[], None] = lambda: None
) -> dict[Name, list[Result]]:
    """Return what the turn of each contestant returns, round by round; in every other round the order is reversed."""
    results: dict[Name, list[Result]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in list(turns)[:: -1 if number % 2 else 1]:
            results[name].append(turns[name]())
            progress()
    return results


def gain_text(figures: Mapping[str, Any]) -> str:
    """Return a gain as `Timing.gain_figures` gives it, and in brackets the least and the greatest of the rounds'."""
    low, high = (f"{100 * figures[name]:+.1f}" for name in ("gain_low", "gain_high"))
    return f"{100 * figures['gain']:+.1f}% ({low} to {high})"


def share_of_ideal(gain: float, ideal_gain: float) -> float:
    """Return the share of the arithmetic's speed-up that is reached: (1 + gain) / (1 + ideal gain)."""
    return (1 + gain) / (1 + ideal_gain)
