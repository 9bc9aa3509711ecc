"""Times to a target as survival data: runs that miss it are right-censored.

A run that ends without reaching the target is censored at its end. A run that diverged never reaches it: it stays at
risk to the end (it is not a lost observation, and dropping it would flatter the arm). "Survival" S(t) is the share of
runs that have not reached the target by t; an arm is faster where its curve is lower.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gbn.analysis.estimates.estimate import LEVEL, NOTHING, Estimate
from gbn.analysis.estimates.pairs import paired_difference
from gbn.analysis.estimates.targets import Time

_HALF = 0.5 + 1e-9  # a product of fractions that equals one half may be off by rounding


@dataclass(frozen=True)
class Survival:
    """A Kaplan-Meier curve: right-continuous steps, equal to 1 before the first time.

    Attributes:
        time: (k,) distinct times at which some run reached the target or was last seen, increasing.
        survival: (k,) share of runs that have not reached the target by then.
        low, high: (k,) pointwise interval: Greenwood's variance on the scale of log(-log S); NaN where S is 0 or 1.
        at_risk, events: (k,) runs not yet done just before each time, and runs that reach the target at it.
        n, misses: number of runs, and of those that did not reach the target.
        never: number of misses that diverged.
        level: confidence level.
    """

    time: np.ndarray
    survival: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray
    n: int
    misses: int
    never: int
    level: float

    @property
    def median(self) -> float | None:
        """The first time at which half of the runs or more have reached the target; None if they never do."""
        return _first(self.time, self.survival <= _HALF)

    @property
    def median_interval(self) -> tuple[float | None, float | None]:
        """The times at which the interval's ends cross one half (Brookmeyer and Crowley, Biometrics 38, 1982).

        None if an end never crosses it; for the upper end, the data then leave any later time possible.
        """
        # Where S is 0 the variance is unknown, but all runs have arrived, so both ends have.
        low = np.where(self.survival == 0, 0.0, self.low)
        high = np.where(self.survival == 0, 0.0, self.high)
        return _first(self.time, low <= _HALF), _first(self.time, high <= _HALF)

    def at(self, time: float) -> float:
        """Return S(time)."""
        index = int(np.searchsorted(self.time, time, side="right"))
        return 1.0 if index == 0 else float(self.survival[index - 1])

    @property
    def follow_up(self) -> float:
        """The time up to which the curve is known: the last event or the last end of a run.

        It is known everywhere if it reaches 0 or a run stays at risk forever.
        """
        return math.inf if self.never or self.survival[-1] == 0 else float(self.time[-1])


@dataclass(frozen=True)
class RestrictedMean:
    """The mean of min(time, horizon): the area under the survival curve up to `horizon`.

    Attributes:
        standard_error: Greenwood's; 0 if all runs are alike.
    """

    value: float
    standard_error: float
    horizon: float


def kaplan_meier(times: Sequence[Time], level: float = LEVEL) -> Survival:
    """Return the Kaplan-Meier curve of times to a target.

    Args:
        times: see :class:`gbn.analysis.estimates.targets.Time`; (inf, inf), a diverged run, counts as never.
        level: of the pointwise interval.

    Raises:
        ValueError: there is no time.
    """
    if not times:
        raise ValueError("a Kaplan-Meier curve needs at least one run's time")
    reached = [time.low for time in times if time.reached]
    finite = [time.low for time in times if math.isfinite(time.low)]
    end = max(finite, default=math.inf)
    if math.isinf(end):  # all diverged
        none = np.array([])
        return Survival(none, none, none, none, none, none, len(times), len(times), len(times), level)
    ends = [min(time.low, end) for time in times if not time.reached]
    x, at = np.unique([*reached, *ends], return_inverse=True)
    here = np.bincount(at, minlength=len(x))
    events = np.bincount(at[: len(reached)], minlength=len(x))
    at_risk = here[::-1].cumsum()[::-1]
    survival = np.cumprod(1 - events / at_risk)
    low, high = _log_log(survival, events, at_risk, level)
    never = sum(math.isinf(time.low) for time in times)
    return Survival(x, survival, low, high, at_risk, events, len(times), len(ends), never, level)


def _log_log(
    survival: np.ndarray, events: np.ndarray, at_risk: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return S ** exp(+-z se), where se is the standard error of log(-log S)."""
    from scipy.special import ndtri

    low, high = np.full(len(survival), np.nan), np.full(len(survival), np.nan)
    inside = (survival > 0) & (survival < 1)
    s = survival[inside]
    variance = np.cumsum(events[inside] / (at_risk[inside] * (at_risk[inside] - events[inside])))
    width = float(ndtri(0.5 + level / 2)) * np.sqrt(variance) / np.abs(np.log(s))
    low[inside], high[inside] = s ** np.exp(width), s ** np.exp(-width)
    return low, high


def restricted_mean(times: Sequence[Time], horizon: float) -> RestrictedMean:
    """Return the mean time to the target with each run observed up to `horizon`, and its standard error.

    Args:
        times: of one arm.
        horizon: updates or seconds, within what the runs show; see :func:`common_horizon`.

    Raises:
        ValueError: there is no time, or the horizon is not positive or beyond the follow-up (if some runs have not
            reached the target, the curve is unknown after the last of their ends).
    """
    curve = kaplan_meier(times)
    known = curve.follow_up
    if not 0 < horizon <= known:
        raise ValueError(
            f"horizon={horizon:g}: must be positive and at most {known:g}, where the last run without the target "
            "ends; take survival.common_horizon(...)"
        )
    inside = curve.time < horizon
    grid = np.concatenate([[0.0], curve.time[inside], [horizon]])
    steps = np.concatenate([[1.0], curve.survival[inside]])
    areas = np.diff(grid) * steps
    beyond = areas[::-1].cumsum()[::-1][1:]  # the area from each time to the horizon
    left = curve.at_risk[inside] * (curve.at_risk[inside] - curve.events[inside])
    # If the last run at risk reaches the target, the area after it is 0, and so is its term.
    terms = np.where(left > 0, beyond**2 * curve.events[inside] / np.maximum(left, 1), 0.0)
    return RestrictedMean(float(areas.sum()), math.sqrt(float(terms.sum())), horizon)


def common_horizon(*arms: Sequence[Time]) -> float:
    """Return the earliest end of a run that missed; up to there every run of these arms is fully known.

    Without a miss, return the latest time at which a run reached the target.
    """
    times = [time for arm in arms for time in arm]
    ends = [time.low for time in times if not time.reached and math.isfinite(time.low)]
    reached = [time.low for time in times if time.reached]
    return min(ends) if ends else max(reached, default=math.nan)


def pseudo_values(times: Sequence[Time], horizon: float) -> np.ndarray:
    """Return each run's contribution to the restricted mean theta: n theta - (n - 1) (theta without that run).

    Andersen, Hansen and Klein, Lifetime Data Analysis 10, 2004. If no run ends before the horizon, this is min(time,
    horizon) of the run itself.

    Raises:
        ValueError: see :func:`restricted_mean`; also with fewer than two runs.
    """
    n = len(times)
    if n < 2:
        raise ValueError("pseudo-values leave out one run at a time: they need two runs or more")
    whole = restricted_mean(times, horizon).value
    if all(time.reached or time.low >= horizon for time in times):
        return np.minimum([time.low for time in times], horizon)
    without = [restricted_mean([*times[:i], *times[i + 1 :]], horizon).value for i in range(n)]
    return n * whole - (n - 1) * np.array(without)


def restricted_mean_difference(
    arm: Sequence[Time], reference: Sequence[Time], horizon: float, level: float = LEVEL
) -> Estimate:
    """Return the restricted mean of the arm minus that of the reference over pairs: below 0, the arm is faster.

    The interval is a paired t interval on the differences of pseudo-values, seed by seed: each run's contribution is
    compared with its partner's, so that whatever the seeds share cancels, and runs that end before the horizon are
    handled. A bootstrap over pairs would handle them too, but its coverage is too low with few seeds.

    Returns:
        The estimate in the times' unit (method "restricted mean"); empty with fewer than two pairs.

    Raises:
        ValueError: see :func:`restricted_mean`; also if the arms have different lengths.
    """
    if len(arm) != len(reference):
        raise ValueError(f"{len(arm)} and {len(reference)} times: give one time of each arm per pair")
    if len(arm) < 2:
        return NOTHING
    ours, theirs = pseudo_values(arm, horizon), pseudo_values(reference, horizon)
    return replace(
        paired_difference(ours.tolist(), theirs.tolist(), level),
        method="restricted mean",
        arm_misses=sum(not time.reached for time in arm),
        reference_misses=sum(not time.reached for time in reference),
    )


def _first(time: np.ndarray, where: np.ndarray) -> float | None:
    index = np.flatnonzero(where)
    return float(time[index[0]]) if len(index) else None
