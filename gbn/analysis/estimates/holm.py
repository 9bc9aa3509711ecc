"""Holm's correction, table by table.

A family is everything that a reader sees at once and could pick from: all rows and targets of one table (a setting, a
quantity and a unit). Comparisons with the reference and comparisons with controls are separate families. A/A rows
test nothing.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from gbn.analysis.estimates.decisions import holm, holm_levels
from gbn.analysis.estimates.estimate import ALPHA, Estimate, Figure
from gbn.analysis.estimates.pairs import median_of_bounds, t_quantile

Key = tuple[str, str, str, bool]


def family_of(figure: Figure, reference: str) -> Key | None:
    """Return (setting, quantity, unit, against the reference) for a figure that is a test; None for any other."""
    if not figure.against or figure.estimate.method == "A/A":
        return None
    return figure.setting, figure.quantity, figure.unit, figure.against == reference


def corrected(figures: Sequence[Figure], reference: str, alpha: float = ALPHA) -> list[Figure]:
    """Return the figures in the same order, each test with Holm's p and the interval at the level Holm tests it."""
    families: dict[Key, list[int]] = defaultdict(list)
    for index, figure in enumerate(figures):
        key = family_of(figure, reference)
        if key is not None:
            families[key].append(index)
    changed = list(figures)
    for members in families.values():
        p = [figures[index].estimate.p for index in members]
        for index, adjusted, level in zip(members, holm(p), holm_levels(p, alpha), strict=True):
            estimate = figures[index].estimate
            low, high = interval(estimate, level, ratio=figures[index].quantity.startswith("speedup"))
            changed[index] = replace(
                figures[index],
                estimate=replace(estimate, p_holm=adjusted, holm_level=level, holm_low=low, holm_high=high),
            )
    return changed


def interval(estimate: Estimate, level: float, ratio: bool = True) -> tuple[float, float]:
    """Return the interval of an estimate at another level; NaN if it has none.

    Args:
        estimate: of a speed-up or (if `ratio` is False) of a difference.
        level: confidence level.
        ratio: whether the estimate is a ratio, whose interval is symmetric in the logarithm.
    """
    if estimate.method == "median":
        median = median_of_bounds(estimate.ratios, level=level)
        return median.low, median.high
    if estimate.method != "paired t" or estimate.n < 2:
        return math.nan, math.nan
    half = t_quantile(0.5 + level / 2, estimate.n - 1) * estimate.sd / math.sqrt(estimate.n)
    if not ratio:
        return estimate.value_low - half, estimate.value_low + half
    factor = math.inf if half > 700 else math.exp(half)
    return estimate.value_low / factor, estimate.value_low * factor
