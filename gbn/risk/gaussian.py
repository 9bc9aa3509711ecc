"""Closed forms for the standard normal variable Z, in plain Python: what the matched controls of a pair need."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_NORMAL = NormalDist()


def quantile(alpha: float) -> float:
    """Return the alpha-quantile of Z, 0 < alpha < 1."""
    return _NORMAL.inv_cdf(alpha)


def density(z: float) -> float:
    """Return the density of Z at z."""
    return math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def upper_tail(z: float) -> float:
    """Return P(Z > z), accurate far out in the tail."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def superquantile(alpha: float) -> float:
    """Return E[Z | Z above its alpha-quantile] = phi(z_alpha) / (1 - alpha)."""
    return density(quantile(alpha)) / (1.0 - alpha)


def window_mean(low: float, high: float) -> float:
    """Return the mean of Z between its low and high quantile levels, 0 <= low < high <= 1."""
    at_low = density(quantile(low)) if low > 0.0 else 0.0
    at_high = density(quantile(high)) if high < 1.0 else 0.0
    return (at_low - at_high) / (high - low)


@lru_cache(maxsize=256)
def expected_maximum(n: int) -> float:
    """Return the expected maximum of n independent copies of Z: 3.442 at n = 2,048, 4.443 at n = 131,072.

    Integrates E[max] = int_0^inf (1 - P(max <= z)) - P(max <= -z) dz by the trapezoidal rule, whose error
    vanishes for such smooth, rapidly decaying integrands.
    """
    if n < 1:
        raise ValueError(f"the expected maximum was requested for n={n} samples; n must be at least 1")
    step, top = 1.0 / 256.0, 40.0  # P(Z > 38) underflows

    def integrand(z: float) -> float:
        tail = upper_tail(z)
        below = math.exp(n * math.log1p(-tail)) if tail < 1.0 else 0.0
        return -math.expm1(n * math.log1p(-tail)) - (tail**n if below < 1.0 else 0.0)

    total = 0.5 * integrand(0.0) + math.fsum(integrand(i * step) for i in range(1, int(top / step)))
    return total * step


def expectile(tau: float) -> float:
    """Return the tau-expectile e of Z: tau E[Z - e]_+ = (1 - tau) E[e - Z]_+."""

    def excess(e: float) -> float:
        above = density(e) - e * upper_tail(e)  # E[Z - e]_+
        return tau * above - (1.0 - tau) * (above + e)

    low, high = -40.0, 40.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0.0 else (low, middle)
    return 0.5 * (low + high)


def expectile_deviation(tau: float) -> float:
    """Return sqrt(E[w (Z - e)^2]) about the expectile e, w = tau above and 1 - tau below it."""
    e = expectile(tau)
    above = (1.0 + e * e) * upper_tail(e) - e * density(e)  # E[Z - e]_+^2
    below = (1.0 + e * e) - above
    return math.sqrt(tau * above + (1.0 - tau) * below)


def huber(b: float) -> float:
    """Return E of the Huber loss of Z: z^2 / (2 b) up to b, |z| - b / 2 beyond."""
    tail = upper_tail(b)
    inside = 1.0 - 2.0 * tail - 2.0 * b * density(b)  # E[Z^2; |Z| < b]
    return inside / (2.0 * b) + 2.0 * density(b) - b * tail
