"""Criteria for calling an interval a result: p values, Holm's correction over a table, and what n pairs can decide.

A table with m rows shows m tests. Without any effect, each errs with probability 5 %; Holm's step-down method
(Scandinavian Journal of Statistics 6, 1979, 65-70) keeps the probability that *any* of them errs at 5 %, however the
tests depend on each other. The functions here take plain numbers, so that they can be checked by hand.
"""

import math
from collections.abc import Sequence
from typing import Literal

from gbn.analysis.estimates.estimate import ALPHA, Estimate

#: A log ratio below this is rounding error: the two arms are the same computation in exact arithmetic.
ROUNDING = 1e-9

#: If an interval lies inside [1/EQUAL, EQUAL], the two arms are equally fast for any practical purpose.
EQUAL = 1.05

Decision = Literal["faster", "slower", "equal within 5 %", "inconclusive"]


def p_of_t(mean: float, sd: float, n: int) -> float:
    """Return the two-sided p value of the t test of mean 0, given the mean and standard deviation of n values.

    NaN with fewer than two values. The interval of level 1 - a excludes 0 exactly if p < a.
    """
    if n < 2 or math.isnan(mean) or math.isnan(sd):
        return math.nan
    if abs(mean) < ROUNDING:
        return 1.0
    if sd == 0:
        return 0.0
    from scipy.special import stdtr

    return float(2 * stdtr(n - 1, -abs(mean) * math.sqrt(n) / sd))


def p_of_signs(above: int, below: int, n: int) -> float:
    """Return the two-sided p value of the sign test of median 1, given how many of n ratios are known to lie on each
    side.

    A ratio on neither side (a tie, or a miss that leaves the side open) counts against either side, so p is the
    largest over all possible sides of the open ones. NaN without a pair. The sign test's interval of level 1 - a
    (:func:`gbn.analysis.estimates.pairs.median_of_bounds`) excludes 1 exactly if p <= a.

    Raises:
        ValueError: there are more signs than pairs.
    """
    if above < 0 or below < 0 or above + below > n:
        raise ValueError(
            f"above={above}, below={below}: counts of n={n} pairs must lie between 0 and n together"
        )
    if n == 0:
        return math.nan
    against = n - max(above, below)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(against + 1)) / 2**n)


def smallest_p(n: int) -> float:
    """Return the smallest two-sided p that the sign test and the sign-flip permutation of n pairs can give: 2/2^n."""
    return 2.0 ** (1 - n) if n > 0 else math.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values in the order given: a test is decided at family level a if its own is <= a.

    NaN (a comparison without a test) stays NaN but counts in the family, since m comparisons were planned.
    """
    p, m = [float(value) for value in p_values], len(p_values)
    adjusted, highest = [math.nan] * m, 0.0
    for rank, index in enumerate(_ascending(p)):
        highest = max(highest, min(1.0, (m - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def holm_levels(p_values: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """Return the confidence level at which each test's interval agrees with Holm's procedure.

    With j tests rejected, the next is made at alpha / (m - j), fails, and ends the procedure. Its level, 1 - alpha /
    (m - j), is also that of all tests after it (which Holm does not reject either); a rejected test has the level it
    was made at. An interval of its test's level therefore excludes the null exactly if :func:`holm`'s p is at most
    alpha. These intervals agree with the decisions, but their joint coverage is less than 1 - alpha (intervals all at
    1 - alpha/m would reach it, Bonferroni).

    Args:
        p_values: two-sided; NaN counts in the family and is never rejected.
        alpha: probability of any false decision in the family.

    Raises:
        ValueError: alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha}: give a probability between 0 and 1, 0.05 for instance")
    p, m = [float(value) for value in p_values], len(p_values)
    levels, at = [math.nan] * m, alpha / m if m else alpha
    going = True
    for rank, index in enumerate(_ascending(p)):
        if going:
            at = alpha / (m - rank)
            going = p[index] <= at
        levels[index] = 1 - at
    if going:  # only tests without a p are left
        at = alpha / max(1, sum(math.isnan(value) for value in p))
    return [1 - at if math.isnan(level) else level for level in levels]


def _ascending(p: Sequence[float]) -> list[int]:
    return sorted((i for i, value in enumerate(p) if not math.isnan(value)), key=lambda i: p[i])


def pairs_for_signs(tests: int = 1, alpha: float = ALPHA) -> int:
    """Return the fewest pairs with which a sign test or sign-flip permutation can decide one of `tests` after Holm.

    All pairs must then point the same way: 2/2^n <= alpha / tests.

    Raises:
        ValueError: `tests` is below 1.
    """
    if tests < 1:
        raise ValueError(f"tests={tests}: a family has at least one test")
    n = 1
    while smallest_p(n) > alpha / tests:
        n += 1
    return n


def reach(n: int, tests: int, alpha: float = ALPHA) -> str:
    """Return a sentence that says what n pairs can decide at all after Holm over `tests` comparisons.

    The paired t test has no smallest p (its reach depends on the noise, see
    :func:`gbn.analysis.estimates.power.smallest_effect`); the sign test, which decides if a run missed, and the
    sign-flip permutation do.
    """
    alone, all_of_them = pairs_for_signs(1, alpha), pairs_for_signs(tests, alpha)
    text = (
        f"{n} pair{'s' * (n != 1)}: the smallest p of the sign test (rows with misses) and of the sign-flip "
    )
    text += f"permutation is 2/2^{n} = {smallest_p(n):.2g}; "
    need = f"{alone} pairs are needed to decide one comparison"
    need += f", {all_of_them} to decide the first of {tests} after Holm" if tests > 1 else ""
    if n < alone:
        can = "they can decide nothing here"
    elif n < all_of_them:
        can = f"they can decide a comparison alone but none after Holm over {tests}"
    else:
        can = f"they can decide after Holm over {tests}" if tests > 1 else "they can decide"
    return f"{text}{can} ({need})."


def decision(estimate: Estimate, alpha: float = ALPHA, margin: float = EQUAL) -> Decision:
    """Return the decision on an estimated speed-up: "faster", "slower", "equal within 5 %" or "inconclusive".

    It uses Holm's correction if the estimate carries one, else the estimate on its own. "Equal" requires the same
    interval to lie inside [1/margin, margin]; absence of evidence is "inconclusive".
    """
    corrected = not math.isnan(estimate.p_holm)
    p = estimate.p_holm if corrected else estimate.p
    low, high = (estimate.holm_low, estimate.holm_high) if corrected else (estimate.low, estimate.high)
    if p <= alpha:
        return "faster" if estimate.value_low > 1 else "slower"
    return "equal within 5 %" if 1 / margin <= low and high <= margin else "inconclusive"
