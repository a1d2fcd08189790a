"""Statistics of paired differences: what a variant loses or gains against the dense model of the same seed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

CONFIDENCE = 0.95
ALPHA = 0.01  # a variant is called not worse where p is below


@dataclass(frozen=True)
class Rule:
    """What is fixed before the trainings of an experiment.

    Attributes:
        allowed: The loss of top-1, in percentage points, that a variant must exclude to be called not worse.
        pairs: The fewest pairs that say anything, at least two.
    """

    allowed: float = 1.0
    pairs: int = 2


@dataclass(frozen=True)
class NotWorse:
    """One-sided tests of paired differences' mean (Student's t): whether it excludes a loss of `allowed` or more.

    Attributes:
        allowed: The loss that is asked about, above 0.
        p: Probability of differences at least as good as these if `allowed` is lost.
        p_lost: Probability of differences at least as bad as these if nothing is lost.
    """

    allowed: float
    p: float
    p_lost: float = 1.0

    @property
    def is_shown(self) -> bool:
        return self.p < ALPHA

    @property
    def is_worse(self) -> bool:
        """Whether a loss is shown, of whatever size, and one of `allowed` is not excluded."""
        return not self.is_shown and self.p_lost < ALPHA

    def __str__(self) -> str:
        said = f"not worse by {self.allowed}" if self.is_shown else "worse" if self.is_worse else "not shown"
        p = self.p_lost if self.is_worse else self.p
        return f"{said} ({'p < 0.001' if p < 0.001 else f'p = {p:.3g}'})"


def margin(values: Sequence[float]) -> Optional[float]:
    """Return half the width of the 95% confidence interval of a mean (Student's t); None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy import stats  # half a second, for the one quantile

    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile) * statistics.stdev(values) / math.sqrt(len(values))


def not_worse(differences: Sequence[float], allowed: float) -> Optional[NotWorse]:
    """Test that the mean difference is above -`allowed`, and that it is below 0; None for fewer than two pairs."""
    if len(differences) < 2:
        return None
    losses = [-difference for difference in differences]
    return NotWorse(allowed, _p_above(differences, -allowed), _p_above(losses, 0))


def _p_above(values: Sequence[float], bound: float) -> float:
    """Return the p-value of a one-sided t test that the mean is above `bound`."""
    from scipy import stats

    above = statistics.mean(values) - bound
    error = statistics.stdev(values) / math.sqrt(len(values))
    if error == 0:  # all pairs are equal, as of two schedules that come to the same tokens
        return 0.0 if above > 0 else 1.0
    return float(stats.t.sf(above / error, len(values) - 1))


def pooled_sd(groups: Sequence[Sequence[float]]) -> Optional[float]:
    """Return the standard deviation within groups, over all of them; None if no group has two values."""
    groups = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum((len(group) - 1) * statistics.variance(group) for group in groups)
    return math.sqrt(squares / freedom) if freedom else None


def power(pairs: int, sd: float, allowed: float) -> float:
    """Return the probability that `not_worse` is shown of a variant that loses nothing.

    Args:
        pairs: At least two.
        sd: Standard deviation of the differences.
    """
    from scipy import stats

    if sd == 0:
        return 1.0
    quantile = stats.t.isf(ALPHA, pairs - 1)
    return float(stats.nct.sf(quantile, pairs - 1, allowed * math.sqrt(pairs) / sd))
