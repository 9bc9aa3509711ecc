"""The numbers behind the convergence chart: for each arm its mean line and its paired difference, stored once.

Horizontal axes other than updates need no further copies: epochs and images follow from updates by one table per arm.
Only seconds, which differ from seed to seed, have their own lines, if they may be compared.
"""

from typing import Any

import numpy as np

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates.targets import Unit
from gbn.analysis.plots.lines import Line, difference_line, mean_line
from gbn.analysis.report.rounding import shorts
from gbn.measures import Measure, find

#: The maximum number of embedded points per line; a screen shows no more.
MOST_POINTS = 150


#: Keys that the chart offers first, in this order; others follow in the order of the curves.
FIRST = (
    *("val_accuracy", "val_accuracy_exact", "val_full_accuracy", "test_accuracy", "train_accuracy"),
    *("val_loss", "val_loss_exact", "test_loss", "train_loss"),
)


def measures(comparison: Comparison) -> list[Measure]:
    """Return the measures that some curve has, that of the targets first."""
    keys = dict.fromkeys((comparison.measure, *FIRST, *comparison.runs.points.keys))
    known = (find(key) for key in keys)
    return [measure for measure in known if measure is not None and comparison.has(measure.key)]


def name(measure: Measure) -> str:
    """Return the label that readers choose from: "Validation accuracy, exact statistics"."""
    text = measure.title[0].upper() + measure.title[1:]
    if measure.whole:
        return f"{text}, whole set"
    if measure.split == "validation" or measure.network:
        return f"{text}, {'exact' if measure.exact else 'running'} statistics"
    return text


def curves(comparison: Comparison, setting: str) -> dict[str, Any]:
    """Return the convergence data of a setting.

    Returns:
        ``axes``: arm -> {updates, epochs, images}; ``lines`` and ``differences``: unit -> measure -> arm -> line,
            where a line is {x, mean, low, high, n, cut}.
    """
    arms, reference = comparison.arms(setting), comparison.runs.plan.reference
    result: dict[str, Any] = {"axes": {arm: _axes(comparison, setting, arm) for arm in arms}}
    result |= {"lines": {}, "differences": {}}
    for unit in comparison.units(setting):
        for measure in measures(comparison):
            lines = {arm: mean_line(comparison, setting, arm, measure.key, unit) for arm in arms}
            _put(result["lines"], unit, measure.key, lines)
            if reference in arms and measure.family != "loss":  # a difference of losses has no natural scale
                rest = [arm for arm in arms if arm != reference]
                less = {
                    arm: difference_line(comparison, setting, arm, reference, measure.key, unit)
                    for arm in rest
                }
                _put(result["differences"], unit, measure.key, less)
    return result


def _put(into: dict[str, Any], unit: Unit, key: str, lines: dict[str, Line | None]) -> None:
    drawn = {arm: line_of(line) for arm, line in lines.items() if line is not None}
    if drawn:
        into.setdefault(unit, {})[key] = drawn


def line_of(line: Line) -> dict[str, Any]:
    """Return a line in its embedded form."""
    kept = _kept(len(line.x))
    drawn: dict[str, Any] = {"x": shorts(line.x[kept], 7), "mean": shorts(line.mean[kept]), "n": line.n}
    if line.low is not None and line.high is not None:
        drawn |= {"low": shorts(line.low[kept]), "high": shorts(line.high[kept])}
    if line.cut_by_divergence:
        drawn["cut"] = True
    return drawn


def _kept(count: int) -> np.ndarray:
    """Return the indices to keep: all of them, or as many as a screen shows, including the first and the last.

    Points lie on a geometric grid, so evenly spaced indices are evenly spaced on the logarithmic axis.
    """
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int))


def _axes(comparison: Comparison, setting: str, arm: str) -> dict[str, Any]:
    """Return epochs and images by updates, equal for every seed of an arm: the ends, and where the ratios change."""
    seed = next(iter(comparison.runs.statuses(setting, arm)))
    update, *others = comparison.runs.columns(setting, arm, seed, ("update", "epoch", "images"))
    axes: dict[str, np.ndarray] = {"updates": update}
    keep = np.zeros(len(update), dtype=bool)
    keep[[0, -1]] = True
    for name, values in zip(("epochs", "images"), others, strict=True):
        if np.isfinite(values).all():
            axes[name] = values
            ratio = values / np.maximum(update, 1)
            changes = np.abs(np.diff(ratio)) > 1e-6 * np.abs(ratio).max()
            keep[1:] |= changes
            keep[:-1] |= changes
    return {name: shorts(values[keep], 7) for name, values in axes.items()}
