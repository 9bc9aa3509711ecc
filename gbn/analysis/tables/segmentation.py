"""What else a test set says beside its one number: structures, distances and good contours of a segmentation."""

import math

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates import pairs as statistics
from gbn.analysis.estimates.estimate import NOTHING
from gbn.analysis.tables import numbers as printed
from gbn.analysis.tables.section import Section
from gbn.measures import Measure, companions


def beside(comparison: Comparison, setting: str) -> Section | None:
    """Last values of the measures that go with the final one; None where none does, or no run has any."""
    measures = [one for one in companions(comparison.final) if _found(comparison, setting, one)]
    if not measures:
        return None
    rows = []
    for arm in comparison.arms(setting):
        row = [arm]
        for one in measures:
            values = [value for value in _last(comparison, setting, arm, one) if not math.isnan(value)]
            text = printed.value(statistics.mean_interval(values) if values else NOTHING, one)
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
    """The last value of each usable run, NaN of those that diverged."""
    found = []
    for seed, status in comparison.runs.statuses(setting, arm).items():
        (values,) = comparison.runs.columns(setting, arm, seed, (one.key,))
        found.append(float(values[-1]) if len(values) and status == "finished" else math.nan)
    return found
