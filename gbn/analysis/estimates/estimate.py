"""An estimate with its uncertainty."""

import math
from dataclasses import dataclass, field

#: The default probability of a false decision.
ALPHA = 0.05
LEVEL = 1 - ALPHA
INFINITY = float("inf")

#: The name of the row that compares the reference with itself.
AA = "A/A"


@dataclass(frozen=True)
class Estimate:
    """An estimate known to lie in [value_low, value_high], with a confidence interval [low, high].

    Attributes:
        value_low, value_high: equal if the estimate is a number; a miss can leave only bounds.
        low, high: the interval; NaN if n is too small for one.
        n: number of pairs (or runs).
        method: "paired t", "median", "mean", or another method.
        sd: standard deviation of the log ratios, differences or values; NaN if undefined.
        arm_misses, reference_misses: how many of the n did not reach the target.
        p: two-sided p value of no difference (ratio 1, difference 0); NaN if nothing is tested.
        p_holm: the same after Holm's correction over the table (:mod:`gbn.analysis.estimates.holm`).
        holm_low, holm_high: the interval at the level at which Holm tests this row.
        holm_level: that level.
        ratios: bounds of each pair's ratio, for further statistics of a speed-up.
    """

    value_low: float
    value_high: float
    low: float
    high: float
    n: int
    method: str
    sd: float = float("nan")
    arm_misses: int = 0
    reference_misses: int = 0
    p: float = math.nan
    p_holm: float = math.nan
    holm_low: float = math.nan
    holm_high: float = math.nan
    holm_level: float = math.nan
    ratios: tuple[tuple[float, float], ...] = field(default=(), repr=False, compare=False)

    @property
    def known(self) -> bool:
        """True if a ratio is a positive number rather than a bound, zero or infinity."""
        return self.n > 0 and self.value_low == self.value_high and 0 < self.value_low < math.inf

    @property
    def decided(self) -> bool:
        """True if this row's difference is significant after the table's correction."""
        return self.p_holm <= ALPHA


NOTHING = Estimate(float("nan"), float("nan"), float("nan"), float("nan"), 0, "none")
