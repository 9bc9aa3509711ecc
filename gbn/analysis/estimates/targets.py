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
        """Return the time to `target`; see :meth:`times_to`."""
        return self.times_to([target], unit, interpolation)[0]

    def times_to(
        self, targets: Sequence[float], unit: Unit = "updates", interpolation: Interpolation = "interpolated"
    ) -> list[Time]:
        """Return the times to some values of the measure, in updates or in seconds on the training clock.

        Between the last point short of the target and the first point at it, the curve is taken as linear in
        log(update) ("interpolated": evaluations lie on a geometric grid, so the first point alone would be late by up
        to a grid step); "first" returns that point itself. If the very first point is already at the target, its
        update is returned. Between two points, seconds are linear in updates.
        """
        found = self._updates_to(tuple(targets), interpolation)
        never = self.diverged or not len(self.updates)
        end = math.inf if never else float(self.updates[-1])
        lows = [end if update is None else update for update in found]
        if unit == "seconds" and len(self.updates):
            clock = np.interp(lows, self.updates, self.seconds).tolist()
            lows = [low if math.isinf(low) else at for low, at in zip(lows, clock, strict=True)]
        return [
            Time(low, math.inf if update is None else low) for low, update in zip(lows, found, strict=True)
        ]

    def _updates_to(self, targets: Sequence[float], interpolation: Interpolation) -> list[float | None]:
        """Return the first update at which the curve is at each target or better; None if it never is."""
        asked = (*targets, interpolation)
        if asked in self._found:  # kept for the other unit
            return self._found[asked]
        found: list[float | None] = []
        upward = [self._sign(target) for target in targets]
        for target, index in zip(upward, self._highest.searchsorted(upward).tolist(), strict=True):
            if index == len(self._highest):
                found.append(None)
            elif index == 0 or interpolation == "first":
                found.append(float(self.measured_at[index]))
            else:
                u0, u1 = (float(self.measured_at[place]) for place in (index - 1, index))
                v0, v1 = (float(self._upward[place]) for place in (index - 1, index))
                share = (target - v0) / (v1 - v0)
                # log(0): from the start, linear in the update itself
                found.append(u0 + share * (u1 - u0) if u0 <= 0 else u0 * (u1 / u0) ** share)
        self._found[asked] = found
        return found

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
