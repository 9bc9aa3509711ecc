"""The result of each run: the measure at its end, at its best, and where early stopping would have ended it.

If the data set was split, all are values on the test set: after the last epoch, at the best value on the validation
set (what honest early stopping would deliver) and at the best on the test set (an upper bound, not a result). Without
a split (generated images) there are two: the last value, and the best of the run, which selects on the measure
itself.
"""

import math

import pandas as pd

from gbn.analysis.runs.load import Runs
from gbn.measures import Measure

#: The test-set columns, which are also in the runs' summaries.
TESTED = ("last", "best_val", "best_test")
#: The columns of a measure without a test set.
UNSPLIT = ("last", "best")


def columns_of(final: Measure) -> tuple[str, ...]:
    """Return the columns that exist for a measure: :data:`TESTED` on a test set, else :data:`UNSPLIT`."""
    return TESTED if final.split == "test" else UNSPLIT


def qualities(runs: Runs, setting: str, arm: str, measured: Measure, final: Measure) -> pd.DataFrame:
    """Return the columns of :func:`columns_of` for each usable run of an arm, by seed; missing values are NaN.

    Args:
        runs: the runs.
        setting, arm: which of the runs.
        measured: the measure that targets refer to; "best by validation" is the best value of it.
        final: the measure of the columns' values.
    """
    if final.family == "accuracy" and final.split == "test":
        return runs.usable(setting, arm).set_index("seed")[[*TESTED]]
    rows = {seed: _of_run(runs, setting, arm, seed, measured, final) for seed in runs.statuses(setting, arm)}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*columns_of(final)], dtype=float)
    return frame.rename_axis("seed")


def _of_run(
    runs: Runs, setting: str, arm: str, seed: int, measured: Measure, final: Measure
) -> tuple[float, ...]:
    values, selecting = runs.columns(setting, arm, seed, (final.key, measured.key))
    diverged = runs.statuses(setting, arm)[seed] == "diverged"
    last = math.nan if diverged or not len(values) else float(values[-1])
    known = pd.Series(final.sign * values).dropna()
    if final.split != "test":
        return (last, math.nan if known.empty else float(values[known.idxmax()]))
    both = pd.Series(measured.sign * selecting)[known.index].dropna()
    return (
        last,
        math.nan if both.empty else float(values[both.idxmax()]),
        math.nan if known.empty else float(values[known.idxmax()]),
    )
