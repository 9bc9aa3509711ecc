"""Formatting of estimates: never without their uncertainty, and a bound never as a number.

``>=`` and ``<=`` mark what is known despite misses; ``?`` an estimate that misses leave open on both sides; ``*`` a
difference that remains significant after its table's correction for many comparisons
(:mod:`gbn.analysis.estimates.holm`).
"""

import math
from collections.abc import Callable

from gbn.analysis.estimates.estimate import Estimate
from gbn.measures import ACCURACY, Measure

NONE = "-"


def ratio(estimate: Estimate) -> str:
    """Format a speed-up with its interval: ``1.23 [1.10, 1.37]*``, ``>= 1.5``, ``<= 0.70 [0, 0.90]``."""
    if estimate.n == 0:
        return NONE
    return _with_interval(bounded(estimate, number), estimate, number)


def difference(estimate: Estimate, measure: Measure = ACCURACY) -> str:
    """Format a difference of a measure's values with its interval, accuracies in points: ``+0.31 [-0.10, +0.72]``."""
    return change(estimate, lambda value: measure.number(value, "+"))


def change(estimate: Estimate, formatted: Callable[[float], str]) -> str:
    """Format a difference in any unit with its interval, each number by `formatted`."""
    if estimate.n == 0:
        return NONE
    return _with_interval(formatted(estimate.value_low), estimate, formatted)


def value(estimate: Estimate, measure: Measure = ACCURACY) -> str:
    """Format mean and standard deviation over runs, accuracies in percent: ``98.12 ± 0.21``; one run has none."""
    if estimate.n == 0:
        return NONE
    mean = measure.number(estimate.value_low)
    return mean if math.isnan(estimate.sd) else f"{mean} ± {measure.number(estimate.sd)}"


def duration(estimate: Estimate, unit: str) -> str:
    """Format a median time: ``412`` updates, ``3.1 s``, ``> 2,000`` if the median run never reached the target."""
    if estimate.n == 0:
        return NONE
    suffix = " s" if unit == "seconds" else ""
    if math.isinf(estimate.value_low):
        return "never"
    text = f"{estimate.value_low:,.0f}" if unit == "updates" else f"{estimate.value_low:.3g}"
    return f"{'> ' if math.isinf(estimate.value_high) else ''}{text}{suffix}"


def saving(estimate: Estimate) -> str:
    """Format the share of updates saved, 1 - 1/ratio, in percent: ``+31 %``, ``<= -12 %``."""
    if estimate.n == 0:
        return NONE
    if estimate.value_high == 0:
        return "never reached"
    return bounded(estimate, lambda value: f"{100 * (1 - 1 / value):+.0f} %")


def bounded(estimate: Estimate, text: Callable[[float], str]) -> str:
    """Format a number, or the side of a number that is known."""
    low, high = estimate.value_low, estimate.value_high
    if low == high:
        return "0 (never reached)" if low == 0 else "inf" if math.isinf(low) else text(low)
    if low == 0 and math.isinf(high):
        return "?"
    if math.isinf(high):
        return f">= {text(low)}"
    if low == 0:
        return f"<= {text(high)}"
    return f"{text(low)} to {text(high)}"


def number(value: float) -> str:
    """Format a ratio with two decimals, or three digits if it is large; 0 and inf are printed as such."""
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"


def interval(low: float, high: float, formatted: Callable[[float], str] = number) -> str:
    """Format an interval: ``[1.10, 1.37]``; ``-`` if there is none."""
    return NONE if math.isnan(low) or math.isnan(high) else f"[{formatted(low)}, {formatted(high)}]"


def p_value(p: float) -> str:
    """Format a p value: ``0.034``, ``< 0.001``, ``-`` if nothing is tested."""
    if math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _with_interval(text: str, estimate: Estimate, formatted: Callable[[float], str]) -> str:
    bracket = interval(estimate.low, estimate.high, formatted)
    return (text if bracket == NONE else f"{text} {bracket}") + "*" * estimate.decided
