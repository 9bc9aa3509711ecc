"""Results on a test set beside the single final number: structures, distances and good contours of a segmentation."""

import math

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.estimate import NOTHING
from gbn.analysis.tables import numbers
from gbn.analysis.tables.section import Section
from gbn.measures import Measure, companions


def beside(comparison: Comparison, setting: str) -> Section | None:
    """Return last values of the companions of the final measure; None if it has none, or no run has any."""
    measures = [one for one in companions(comparison.final) if _found(comparison, setting, one)]
    if not measures:
        return None
    rows = []
    for arm in comparison.arms(setting):
        row = [arm]
        for one in measures:
            values = [value for value in _last(comparison, setting, arm, one) if not math.isnan(value)]
            text = numbers.value(pairs.mean_interval(values) if values else NOTHING, one)
            missing = len(comparison.runs.statuses(setting, arm)) - len(values)
            row.append(text + (f" ({len(values)} runs)" if values and missing else ""))
        rows.append(tuple(row))
    return Section(
        "The test part after the last epoch: mean ± standard deviation over seeds of means over patients",
        ("arm", *(one.label.removeprefix("test ") for one in measures)),
        tuple(rows),
        (
            "With running statistics. A contour that is not found has a Dice of 0 and is not good; it has no "
            "distance, so that an APD is of the contours found.",
        ),
    )


def _found(comparison: Comparison, setting: str, one: Measure) -> bool:
    return any(
        not math.isnan(value)
        for arm in comparison.arms(setting)
        for value in _last(comparison, setting, arm, one)
    )


def _last(comparison: Comparison, setting: str, arm: str, one: Measure) -> list[float]:
    """Return the last value of each usable run, NaN for those that diverged."""
    found = []
    for seed, status in comparison.runs.statuses(setting, arm).items():
        (values,) = comparison.runs.columns(setting, arm, seed, (one.key,))
        found.append(float(values[-1]) if len(values) and status == "finished" else math.nan)
    return found
