"""Speed-ups with their intervals side by side: one row per arm, one panel per target, drawn as inline SVG.

It is static, so that it prints, and uses the page's own colors. The band behind the rows is the A/A interval: what an
arm identical to the reference would show.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates.estimate import AA, Estimate
from gbn.analysis.estimates.targets import Unit
from gbn.analysis.tables import numbers

#: Beyond these factors, an interval is cut off with an arrow.
WIDEST = 16.0


@dataclass(frozen=True)
class PlacedInterval:
    """An estimate on the panel's axis; positions are percentages of its width.

    Attributes:
        value: None if only a bound, or nothing, is known.
        low, high: ends of the interval; None if there is none.
        low_cut, high_cut: whether that end lies beyond the panel.
        bound: "at least", "at most" or "" for an estimate with one known side.
        verdict: "faster", "slower" or "": on which side of 1 the whole interval lies, for this row alone.
        stands: whether the difference remains significant after Holm's correction over the table.
    """

    text: str
    value: float | None
    low: float | None
    high: float | None
    low_cut: bool
    high_cut: bool
    bound: str
    verdict: str
    stands: bool


@dataclass(frozen=True)
class Panel:
    """One target: its axis and one interval per row."""

    title: str
    ticks: tuple[tuple[float, str], ...]
    one: float
    band: tuple[float, float] | None
    rows: tuple[PlacedInterval, ...]


def arms_of(comparison: Comparison, setting: str) -> list[str]:
    """Return the rows: every arm except the reference."""
    return [arm for arm in comparison.runs.arms(setting) if arm != comparison.runs.plan.reference]


def panels(comparison: Comparison, setting: str, unit: Unit = "updates") -> list[Panel]:
    """Return one panel per fixed target; all share one axis, so that they can be compared by eye."""
    reference, arms = comparison.runs.plan.reference, arms_of(comparison, setting)
    if reference not in comparison.runs.arms(setting) or not arms:
        return []
    table = {
        target: [
            comparison.evidence.estimate(setting, "speedup_to_target", arm, reference, unit, target)
            for arm in (AA, *arms)
        ]
        for target in comparison.times.targets(setting)
    }
    reach = _reach([estimate for row in table.values() for estimate in row])
    return [_panel(comparison.measured.target(target), row, reach) for target, row in table.items()]


def _reach(estimates: Sequence[Estimate]) -> float:
    """Return the factor at the ends of the axis: everything known fits in, up to :data:`WIDEST`."""
    known = [v for e in estimates for v in (e.value_low, e.value_high, e.low, e.high)]
    logs = [abs(math.log(v)) for v in known if math.isfinite(v) and v > 0]
    return min(WIDEST, max(1.25, math.exp(max(logs, default=0.0)) * 1.05))


def _panel(target: str, estimates: Sequence[Estimate], reach: float) -> Panel:
    aa, *rest = estimates
    band = None
    if math.isfinite(aa.low) and math.isfinite(aa.high) and aa.low > 0:
        band = _place(aa.low, reach), _place(aa.high, reach)
    return Panel(target, _ticks(reach), _place(1, reach), band, tuple(interval(e, reach) for e in rest))


def interval(e: Estimate, reach: float) -> PlacedInterval:
    """Return the position of an estimate on an axis from 1/reach to reach."""
    ends = not math.isnan(e.low) and not math.isnan(e.high)
    bound, value = "", e.value_low if e.known else None
    if e.n and not e.known:
        if e.value_low > 0 and math.isinf(e.value_high):
            bound, value = "at least", e.value_low if math.isfinite(e.value_low) else reach
        elif e.value_low == 0 and math.isfinite(e.value_high):
            bound, value = "at most", e.value_high or 1 / reach
    return PlacedInterval(
        text=numbers.ratio(e),
        value=None if value is None else _place(value, reach),
        low=_place(e.low, reach) if ends else None,
        high=_place(e.high, reach) if ends else None,
        low_cut=ends and e.low < 1 / reach,
        high_cut=ends and e.high > reach,
        bound=bound,
        verdict="faster" if e.low > 1 else "slower" if e.high < 1 else "",
        stands=e.decided,
    )


def _place(ratio: float, reach: float) -> float:
    """Return the percentage from the left on a logarithmic axis, clipped to it."""
    inside = min(max(ratio, 1 / reach), reach)
    return round(50 + 50 * math.log(inside) / math.log(reach), 2)


def _ticks(reach: float) -> tuple[tuple[float, str], ...]:
    step = 2.0 if reach > 2.2 else 1.5 if reach > 1.55 else 1.2
    while step < reach and math.log(reach) / math.log(step) > 2.5:
        step *= 2
    values = [1 / step, 1.0, step]
    if step * step < reach:
        values = [1 / step**2, *values, step**2]
    return tuple((_place(value, reach), f"{value:.2g}") for value in values)
