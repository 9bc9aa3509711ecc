"""The time at which a run reaches a target, and what is known of it if the run never does.

A target is a value of the measure: an accuracy to reach or exceed or, if lower is better, a loss or a distance to
reach or fall below.

A run that ends without reaching the target is right-censored: its time lies at an unknown point beyond its last
update. A run that diverged never reaches it. Nothing is ever replaced by "budget + 1".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

Interpolation = Literal["interpolated", "first"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("interpolated", "first")
Unit = Literal["updates", "seconds"]


class Time(NamedTuple):
    """Bounds of a time to target, which lies in [low, high].

    Reached: low == high. Censored: low is the end of the run, high is infinite. Never (diverged): both are infinite.
    """

    low: float
    high: float

    @property
    def reached(self) -> bool:
        """True if the target was reached, so that the time is known."""
        return math.isfinite(self.high)


def first_update(
    updates: Sequence[float],
    values: Sequence[float],
    target: float,
    interpolation: Interpolation = "interpolated",
    higher_is_better: bool = True,
) -> float | None:
    """Return the first update at which a curve is at `target` or better; None if it never is.

    Between the last point short of the target and the first point at it, the curve is taken as linear in log(update)
    ("interpolated": evaluations lie on a geometric grid, so the first point alone would be late by up to a grid
    step); "first" returns that point itself. If the very first point is already at the target, its update is
    returned.

    Args:
        updates: increasing, at least 0.
        values: of the measure at these updates, finite.
        target: the value to reach.
        interpolation: see above.
        higher_is_better: whether better means at or above the target, or at or below it.
    """
    sign = 1.0 if higher_is_better else -1.0
    upward = sign * np.asarray(values, dtype=float)
    highest = np.maximum.accumulate(upward)
    return _first_updates(np.asarray(updates, dtype=float), highest, upward, [sign * target], interpolation)[
        0
    ]


def _first_updates(
    updates: np.ndarray,
    highest: np.ndarray,
    values: Sequence[float] | np.ndarray,
    targets: Sequence[float],
    interpolation: Interpolation,
) -> list[float | None]:
    """Like :func:`first_update` for many targets, if higher is better; `highest` is the running maximum of values."""
    found: list[float | None] = []
    for target, index in zip(targets, highest.searchsorted(targets).tolist(), strict=True):
        if index == len(highest):
            found.append(None)
        elif index == 0 or interpolation == "first":
            found.append(float(updates[index]))
        else:
            u0, u1 = float(updates[index - 1]), float(updates[index])
            v0, value = float(values[index - 1]), float(values[index])
            share = (target - v0) / (value - v0)
            # log(0): from the start, linear in the update itself
            found.append(u0 + share * (u1 - u0) if u0 <= 0 else u0 * (u1 / u0) ** share)
    return found


@dataclass(frozen=True)
class Curve:
    """One run's curve of one measure, prepared for many queries.

    Attributes:
        updates, seconds: of all points, increasing (seconds are NaN without a clock).
        measured_at, values: the points at which the measure was taken and finite.
        diverged: whether the run diverged, so that it will never reach what it has not reached.
        higher_is_better: which direction is better.
    """

    updates: np.ndarray
    seconds: np.ndarray
    measured_at: np.ndarray
    values: np.ndarray
    diverged: bool = False
    higher_is_better: bool = True

    @classmethod
    def of(
        cls,
        points: pd.DataFrame,
        measure: str = "val_accuracy",
        diverged: bool = False,
        higher_is_better: bool = True,
    ) -> "Curve":
        """Build the curve from a frame of points (columns update, seconds and the measure, each optional)."""
        ordered = points.sort_values("update") if "update" in points else points.iloc[:0]
        updates, seconds, values = (
            ordered[name].to_numpy(float) if name in ordered else np.full(len(ordered), np.nan)
            for name in ("update", "seconds", measure)
        )
        return cls.of_columns(updates, seconds, values, diverged, higher_is_better)

    @classmethod
    def of_columns(
        cls,
        updates: np.ndarray,
        seconds: np.ndarray,
        values: np.ndarray,
        diverged: bool = False,
        higher_is_better: bool = True,
    ) -> "Curve":
        """Build the curve from columns of equal length, `updates` increasing; NaN where nothing was measured."""
        known = np.isfinite(values)
        if known.all():
            return cls(updates, seconds, updates, values, diverged, higher_is_better)
        return cls(updates, seconds, updates[known], values[known], diverged, higher_is_better)

    def time_to(
        self, target: float, unit: Unit = "updates", interpolation: Interpolation = "interpolated"
    ) -> Time:
        """Return the time to `target` (a value of the measure), in updates or in seconds on the training clock.

        Between two points, seconds are linear in updates.
        """
        return self.times_to([target], unit, interpolation)[0]

    def times_to(
        self, targets: Sequence[float], unit: Unit = "updates", interpolation: Interpolation = "interpolated"
    ) -> list[Time]:
        """Return the times to several targets; see :meth:`time_to`."""
        asked = (*targets, interpolation)
        if asked not in self._found:  # kept for the other unit
            self._found[asked] = _first_updates(
                self.measured_at, self._highest, self._upward, [*map(self._sign, targets)], interpolation
            )
        found = self._found[asked]
        never = self.diverged or not len(self.updates)
        end = math.inf if never else float(self.updates[-1])
        lows = [end if update is None else update for update in found]
        if unit == "seconds" and len(self.updates):
            clock = np.interp(lows, self.updates, self.seconds).tolist()
            lows = [low if math.isinf(low) else at for low, at in zip(lows, clock, strict=True)]
        return [
            Time(low, math.inf if update is None else low) for low, update in zip(lows, found, strict=True)
        ]

    @cached_property
    def _found(self) -> dict[tuple[float | str, ...], list[float | None]]:
        return {}

    def _sign(self, value: float) -> float:
        """Return the value if higher is better, else its negative, so that higher is always better."""
        return value if self.higher_is_better else -value

    @cached_property
    def _upward(self) -> np.ndarray:
        return self.values if self.higher_is_better else -self.values

    @cached_property
    def _highest(self) -> np.ndarray:
        return np.maximum.accumulate(self._upward)

    @property
    def best(self) -> float | None:
        """The best value (the highest, or the lowest); None if the measure was never taken."""
        return self._sign(float(self._upward.max())) if len(self.values) else None

    @property
    def area(self) -> float:
        """The mean of the measure over log(update) between the first and the last point (trapezoidal rule).

        On the logarithmic axis early and late training have equal weight; NaN with fewer than two points.
        """
        positive = self.measured_at > 0
        x, y = np.log(self.measured_at[positive]), self.values[positive]
        # the formula of np.trapezoid, without its overhead for short arrays
        return (
            float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum() / (x[-1] - x[0]))
            if len(x) > 1
            else math.nan
        )
