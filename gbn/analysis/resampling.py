"""The same question asked without the normal distribution: bootstrap intervals and the sign-flip permutation.

They stand beside the primary interval (paired t on log ratios) to show what it rests on, and do not replace it: with
five pairs a nominal 95 % bootstrap interval covers about 84 % (``scripts/validate_statistics.py`` measures that), and
the sign-flip permutation cannot give a p below 2/2^5 = 0.06.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gbn.analysis.decisions import ROUNDING
from gbn.analysis.statistics import LEVEL

RESAMPLES = 9999
#: Up to this many pairs all 2^n sign patterns are counted (16,384 at 14).
EXACT_UP_TO = 14

Interval = tuple[float, float]
_NONE: Interval = (math.nan, math.nan)


@dataclass(frozen=True)
class Bootstrap:
    """Bootstrap intervals of a geometric mean ratio.

    Attributes:
        percentile: quantiles of the resampled geometric means.
        bca: bias-corrected and accelerated (Efron, Journal of the American Statistical Association 82, 1987).
    """

    percentile: Interval = _NONE
    bca: Interval = _NONE


def bootstrap(
    log_ratios: Sequence[float], level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Bootstrap:
    """Intervals of exp(mean(log ratios)) over resampled pairs, by :func:`scipy.stats.bootstrap`.

    Args:
        log_ratios: log(reference / arm), one a pair; fewer than two have no interval.
        level: confidence level.
        resamples: how many.
        seed: of the resampling, so that a table can be made again digit by digit.
    """
    x = np.asarray(log_ratios, dtype=float)
    if len(x) < 2:
        return Bootstrap()
    if np.ptp(x) < ROUNDING:  # every resample is the same
        ratio = math.exp(float(x.mean()))
        return Bootstrap((ratio, ratio), (ratio, ratio))
    from scipy.stats import bootstrap as resample

    rng, found = np.random.default_rng(seed), []
    result = None
    for method in ("percentile", "BCa"):  # the second takes the first one's resamples
        result = resample(
            (x,), np.mean, n_resamples=0 if result else resamples, confidence_level=level,
            method=method, rng=rng, bootstrap_result=result, vectorized=True,
        )  # fmt: skip
        low, high = result.confidence_interval
        found.append((math.exp(low), math.exp(high)))
    return Bootstrap(*found)


def sign_flip(
    log_ratios: Sequence[float], exact_up_to: int = EXACT_UP_TO, draws: int = 20_000, seed: int = 0
) -> float:
    """Two-sided p of the sign-flip permutation test of mean log ratio 0 (Fisher's, for paired data).

    Where an arm is as fast as the reference, a pair's log ratio is as likely x as -x. The p is the share of sign
    patterns whose sum is at least as far from 0 as the observed one: of all 2^n up to `exact_up_to` pairs, else of
    `draws` random ones and the observed. It cannot be below :func:`gbn.analysis.decisions.smallest_p` of n.

    Returns:
        NaN with no pair.
    """
    x = np.asarray(log_ratios, dtype=float)
    n = len(x)
    if n == 0:
        return math.nan
    observed = abs(float(x.sum()))
    if n <= exact_up_to:
        return float(np.mean(_as_far(_patterns(n) @ x, observed)))
    rng = np.random.default_rng(seed)
    sums = (2 * rng.integers(0, 2, (draws, n)) - 1) @ x
    return (1 + int(np.sum(_as_far(sums, observed)))) / (1 + draws)


def _as_far(sums: np.ndarray, observed: float) -> np.ndarray:
    """Which sums are as far from 0; equal ones differ by rounding."""
    return np.abs(sums) >= observed * (1 - ROUNDING)


@lru_cache(maxsize=EXACT_UP_TO)
def _patterns(n: int) -> np.ndarray:
    """All sign patterns of n pairs: (2^n, n) of +-1."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    return 2.0 * bits - 1
