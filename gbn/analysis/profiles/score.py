"""Several tasks at once: AlgoPerf's performance profiles, and the mean speed-up over tasks.

Dahl et al. 2023 (arXiv 2306.07179), after Dolan and Moré 2002. With t_{s,w} the time of submission s on workload w,

    r_{s,w} = t_{s,w} / min_s' t_{s',w},    rho_s(tau) = share of workloads with r_{s,w} <= tau,
    score B_s = 1 / (r_max - 1) * integral of rho_s from 1 to r_max,    r_max = 4.

Here a submission is an arm and a workload is a task (:mod:`gbn.analysis.profiles.tasks`). An arm's time on a task is
the median over seeds, where a miss counts as infinite; between two middle runs it is their geometric mean, infinite
if one of them is. So r is infinite if an arm reaches a target in no more than half of its runs, and then adds nothing
to rho at any tau. A task that no arm reaches counts in the number of tasks but adds to no arm.

The best arm of a task is the best of those profiled: profiles of different sets of arms are not comparable, and an
arm's score depends on the other arms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.combine import Summand, sum_of_independent
from gbn.analysis.estimates.estimate import LEVEL, NOTHING, Estimate
from gbn.analysis.profiles.tasks import Tasks

#: A time beyond this multiple of the best time no longer counts (AlgoPerf's choice).
R_MAX = 4.0
RESAMPLES = 2000


@dataclass(frozen=True)
class Profile:
    """An arm over all tasks.

    Attributes:
        ratios: r of each task, infinite if the arm's median run missed.
        score: the normalized integral, between 0 and 1, with a bootstrap interval over seeds (NaN with one seed).
        speedup: geometric mean over tasks of the speed-up over the reference; only bounds if a task has a miss.
        reached_speedup: the same over the tasks that no run of either arm missed; `tasks_reached` counts them.
    """

    arm: str
    ratios: tuple[float, ...]
    score: Estimate
    speedup: Estimate
    reached_speedup: Estimate
    tasks_reached: int

    def rho(self, tau: float) -> float:
        """Return the share of tasks within `tau` times the best time."""
        return sum(ratio <= tau for ratio in self.ratios) / len(self.ratios)


def profiles(
    tasks: Tasks, r_max: float = R_MAX, resamples: int = RESAMPLES, level: float = LEVEL
) -> list[Profile]:
    """Return the profile of every arm, in the tasks' order.

    The score's interval is a percentile bootstrap over seeds: in every setting seeds are drawn with replacement, the
    same for all its arms and targets (they are paired), independently of other settings. Tasks are not resampled, so
    the interval does not generalize to other tasks. With few seeds such intervals are too narrow.

    Args:
        r_max: the end of the integral, greater than 1.

    Raises:
        ValueError: `r_max` leaves nothing to integrate.
    """
    if not r_max > 1:
        raise ValueError(f"r_max={r_max}: the profile is integrated from 1 to r_max, which must be greater")
    # (arms, targets, seeds) of each setting, a miss as infinity
    highs = [
        np.array([[[time.high for time in row] for row in one.times[arm]] for arm in tasks.arms])
        for one in tasks.settings
    ]
    ratios = _ratios(np.concatenate([_medians(one) for one in highs], axis=1))
    scores = _scores(ratios, r_max)
    drawn = _bootstrap(highs, r_max, resamples)
    tail = (1 - level) / 2
    low, high = (
        np.quantile(drawn, [tail, 1 - tail], axis=0) if len(drawn) else np.full((2, len(scores)), np.nan)
    )
    n = min(len(one.seeds) for one in tasks.settings)
    made = []
    for index, arm in enumerate(tasks.arms):
        value = float(scores[index])
        score = Estimate(value, value, float(low[index]), float(high[index]), n, "bootstrap over seeds")
        whole, reached, count = _speedups(tasks, arm, level)
        made.append(Profile(arm, tuple(map(float, ratios[index])), score, whole, reached, count))
    return made


def _medians(times: np.ndarray) -> np.ndarray:
    """Return the median over the last axis: of two middle times the geometric mean, infinite if one of them is."""
    ordered = np.sort(times, axis=-1)
    n = times.shape[-1]
    low, high = ordered[..., (n - 1) // 2], ordered[..., n // 2]
    return np.where(low == high, low, np.sqrt(low) * np.sqrt(high))


def _ratios(times: np.ndarray) -> np.ndarray:
    """Return r of times (..., arms, tasks), relative to the best arm's time; all infinite if no arm reached."""
    best = times.min(axis=-2, keepdims=True)
    return np.divide(times, best, out=np.full_like(times, np.inf), where=np.isfinite(times))


def _scores(ratios: np.ndarray, r_max: float) -> np.ndarray:
    """Return the scores; the integral of the step function rho is the mean over tasks of max(r_max - r, 0)."""
    return (np.clip(r_max - ratios, 0, None) / (r_max - 1)).mean(axis=-1)


def _bootstrap(highs: Sequence[np.ndarray], r_max: float, resamples: int) -> np.ndarray:
    """Return scores (resamples, arms); none if a setting has a single seed."""
    if min(one.shape[-1] for one in highs) < 2:
        return np.empty((0, highs[0].shape[0]))
    random = np.random.default_rng(0)
    medians = []
    for one in highs:
        draws = random.integers(one.shape[-1], size=(resamples, one.shape[-1]))
        medians.append(_medians(np.moveaxis(one[..., draws], -2, 0)))
    return _scores(_ratios(np.concatenate(medians, axis=-1)), r_max)


def _speedups(tasks: Tasks, arm: str, level: float) -> tuple[Estimate, Estimate, int]:
    """Return the geometric mean of reference / arm over all tasks and those without a miss, and their number."""
    if arm == tasks.reference:
        return NOTHING, NOTHING, 0
    found = [
        [
            pairs.speedup(ours, theirs)
            for ours, theirs in zip(one.times[arm], one.times[tasks.reference], strict=True)
        ]
        for one in tasks.settings
    ]
    every = [estimate for row in found for estimate in row]
    whole = [estimate for estimate in every if not estimate.arm_misses + estimate.reference_misses]
    reached = _mean_where_reached(tasks, arm, found, level) if whole else NOTHING
    if len(whole) == len(every):
        return reached, reached, len(whole)
    lows, highs = [e.value_low for e in every], [e.value_high for e in every]
    # A task without a lower bound leaves the mean without one, whatever the others are; likewise for the upper bound.
    bottom = 0.0 if min(lows) == 0 else _geometric_mean(lows)
    top = math.inf if math.isinf(max(highs)) else _geometric_mean(highs)
    misses = sum(e.arm_misses for e in every), sum(e.reference_misses for e in every)
    n = min(estimate.n for estimate in every)
    overall = Estimate(bottom, top, math.nan, math.nan, n, "medians where missed", math.nan, *misses)
    return overall, reached, len(whole)


def _geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean: 0 if one value is 0, infinite if one is infinite and none is 0."""
    if min(values) == 0:
        return 0.0
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def _mean_where_reached(
    tasks: Tasks, arm: str, found: Sequence[Sequence[Estimate]], level: float
) -> Estimate:
    """Average with equal weight per task, first by seed over a setting's targets, since these share the seeds."""
    terms, count = [], sum(not e.arm_misses + e.reference_misses for row in found for e in row)
    for one, row in zip(tasks.settings, found, strict=True):
        logs = [
            [math.log(r.low / a.low) for a, r in zip(ours, theirs, strict=True)]
            for ours, theirs, e in zip(one.times[arm], one.times[tasks.reference], row, strict=True)
            if not e.arm_misses + e.reference_misses
        ]
        if logs:
            seeds = pairs.mean_interval(np.mean(logs, axis=0).tolist())
            terms.append(Summand(seeds.value_low, seeds.sd, seeds.n, len(logs) / count))
    total = sum_of_independent(terms, level)
    value, low, high = map(pairs.exp, (total.value, total.low, total.high))
    return Estimate(value, value, low, high, min(term.n for term in terms), "mean over tasks")
