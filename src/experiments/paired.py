"""Statistics of paired differences: what a variant loses or gains against the dense model of the same seed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

CONFIDENCE = 0.95
ALPHA = 0.01  # a variant is called not worse where p is below


@dataclass(frozen=True)
class NotWorse:
    """A one-sided test of paired differences' mean: whether it excludes a loss of `allowed` or more.

    Attributes:
        allowed: The loss that is asked about, above 0.
        p: Probability of differences at least as good as these if `allowed` is lost (Student's t over the pairs).
    """

    allowed: float
    p: float

    @property
    def is_shown(self) -> bool:
        return self.p < ALPHA

    def __str__(self) -> str:
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3g}"
        return f"not worse by {self.allowed} ({p})" if self.is_shown else f"not shown ({p})"


def margin(values: Sequence[float]) -> Optional[float]:
    """Return half the width of the 95% confidence interval of a mean (Student's t); None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy import stats  # half a second, for the one quantile

    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    return float(quantile) * statistics.stdev(values) / math.sqrt(len(values))


def not_worse(differences: Sequence[float], allowed: float) -> Optional[NotWorse]:
    """Test that the mean difference is above -`allowed`; None for fewer than two pairs."""
    if len(differences) < 2:
        return None
    from scipy import stats

    above = statistics.mean(differences) + allowed
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    if error == 0:  # all pairs are equal, as of two schedules that come to the same tokens
        return NotWorse(allowed, 0.0 if above > 0 else 1.0)
    return NotWorse(allowed, float(stats.t.sf(above / error, len(differences) - 1)))


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
