"""When a run reaches an accuracy, and what is known of that time when it never does.

A run that ends without reaching the target is right-censored: its time lies beyond its last update, how far
is not known. A run that diverged never reaches it. Nothing is ever replaced by "budget + 1".
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

Interpolation = Literal["interpolated", "first"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("interpolated", "first")
Unit = Literal["updates", "seconds"]


class Time(NamedTuple):
    """What is known of a time to target: it lies in [low, high].

    Reached: low == high. Censored: low is the end of the run, high is infinite. Never (diverged): both are
    infinite.
    """

    low: float
    high: float

    @property
    def reached(self) -> bool:
        """Whether the target was reached, so that the time is known."""
        return math.isfinite(self.high)


def first_update(
    updates: Sequence[float],
    values: Sequence[float],
    target: float,
    interpolation: Interpolation = "interpolated",
) -> float | None:
    """The first update at which a curve is at or above `target`; None when it never is.

    Between the last point below and the first point at the target the curve is taken as linear in log(update)
    ("interpolated": points stand on a geometric grid, so the first point alone would be late by up to a grid
    step); "first" takes that point itself. Where the first of all points is there already, it is the answer.

    Args:
        updates: increasing, at least 0.
        values: accuracies at these updates, finite.
        target: the accuracy asked for.
        interpolation: see above.
    """
    for index, value in enumerate(values):
        if value >= target:
            if index == 0 or interpolation == "first":
                return float(updates[index])
            u0, u1, v0 = float(updates[index - 1]), float(updates[index]), values[index - 1]
            share = (target - v0) / (value - v0)
            if u0 <= 0:  # log(0): from the start, linear in the update itself
                return u0 + share * (u1 - u0)
            return u0 * (u1 / u0) ** share
    return None


def time_to_target(
    curve: pd.DataFrame,
    target: float,
    *,
    measure: str = "val_accuracy",
    unit: Unit = "updates",
    diverged: bool = False,
    interpolation: Interpolation = "interpolated",
) -> Time:
    """The time to `target` of one run.

    Args:
        curve: the run's points in order (columns update, seconds and the measure).
        target: an accuracy (fraction).
        measure: the curve's key; points without it are passed over.
        unit: "updates", or "seconds" on the training clock (linear in updates between two points).
        diverged: the run diverged, so what it has not reached it never will.
        interpolation: see :func:`first_update`.
    """
    points = measured(curve, measure)
    update = first_update(points["update"].tolist(), points[measure].tolist(), target, interpolation)
    if update is None:
        end = float("inf") if diverged or curve.empty else _at(curve, float(curve["update"].max()), unit)
        return Time(end, float("inf"))
    time = _at(curve, update, unit)
    return Time(time, time)


def measured(curve: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The points at which `measure` was taken and finite."""
    if measure not in curve or "update" not in curve:
        return pd.DataFrame({"update": pd.Series(dtype=float), measure: pd.Series(dtype=float)})
    return curve[curve[measure].notna()]


def _at(curve: pd.DataFrame, update: float, unit: Unit) -> float:
    if unit == "updates":
        return update
    return float(np.interp(update, curve["update"].to_numpy(float), curve["seconds"].to_numpy(float)))


def maximum(curve: pd.DataFrame, measure: str = "val_accuracy") -> float | None:
    """The maximum of a run's curve; None where the measure was never taken."""
    points = measured(curve, measure)
    return float(points[measure].max()) if len(points) else None


def area(curve: pd.DataFrame, measure: str = "val_accuracy") -> float:
    """The mean of the measure over log(update) between the first and the last point (trapezoids).

    On the logarithmic axis early and late training weigh the same; NaN with fewer than two points.
    """
    points = measured(curve, measure)
    points = points[points["update"] > 0]
    if len(points) < 2:
        return float("nan")
    x = np.log(points["update"].to_numpy(float))
    return float(np.trapezoid(points[measure].to_numpy(float), x) / (x[-1] - x[0]))
