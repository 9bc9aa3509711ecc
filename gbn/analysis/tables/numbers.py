"""How an estimate is printed: never without its uncertainty, a bound never as a number.

``>=`` and ``<=`` mark what misses leave known; ``?`` an estimate that misses leave open on both sides; ``*`` a
difference that stands after the correction of its table for many comparisons
(:mod:`gbn.analysis.estimates.holm`).
"""

import math
from collections.abc import Callable

from gbn.analysis.estimates.estimate import Estimate
from gbn.measures import ACCURACY, Measure

NONE = "-"


def ratio(estimate: Estimate) -> str:
    """A speed-up with its interval: ``1.23 [1.10, 1.37]*``, ``>= 1.5``, ``<= 0.70 [0, 0.90]``."""
    if estimate.n == 0:
        return NONE
    return _with_interval(bounded(estimate, number), estimate, number)


def difference(estimate: Estimate, measure: Measure = ACCURACY) -> str:
    """A difference of a measure's values, of accuracies in points, with its interval: ``+0.31 [-0.10, +0.72]``."""
    return change(estimate, lambda value: measure.number(value, "+"))


def change(estimate: Estimate, formatted: Callable[[float], str]) -> str:
    """A difference in any unit with its interval, each number as `formatted` writes it."""
    if estimate.n == 0:
        return NONE
    return _with_interval(formatted(estimate.value_low), estimate, formatted)


def value(estimate: Estimate, measure: Measure = ACCURACY) -> str:
    """Mean and standard deviation over runs, of accuracies in per cent: ``98.12 ± 0.21``; one run has no spread."""
    if estimate.n == 0:
        return NONE
    mean = measure.number(estimate.value_low)
    return mean if math.isnan(estimate.sd) else f"{mean} ± {measure.number(estimate.sd)}"


def duration(estimate: Estimate, unit: str) -> str:
    """A median time: ``412`` updates, ``3.1 s``, ``> 2,000`` where the median run never reached the target."""
    if estimate.n == 0:
        return NONE
    suffix = " s" if unit == "seconds" else ""
    if math.isinf(estimate.value_low):
        return "never"
    text = f"{estimate.value_low:,.0f}" if unit == "updates" else f"{estimate.value_low:.3g}"
    return f"{'> ' if math.isinf(estimate.value_high) else ''}{text}{suffix}"


def saving(estimate: Estimate) -> str:
    """The share of updates saved, 1 - 1/ratio, in per cent: ``+31 %``, ``<= -12 %``."""
    if estimate.n == 0:
        return NONE
    if estimate.value_high == 0:
        return "never reached"
    return bounded(estimate, lambda value: f"{100 * (1 - 1 / value):+.0f} %")


def bounded(estimate: Estimate, text: Callable[[float], str]) -> str:
    """A number, or the side of a number that is known."""
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
    """A ratio with two decimals, or three digits where it is large; 0 and inf are exactly that."""
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"


def interval(low: float, high: float, formatted: Callable[[float], str] = number) -> str:
    """``[1.10, 1.37]``; ``-`` where there is none."""
    return NONE if math.isnan(low) or math.isnan(high) else f"[{formatted(low)}, {formatted(high)}]"


def p_value(p: float) -> str:
    """``0.034``, ``< 0.001``, ``-`` where nothing is tested."""
    if math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _with_interval(text: str, estimate: Estimate, formatted: Callable[[float], str]) -> str:
    bracket = interval(estimate.low, estimate.high, formatted)
    return (text if bracket == NONE else f"{text} {bracket}") + "*" * estimate.decided
