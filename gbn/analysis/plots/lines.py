"""The line of an arm over seeds with its pointwise interval, and its paired difference from another arm's line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gbn.analysis.comparison.times import curve_of
from gbn.analysis.estimates.estimate import LEVEL
from gbn.analysis.estimates.pairs import t_quantile
from gbn.analysis.estimates.targets import Curve, Unit
from gbn.analysis.runs.load import Runs
from gbn.measures import measure


@dataclass(frozen=True)
class Line:
    """A mean and the ends of its interval (None with one seed) at each x, in ascending order of x.

    Attributes:
        n: number of seeds (or pairs of seeds) behind the line.
        cut_by_divergence: whether some seed diverged; the line ends there, since a later mean would cover only
            survivors.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    n: int
    cut_by_divergence: bool = False


def mean_line(runs: Runs, setting: str, arm: str, key: str, unit: Unit) -> Line | None:
    """Return the mean of an arm's curve key over its seeds; None if a seed never measured it.

    Each curve is taken as linear in log(x) and read at the positions of the first one, so seeds measured at the same
    updates are averaged exactly there. The line spans the range that all seeds share.
    """
    curves = _curves(runs, setting, arm, key)
    return _line(list(curves.values()), [], unit)


def difference_line(runs: Runs, setting: str, arm: str, against: str, key: str, unit: Unit) -> Line | None:
    """Return the mean over pairs (same seed) of the arm's curve minus the other's; see :func:`mean_line`."""
    ours, theirs = (_curves(runs, setting, name, key) for name in (arm, against))
    seeds = sorted(ours.keys() & theirs.keys())
    return _line([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds], unit)


def _curves(runs: Runs, setting: str, arm: str, key: str) -> dict[int, Curve]:
    measured = measure(key)
    return {seed: curve_of(runs, setting, arm, seed, measured) for seed in runs.statuses(setting, arm)}


def _line(curves: Sequence[Curve], minus: Sequence[Curve], unit: Unit) -> Line | None:
    everything = [*curves, *minus]
    places = [_places(curve, unit) for curve in everything]
    if not places or any(len(x) == 0 for x in places):
        return None
    start, end = max(x[0] for x in places), min(x[-1] for x in places)
    if start > end:
        return None
    x = np.union1d(places[0][(places[0] > start) & (places[0] < end)], [start, end])
    read = [
        np.interp(np.log(x), np.log(at), curve.values[-len(at) :])
        for at, curve in zip(places, everything, strict=True)
    ]
    values = np.array(read[: len(curves)])
    if minus:
        values = values - np.array(read[len(curves) :])
    mean, n = values.mean(axis=0), len(curves)
    diverged = any(curve.diverged for curve in everything)
    if n == 1:
        return Line(x, mean, None, None, n, diverged)
    half = t_quantile(0.5 + LEVEL / 2, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return Line(x, mean, mean - half, mean + half, n, diverged)


def _places(curve: Curve, unit: Unit) -> np.ndarray:
    """Return the positive x at which the curve was measured (a logarithmic axis has no zero)."""
    x = curve.measured_at
    if unit == "seconds":
        x = np.interp(x, curve.updates, curve.seconds)
    return x[x > 0]
