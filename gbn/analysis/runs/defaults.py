"""Defaults for runs that belong to no experiment: the measure they are compared by, and round targets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gbn import measures
from gbn.analysis.runs.columns import Row
from gbn.measures import Measure

if TYPE_CHECKING:
    from gbn.analysis.runs.load import Runs

#: Candidate targets for accuracies and other shares.
ROUND_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
#: Candidate targets for other measures, times powers of ten.
ROUND_STEPS = (7.0, 5.0, 3.0, 2.0, 1.5, 1.0)


def measure_of(rows: Sequence[Row]) -> str:
    """Return the key that these runs are compared by: the first of :func:`gbn.measures.ranked` that some run has."""
    ranked = measures.ranked(dict.fromkeys(key for row in rows for key in row.block.keys))
    return next((key for key in ranked if any(_has(row, key) for row in rows)), measures.DEFAULT)


def _has(row: Row, key: str) -> bool:
    """Return whether this run has a number under a key; other runs in its block may have one even if it does not."""
    return key in row.block.keys and bool(
        np.isfinite(row.block.values(key)[row.start : row.end].astype(float)).any()
    )


def round_targets(runs: "Runs") -> dict[str, tuple[float, ...]]:
    """Return for each setting the three hardest round values that all runs of the reference reached."""
    chosen, reference = {}, runs.plan.reference
    measure = measures.measure(runs.plan.measure)
    for setting in runs.plan.settings:
        peaks = []
        for seed in runs.statuses(setting, reference):
            (values,) = runs.columns(setting, reference, seed, [measure.key])
            known = measure.sign * values[np.isfinite(values)]
            peaks.append(float(known.max()) if len(known) else -np.inf)
        worst = min(peaks, default=-np.inf)
        chosen[setting] = tuple(t for t in _offered(measure) if measure.sign * t <= worst)[-3:]
    return chosen


def _offered(measure: Measure) -> Sequence[float]:
    """Return round values of a measure, easiest first."""
    if measure.share:
        return ROUND_SHARES
    return [float(f"{step}e{power}") for power in range(3, -6, -1) for step in ROUND_STEPS]
