"""Estimates from pairs with their uncertainty, where misses are treated as censored.

A speed-up is reference / candidate: above 1, the candidate is faster. Its estimate is the geometric mean over pairs
(same seed) with a paired t interval on log ratios. As soon as one run of a pair misses the target, the mean is
undefined: the median over pairs is used instead, a miss is a time beyond the run's end, and a value known only to lie
on one side of a number is printed that way (">= 1.3").
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain

import numpy as np

from gbn.analysis.estimates.decisions import p_of_signs, p_of_t
from gbn.analysis.estimates.estimate import INFINITY, LEVEL, NOTHING, Estimate
from gbn.analysis.estimates.targets import Time


@cache
def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution."""
    from scipy.special import stdtrit  # imported here: a table of accuracies alone needs no scipy

    return float(stdtrit(degrees, probability))


def mean_interval(values: Sequence[float], method: str = "mean", level: float = LEVEL) -> Estimate:
    """Return the mean with its t interval; a single value has none."""
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n == 0:
        return NOTHING
    center = float(x.mean())
    if n == 1:
        return Estimate(center, center, float("nan"), float("nan"), 1, method)
    sd = float(x.std(ddof=1))
    half = t_quantile(0.5 + level / 2, n - 1) * sd / math.sqrt(n)
    return Estimate(center, center, center - half, center + half, n, method, sd)


def paired_difference(arm: Sequence[float], reference: Sequence[float], level: float = LEVEL) -> Estimate:
    """Return the mean of arm - reference over pairs, with paired t interval and p; pairs with a NaN are left out."""
    differences = [a - r for a, r in zip(arm, reference, strict=True) if not math.isnan(a - r)]
    mean = mean_interval(differences, "paired t", level)
    return replace(mean, p=p_of_t(mean.value_low, mean.sd, mean.n))


def speedup(arm: Sequence[Time], reference: Sequence[Time], level: float = LEVEL) -> Estimate:
    """Return reference / arm over pairs of times; see the module's docstring.

    Args:
        arm: times of the candidate, one per pair.
        reference: times of the reference, in the same order.
        level: confidence level of the interval.

    Returns:
        If every run reached the target: geometric mean, paired t interval and p on log ratios. Otherwise the median
            over all pairs with bounds, and the sign test's interval (at 95 % from six pairs on) and p.
    """
    pairs = list(zip(arm, reference, strict=True))
    misses = sum(not a.reached for a, _ in pairs), sum(not r.reached for _, r in pairs)
    if not pairs:
        return NOTHING
    if misses == (0, 0):
        logs = mean_interval(log_ratios(arm, reference), level=level)
        center, low, high = (exp(x) for x in (logs.value_low, logs.low, logs.high))
        p = p_of_t(logs.value_low, logs.sd, logs.n)
        ratios = tuple((r.low / a.low,) * 2 for a, r in pairs)
        return Estimate(center, center, low, high, logs.n, "paired t", logs.sd, p=p, ratios=ratios)
    bounds = tuple(_ratio(a, r) for a, r in pairs)
    p = p_of_signs(*signs(bounds), len(bounds))
    return replace(median_of_bounds(bounds, *misses, level=level), p=p, ratios=bounds)


def interval_at(estimate: Estimate, level: float, ratio: bool = True) -> tuple[float, float]:
    """Return the interval of an estimate at another level; NaN if it has none.

    Args:
        estimate: of a speed-up or (if `ratio` is False) of a difference.
        level: confidence level.
        ratio: whether the estimate is a ratio, whose interval is symmetric in the logarithm.
    """
    if estimate.method == "median":
        median = median_of_bounds(estimate.ratios, level=level)
        return median.low, median.high
    if estimate.method != "paired t" or estimate.n < 2:
        return math.nan, math.nan
    half = t_quantile(0.5 + level / 2, estimate.n - 1) * estimate.sd / math.sqrt(estimate.n)
    if not ratio:
        return estimate.value_low - half, estimate.value_low + half
    return estimate.value_low / exp(half), estimate.value_low * exp(half)


def signs(ratios: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """Return how many ratios are known to lie above 1, and how many below."""
    return sum(low > 1 for low, _ in ratios), sum(high < 1 for _, high in ratios)


def log_ratios(arm: Sequence[Time], reference: Sequence[Time]) -> list[float]:
    """Return log(reference / arm), pair by pair, for runs that all reached the target.

    Raises:
        ValueError: a run missed it.
    """
    pairs = list(zip(arm, reference, strict=True))
    if not all(a.reached and r.reached for a, r in pairs):
        raise ValueError("a run missed the target, so its log ratio is not known: take the median over pairs")
    return [math.log(r.low / a.low) for a, r in pairs]


def exp(x: float) -> float:
    """Return exp(x); infinite where it would overflow, as intervals of two very noisy pairs do."""
    return INFINITY if x > 700 else math.exp(x)


def _ratio(arm: Time, reference: Time) -> tuple[float, float]:
    """Return bounds of reference / arm. If both missed, nothing is known."""
    if not arm.reached and not reference.reached:
        return 0.0, INFINITY
    low = 0.0 if math.isinf(arm.high) else reference.low / arm.high
    high = INFINITY if math.isinf(reference.high) else reference.high / arm.low
    return low, high


def median_of_bounds(
    bounds: Sequence[tuple[float, float]],
    arm_misses: int = 0,
    reference_misses: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Return the median of numbers known only by bounds, with the interval of the sign test."""
    lows, highs = sorted(low for low, _ in bounds), sorted(high for _, high in bounds)
    n = len(bounds)
    rank = sign_test_rank(n, level)
    return Estimate(
        value_low=_median(lows, 0.0),
        value_high=_median(highs, INFINITY),
        low=lows[rank - 1] if rank else float("nan"),
        high=highs[n - rank] if rank else float("nan"),
        n=n,
        method="median",
        arm_misses=arm_misses,
        reference_misses=reference_misses,
    )


def _median(ordered: Sequence[float], unknown: float) -> float:
    """Return the median; between two middle ratios, their geometric mean, so that it inverts with the ratio."""
    n = len(ordered)
    low, high = ordered[(n - 1) // 2], ordered[n // 2]
    if low == high:
        return low
    return unknown if low == 0 and math.isinf(high) else math.sqrt(low * high)


@cache
def sign_test_rank(n: int, level: float = LEVEL) -> int:
    """Return the largest k for which [x_(k), x_(n-k+1)] covers the median with probability `level`; 0 if none."""
    tail, rank = 0.0, 0
    for k in range(n // 2):
        tail += math.comb(n, k) / 2**n
        if 2 * tail > 1 - level + 1e-12:  # a level of 1 - 2/2^n is met exactly
            break
        rank = k + 1
    return rank


def f_test(groups: list[np.ndarray]) -> float:
    """Return the p value of a one-way analysis of variance; NaN without two groups or a degree of freedom."""
    k, n = len(groups), sum(map(len, groups))
    if k < 2 or n <= k:
        return math.nan
    from scipy.special import fdtrc

    mean = float(np.concatenate(groups).mean())
    between = sum(len(group) * (float(group.mean()) - mean) ** 2 for group in groups) / (k - 1)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (n - k)
    if within == 0:
        return 1.0 if between == 0 else 0.0
    return float(fdtrc(k - 1, n - k, between / within))


def smallest_ratio(sd: float, n: int) -> float:
    """Return the smallest speed-up that n pairs with this standard deviation of log ratios can distinguish from 1.

    It is the half-width of the interval as a factor: an arm's speed-up has to exceed it (or fall below its inverse)
    to be significant. NaN if it is unknown.
    """
    if n < 2 or math.isnan(sd):
        return float("nan")
    return math.exp(t_quantile(0.5 + LEVEL / 2, n - 1) * sd / math.sqrt(n))


def aa_fixed_target(times: Sequence[Time]) -> Estimate:
    """Return A/A for a fixed target: runs of the reference against other runs of the reference.

    All ordered pairs of different seeds enter. By symmetry their geometric mean is exactly 1, so only the interval is
    informative: it is that of an unpaired comparison of n runs with n other runs of the same arm. With a miss: the
    median over the ordered pairs, without an interval (the pairs share runs).
    """
    n = len(times)
    if n < 2:
        return NOTHING
    missed = sum(not time.reached for time in times)
    if not missed:
        sd = float(np.std([math.log(time.low) for time in times], ddof=1))
        half = t_quantile(0.5 + LEVEL / 2, n - 1) * sd * math.sqrt(2 / n)
        return Estimate(1.0, 1.0, math.exp(-half), math.exp(half), n, "A/A", sd)
    median = median_of_bounds([_ratio(times[j], times[i]) for i in range(n) for j in range(n) if i != j])
    return replace(
        median, low=math.nan, high=math.nan, n=n, method="A/A", arm_misses=missed, reference_misses=missed
    )


def aa_maximum(times: Sequence[Sequence[Time]]) -> Estimate:
    """Return A/A for the reference's own maximum: what an arm identical to the reference shows in that metric.

    Args:
        times: of n runs of the reference; ``times[i][j]`` is the time of run i to the maximum of run j. Each run
            reaches its own.

    Returns:
        The median over all ordered pairs. The interval is not a confidence interval: it spans the medians of the n -
            1 ways to pair each run with the run k places on, and so shows where a row of n pairs of an identical arm
            would have fallen. `arm_misses` counts among the n (n - 1) ordered pairs.
    """
    n = len(times)
    if n < 2:
        return NOTHING
    ends = chain.from_iterable(
        time for row in times for time in row
    )  # twenty times as fast as np.array(times)
    low, high = np.fromiter(ends, float, 2 * n * n).reshape(n * n, 2).T.reshape(2, n, n)
    own = np.diagonal(low)
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = own / high, own / low  # of the ratio; a miss makes the lower one 0
    runs = np.arange(n)
    shifts = [_medians(*(bound[(runs + k) % n, runs] for bound in bounds)) for k in range(1, n)]
    others = ~np.eye(n, dtype=bool)
    return Estimate(
        *_medians(*(bound[others] for bound in bounds)),
        min(lowest for lowest, _ in shifts),
        max(highest for _, highest in shifts),
        n * (n - 1),
        "A/A",
        arm_misses=int(np.isinf(high[others]).sum()),
    )


def _medians(lows: np.ndarray, highs: np.ndarray) -> tuple[float, float]:
    return _median(np.sort(lows).tolist(), 0.0), _median(np.sort(highs).tolist(), INFINITY)
