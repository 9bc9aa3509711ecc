"""The same question without assuming a normal distribution: bootstrap intervals and the sign-flip permutation.

They are shown next to the primary interval (paired t on log ratios) to reveal what it depends on, and do not replace
it: with five pairs a nominal 95 % bootstrap interval covers about 84 % (``scripts/validate_statistics.py`` measures
this), and the sign-flip permutation cannot give a p below 2/2^5 = 0.06.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gbn.analysis.estimates.decisions import ROUNDING
from gbn.analysis.estimates.estimate import LEVEL

RESAMPLES = 1999
#: Up to this many pairs, all 2^n sign patterns are enumerated (16,384 at 14).
EXACT_UP_TO = 14
DRAWS = 9999
_TOGETHER = 32  # rows permuted at once: enough to read the patterns rarely, few enough to use little memory

_NONE = (math.nan, math.nan)


@dataclass(frozen=True)
class Bootstrap:
    """Bootstrap intervals of a geometric mean ratio.

    Attributes:
        percentile: quantiles of the resampled geometric means.
        bca: bias-corrected and accelerated (Efron, Journal of the American Statistical Association 82, 1987).
    """

    percentile: tuple[float, float] = _NONE
    bca: tuple[float, float] = _NONE


def bootstrap(
    log_ratios: Sequence[float], level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Bootstrap:
    """Return intervals of exp(mean(log ratios)) over resampled pairs.

    Equal to :func:`scipy.stats.bootstrap` except for the resamples drawn (a test compares them). Every row of a table
    with n pairs uses the same resamples, which allows a thousand rows per second.

    Args:
        log_ratios: log(reference / arm), one per pair; fewer than two have no interval.
        level: confidence level.
        resamples: number of resamples.
        seed: of the resampling, so that a table can be reproduced digit by digit.
    """
    x = np.asarray(log_ratios, dtype=float)
    n = len(x)
    if n < 2:
        return Bootstrap()
    if np.ptp(x) < ROUNDING:  # all resamples are the same
        ratio = math.exp(float(x.mean()))
        return Bootstrap((ratio, ratio), (ratio, ratio))
    from scipy.special import ndtr, ndtri

    means = _weights(n, resamples, seed) @ x
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    # Bias: the rank of the estimate among the resampled ones; acceleration: the skewness of the jackknife.
    centered = x - x.mean()
    below = np.mean(means < x.mean() - ROUNDING) + np.mean(np.abs(means - x.mean()) <= ROUNDING) / 2
    bias = ndtri(np.clip(below, 1 / (resamples + 1), resamples / (resamples + 1)))
    acceleration = np.sum(centered**3) / (6 * np.sum(centered**2) ** 1.5)
    shifted = bias + ndtri(ends)
    adjusted = ndtr(bias + shifted / (1 - acceleration * shifted))
    found = np.exp(np.quantile(means, [*ends, *adjusted])).tolist()
    return Bootstrap((found[0], found[1]), (found[2], found[3]))


@lru_cache(maxsize=8)
def _weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """Return an array (resamples, n): each row holds the share of each pair in one resample."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return drawn / n


def sign_flip(
    log_ratios: Sequence[float], exact_up_to: int = EXACT_UP_TO, draws: int = DRAWS, seed: int = 0
) -> float:
    """Return the two-sided p of the sign-flip permutation test of mean log ratio 0 (Fisher's, for paired data).

    If an arm is as fast as the reference, a pair's log ratio is as likely to be x as -x. The p value is the share of
    sign patterns whose sum is at least as far from 0 as the observed one: among all 2^n for up to `exact_up_to`
    pairs, else among `draws` random ones and the observed one. It cannot be below
    :func:`gbn.analysis.estimates.decisions.smallest_p` of n.

    Returns:
        NaN without a pair.
    """
    return sign_flips([log_ratios], exact_up_to, draws, seed)[0]


def sign_flips(
    rows: Sequence[Sequence[float]], exact_up_to: int = EXACT_UP_TO, draws: int = DRAWS, seed: int = 0
) -> list[float]:
    """Return :func:`sign_flip` of many rows; rows with equally many pairs share their sign patterns."""
    found = [math.nan] * len(rows)
    alike: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        alike[len(row)].append(index)
    alike.pop(0, None)
    for n, members in alike.items():
        exact = n <= exact_up_to
        patterns = _patterns(n) if exact else _random_patterns(n, draws, seed)
        for start in range(0, len(members), _TOGETHER):
            block = members[start : start + _TOGETHER]
            x = np.array([rows[index] for index in block], dtype=float)
            # as far from 0 as observed; equal sums differ by rounding
            observed = np.abs(x.sum(axis=1)) * (1 - ROUNDING) - ROUNDING
            far = np.sum(np.abs(patterns @ x.T) >= observed, axis=0)
            for index, count in zip(block, far.tolist(), strict=True):
                found[index] = count / len(patterns) if exact else (1 + count) / (1 + draws)
    return found


@lru_cache(maxsize=EXACT_UP_TO)
def _patterns(n: int) -> np.ndarray:
    """Return all sign patterns of n pairs: (2^n, n) of +-1."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    return 2.0 * bits - 1


@lru_cache(maxsize=4)
def _random_patterns(n: int, draws: int, seed: int) -> np.ndarray:
    """Return random sign patterns: (draws, n) of +-1."""
    return 2.0 * np.random.default_rng(seed).integers(0, 2, (draws, n)) - 1
