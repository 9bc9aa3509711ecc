"""Sums of independent estimates, such as the logarithm of a product of ratios measured in separate experiments.

Each term is the mean of its own values, with its own variance and number of values. The variances of the means add
up. Since they need not be equal, Student's t is used with the degrees of freedom of the sum by Satterthwaite
(Biometrics Bulletin 2, 1946, 110-114) and Welch (Biometrika 34, 1947, 28-35): with v_i = (w_i sd_i)^2 / n_i they are
(sum v_i)^2 / sum(v_i^2 / (n_i - 1)), never fewer than the smallest n_i - 1, so that a term with few values that
dominates the noise also dominates the quantile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gbn.analysis.estimates.estimate import LEVEL


@dataclass(frozen=True)
class Summand:
    """The mean of `n` independent values with standard deviation `sd`, times `weight` in the sum."""

    mean: float
    sd: float
    n: int
    weight: float = 1.0


class Sum(NamedTuple):
    """A weighted sum of means: its value and its interval (NaN if a term has fewer than two values)."""

    value: float
    low: float
    high: float
    standard_error: float
    degrees: float


def sum_of_independent(terms: Sequence[Summand], level: float = LEVEL) -> Sum:
    """Return the sum of ``weight * mean`` over independent terms with its interval; see the module's docstring.

    Args:
        terms: at least one, independent of each other.
        level: confidence level of the interval.

    Raises:
        ValueError: there is no term.
    """
    if not terms:
        raise ValueError("a sum of no estimates has no interval: give at least one term")
    value = math.fsum(term.weight * term.mean for term in terms)
    if any(term.n < 2 or math.isnan(term.sd) for term in terms):
        return Sum(value, math.nan, math.nan, math.nan, math.nan)
    variances = [(term.weight * term.sd) ** 2 / term.n for term in terms]
    variance = math.fsum(variances)
    if variance == 0:
        return Sum(value, value, value, 0.0, math.inf)
    # As shares of the whole, since squares of tiny variances would underflow.
    shares = [one / variance for one in variances]
    degrees = 1 / math.fsum(share**2 / (term.n - 1) for share, term in zip(shares, terms, strict=True))
    from scipy.special import stdtrit  # imported here: most tables need no sum

    error = math.sqrt(variance)
    half = float(stdtrit(degrees, 0.5 + level / 2)) * error
    return Sum(value, value - half, value + half, error, degrees)
