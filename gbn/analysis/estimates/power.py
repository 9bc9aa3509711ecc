"""The number of pairs that a speed-up needs: power of the paired t test and, if runs miss, of the sign test.

"No significant difference" at five seeds says little. What five seeds could have found, and how many would decide the
effect they show, tells what to do next.
"""

import math
from collections.abc import Callable
from functools import cache

from gbn.analysis.estimates.decisions import decision
from gbn.analysis.estimates.estimate import LEVEL, Estimate
from gbn.analysis.estimates.pairs import signs, t_quantile

POWER = 0.8
MOST_PRINTED = 1000
_MOST = 1_000_000


def power(n: int, sd_of_log_ratio: float, ratio: float, level: float = LEVEL, tests: int = 1) -> float:
    """Return the probability that n pairs decide a true speed-up of `ratio`, by the noncentral t distribution.

    Args:
        n: number of pairs, at least 2.
        sd_of_log_ratio: standard deviation of log(reference / arm) over pairs.
        ratio: the true speed-up; r and 1/r have the same power.
        level: level of the interval that must exclude 1.
        tests: comparisons in the family, each made at (1 - level) / tests: Holm's first and hardest step.

    Raises:
        ValueError: there is no standard deviation, the ratio is not positive, or there are fewer than two pairs or no
            test.
    """
    _check(sd_of_log_ratio, ratio, level, tests)
    if n < 2:
        raise ValueError(f"n={n}: a paired t test needs at least two pairs")
    effect = abs(math.log(ratio))
    alpha = (1 - level) / tests
    if sd_of_log_ratio == 0:
        return 1.0 if effect > 0 else alpha
    from scipy.special import nctdtr

    shift = effect / sd_of_log_ratio * math.sqrt(n)
    critical = t_quantile(1 - alpha / 2, n - 1)
    if shift > critical + 38:  # the distribution function underflows, so its complement is 1
        return 1.0
    above, below = 1 - nctdtr(n - 1, shift, critical), nctdtr(n - 1, shift, -critical)
    return float(above + (0.0 if math.isnan(below) else below))


def seeds_needed(
    sd_of_log_ratio: float,
    ratio: float,
    level: float = LEVEL,
    power: float = POWER,
    tests: int = 1,
) -> int:
    """Return the fewest pairs that decide a true speed-up of `ratio` with probability `power`.

    Args:
        sd_of_log_ratio: standard deviation of log(reference / arm) over pairs.
        ratio, level, tests: as in :func:`power`.
        power: probability of a decision.

    Returns:
        At least 2; 1,000,000 means that many or more (a ratio near 1 can need any number).

    Raises:
        ValueError: see :func:`power`; also if the power is outside (0, 1).
    """
    _check(sd_of_log_ratio, ratio, level, tests)
    if not 0 < power < 1:
        raise ValueError(f"power={power}: give a probability between 0 and 1, 0.8 for instance")
    return _fewest(lambda n: _power(n, sd_of_log_ratio, ratio, level, tests) >= power)


def smallest_effect(
    n: int, sd_of_log_ratio: float, level: float = LEVEL, power: float = POWER, tests: int = 1
) -> float:
    """Return the smallest true speed-up (> 1) that n pairs decide with probability `power`; 1/r works as well as r.

    Raises:
        ValueError: see :func:`power`.
    """
    _check(sd_of_log_ratio, 1.0, level, tests)
    if sd_of_log_ratio == 0:
        return 1.0
    low, high = 0.0, sd_of_log_ratio
    while _power(n, sd_of_log_ratio, math.exp(high), level, tests) < power:
        low, high = high, 2 * high
        if high > 700:
            return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        reached = _power(n, sd_of_log_ratio, math.exp(middle), level, tests) >= power
        low, high = (low, middle) if reached else (middle, high)
    return math.exp(high)


_power = power  # the functions above have an argument of that name


def _check(sd: float, ratio: float, level: float, tests: int) -> None:
    if not sd >= 0 or math.isinf(sd):
        raise ValueError(
            f"sd_of_log_ratio={sd}: needs the standard deviation of log ratios over two or more pairs"
        )
    if not ratio > 0 or math.isinf(ratio):
        raise ValueError(f"ratio={ratio}: a speed-up is a positive number")
    if not 0 < level < 1 or tests < 1:
        raise ValueError(f"level={level}, tests={tests}: needs a level between 0 and 1 and at least one test")


def _fewest(enough: Callable[[int], bool]) -> int:
    """Return the smallest n >= 2 with enough(n), a monotone condition; _MOST if there is none below it."""
    high = 2
    while not enough(high):
        if high >= _MOST:
            return _MOST
        high = min(2 * high, _MOST)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def sd_upper(sd: float, n: int, confidence: float = 0.8) -> float:
    """Return the upper confidence limit of a standard deviation estimated from n values (chi-squared; normal data).

    Five pairs determine their noise poorly: at 80 % confidence the true standard deviation may be 1.56 times the
    estimate, and the number of seeds 2.4 times as large.
    """
    from scipy.special import chdtri

    return sd * math.sqrt((n - 1) / float(chdtri(n - 1, confidence)))


@cache
def seeds_for_signs(share: float, level: float = LEVEL, power: float = POWER, tests: int = 1) -> int:
    """Return the fewest pairs with which the sign test decides if this share of pairs favors one side.

    Args:
        share: probability that a pair favors that side, in [0, 1]; s and 1 - s are equivalent.
        level, power, tests: as in :func:`seeds_needed`.

    Returns:
        At most 1,000,000, which also means more than that.

    Raises:
        ValueError: the share is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: give a probability between 0 and 1")
    from scipy.special import bdtr

    share, alpha, against = max(share, 1 - share), (1 - level) / tests, -1
    for n in range(1, 2 * MOST_PRINTED + 1):
        # The most pairs that may point the other way in a decided test; it grows by at most one with n.
        if 2 * (against + 1) < n and 2 * float(bdtr(against + 1, n, 0.5)) <= alpha * (1 + 1e-12):
            against += 1
        if against >= 0 and float(bdtr(against, n, 1 - share)) >= power:
            return n
    return _MOST


def share_of_signs(above: int, below: int) -> float:
    """Return the share of pairs on the majority side, by Laplace's rule of succession.

    The plain share of five pairs that agree is 1, which would make six seeds always sufficient; (k + 1) / (n + 2)
    leaves room for a pair that disagrees.
    """
    return (max(above, below) + 1) / (above + below + 2)


def advice(estimate: Estimate, level: float = LEVEL) -> str:
    """Describe what an undecided estimate needs: "inconclusive at n = 5, about 23 to 56 seeds would decide".

    Both numbers assume the speed-up as estimated. The first also assumes the noise as estimated; the second uses the
    upper 80 % confidence limit of its standard deviation, since few pairs underestimate it as often as not. If a run
    missed, the number is that of the sign test.

    Args:
        estimate: of a speed-up.
        level: level of the interval that would decide.
    """
    start = f"inconclusive at n = {estimate.n}"
    if estimate.n > 1 and estimate.method == "median":
        above, below = signs(estimate.ratios)
        if above + below == 0:
            return f"{start}: misses leave every pair open"
        needed = seeds_for_signs(share_of_signs(above, below), level)
        if needed > MOST_PRINTED:
            return f"{start}, more than {MOST_PRINTED:,} seeds would decide"
        return f"{start}, about {needed} seeds would decide by the sign test"
    if estimate.method != "paired t" or math.isnan(estimate.sd):
        return start
    needed = seeds_needed(estimate.sd, estimate.value_low, level)
    if needed > MOST_PRINTED:
        return f"{start}, more than {MOST_PRINTED:,} seeds would decide a ratio so near 1"
    worst = seeds_needed(sd_upper(estimate.sd, estimate.n), estimate.value_low, level)
    limit = f"to {worst} seeds" if worst <= MOST_PRINTED else "seeds or more"
    return f"{start}, about {needed} {limit if worst > needed else 'seeds'} would decide"


def decision_in_words(estimate: Estimate) -> str:
    """Return the decision on a speed-up after Holm; if there is none, :func:`advice` at the level of its test."""
    found = decision(estimate)
    return advice(estimate, estimate.holm_level) if found == "inconclusive" else found


def seeds_to_decide(estimate: Estimate) -> float:
    """Return how many pairs would decide a speed-up as estimated, at its level after Holm, with 80 % power.

    NaN if it is decided or that cannot be computed; 1,000,000 means that many or more.
    """
    if decision(estimate) != "inconclusive" or estimate.n < 2:
        return math.nan
    if estimate.method == "paired t":
        return seeds_needed(estimate.sd, estimate.value_low, estimate.holm_level)
    above, below = signs(estimate.ratios)
    return seeds_for_signs(share_of_signs(above, below), estimate.holm_level) if above + below else math.nan
