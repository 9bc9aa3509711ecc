"""Sums of independent estimates, such as the logarithm of a product of ratios measured in separate experiments.

Each part is the mean of its own values, with its own variance and number of values. The variances of the means add
up. Since they need not be equal, Student's t is used with the degrees of freedom of the sum by Satterthwaite
(Biometrics Bulletin 2, 1946, 110-114) and Welch (Biometrika 34, 1947, 28-35): with v_i = (w_i sd_i)^2 / n_i they are
(sum v_i)^2 / sum(v_i^2 / (n_i - 1)), never fewer than the smallest n_i - 1, so that a part with few values that
dominates the noise also dominates the quantile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gbn.analysis.estimates.estimate import LEVEL


@dataclass(frozen=True)
class Part:
    """The mean of `n` independent values with standard deviation `sd`, times `weight` in the sum."""

    mean: float
    sd: float
    n: int
    weight: float = 1.0


class Sum(NamedTuple):
    """A weighted sum of means: its value and its interval (NaN if a part has fewer than two values)."""

    value: float
    low: float
    high: float
    standard_error: float
    degrees: float


def sum_of_independent(parts: Sequence[Part], level: float = LEVEL) -> Sum:
    """Return the sum of ``weight * mean`` over independent parts with its interval; see the module's docstring.

    Args:
        parts: at least one, independent of each other.
        level: confidence level of the interval.

    Raises:
        ValueError: there is no part.
    """
    if not parts:
        raise ValueError("a sum of no estimates has no interval: give at least one part")
    value = math.fsum(part.weight * part.mean for part in parts)
    if any(part.n < 2 or math.isnan(part.sd) for part in parts):
        return Sum(value, math.nan, math.nan, math.nan, math.nan)
    variances = [(part.weight * part.sd) ** 2 / part.n for part in parts]
    variance = math.fsum(variances)
    if variance == 0:
        return Sum(value, value, value, 0.0, math.inf)
    # As shares of the whole, since squares of tiny variances would underflow.
    shares = [one / variance for one in variances]
    degrees = 1 / math.fsum(share**2 / (part.n - 1) for share, part in zip(shares, parts, strict=True))
    from scipy.special import stdtrit  # imported here: most tables need no sum

    error = math.sqrt(variance)
    half = float(stdtrit(degrees, 0.5 + level / 2)) * error
    return Sum(value, value - half, value + half, error, degrees)
