"""When a run reaches an accuracy, and what is known of that time when it never does.

A run that ends without reaching the target is right-censored: its time lies beyond its last update, how far
is not known. A run that diverged never reaches it. Nothing is ever replaced by "budget + 1".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Curve:
    """One run's curve of one measure, ready for many questions.

    Attributes:
        updates, seconds: of all points, increasing (seconds are NaN where no clock was kept).
        measured_at, values: the points at which the measure was taken and finite.
        diverged: the run diverged, so what it has not reached it never will.
    """

    updates: np.ndarray
    seconds: np.ndarray
    measured_at: np.ndarray
    values: np.ndarray
    diverged: bool = False

    @classmethod
    def of(cls, points: pd.DataFrame, measure: str = "val_accuracy", diverged: bool = False) -> "Curve":
        """The curve of a frame of points (columns update, seconds and the measure, any of which may lack)."""
        ordered = points.sort_values("update") if "update" in points else points.iloc[:0]
        updates, seconds, values = (
            ordered[name].to_numpy(float) if name in ordered else np.full(len(ordered), np.nan)
            for name in ("update", "seconds", measure)
        )
        return cls.of_columns(updates, seconds, values, diverged)

    @classmethod
    def of_columns(
        cls, updates: np.ndarray, seconds: np.ndarray, values: np.ndarray, diverged: bool = False
    ) -> "Curve":
        """The curve of columns of equal length, `updates` increasing; NaN where something was not measured."""
        known = np.isfinite(values)
        if known.all():
            return cls(updates, seconds, updates, values, diverged)
        return cls(updates, seconds, updates[known], values[known], diverged)

    def time_to(
        self, target: float, unit: Unit = "updates", interpolation: Interpolation = "interpolated"
    ) -> Time:
        """The time to `target` (a fraction), in updates or in seconds on the training clock.

        Between two points seconds are linear in updates.
        """
        update = first_update(self.measured_at.tolist(), self.values.tolist(), target, interpolation)
        if update is not None:
            time = self._at(update, unit)
            return Time(time, time)
        if self.diverged or not len(self.updates):
            return Time(math.inf, math.inf)
        return Time(self._at(float(self.updates[-1]), unit), math.inf)

    def _at(self, update: float, unit: Unit) -> float:
        return update if unit == "updates" else float(np.interp(update, self.updates, self.seconds))

    @property
    def maximum(self) -> float | None:
        """The highest value; None where the measure was never taken."""
        return float(self.values.max()) if len(self.values) else None

    @property
    def area(self) -> float:
        """The mean of the measure over log(update) between the first and the last point (trapezoids).

        On the logarithmic axis early and late training weigh the same; NaN with fewer than two points.
        """
        positive = self.measured_at > 0
        x, y = np.log(self.measured_at[positive]), self.values[positive]
        return float(np.trapezoid(y, x) / (x[-1] - x[0])) if len(x) > 1 else math.nan
