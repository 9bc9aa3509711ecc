"""The numbers of each arm: what its runs came to (endpoints) and, over seeds, the means that a table prints.

If the data set was split, final results are values on the test set: after the last epoch, at the best value on the
validation set (what honest early stopping would deliver) and at the best on the test set (an upper bound, not a
result). Without a split (generated images) there are two: the last value, and the best of the run, which selects on
the measure itself. The mean training loss over all updates is tabled where arms have measured controls, which it was
chosen for; a claim may compare it anywhere.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gbn import measures
from gbn.analysis.comparison.times import Times
from gbn.analysis.estimates.estimate import NOTHING, Estimate
from gbn.analysis.estimates.pairs import mean_interval
from gbn.analysis.runs.load import Runs
from gbn.measures import Measure

#: The columns on a test set, which are also in the runs' summaries.
TESTED = ("last", "best_val", "best_test")
#: The columns of a measure without a test set.
UNSPLIT = ("last", "best")
_LABELS = {
    "last": "last epoch",
    "best_val": "best by validation",
    "best_test": "best on test",
    "best": "best of the run",
}

#: (setting, quantity, arm, against, unit, target or None)
Key = tuple[str, str, str, str, str, float | None]


@dataclass(frozen=True)
class Figure:
    """One number of a table.

    Attributes:
        quantity: the name of an endpoint (an arm's mean), with "_difference" for arm - against; "time_to_target" (an
            arm's median), "speedup_to_target", "speedup_to_maximum" (against / arm; the maximum is the best value,
            even if lower is better).
        target: the value of the measure, if it is a fixed one.
        unit: "updates" or "seconds"; empty for values of the measure.
        arm, against: what is compared with what; arm A/A is the reference compared with itself.
        saved: number of pairs that saved at least :data:`gbn.analysis.comparison.evidence.PUBLISHED_SAVING` (metric
            of the maximum only).
    """

    setting: str
    quantity: str
    arm: str
    estimate: Estimate
    against: str = ""
    target: float = math.nan
    unit: str = ""
    saved: int = 0

    @property
    def key(self) -> Key:
        """What the number is of, without the number: the key of a table's mapping."""
        target = None if math.isnan(self.target) else self.target
        return self.setting, self.quantity, self.arm, self.against, self.unit, target


@dataclass(frozen=True)
class Endpoint:
    """A number of each run, in addition to its times to targets.

    Attributes:
        name: of the column in :attr:`Figures.of_runs`; claims and CSVs compare ``<name>_difference``.
        label: a table's heading.
        measure: its values are of this measure.
        compared: whether arms are compared by its paired differences.
    """

    name: str
    label: str
    measure: Measure
    compared: bool = False


@dataclass(frozen=True)
class Figures:
    """The endpoints of all runs, and the numbers of each arm alone.

    Attributes:
        final: the measure of final results: the measure on the test set if there is one, else the measure itself.
        endpoints: the numbers of runs that tables show, in their order, those of final results first.
        of_runs: (setting, arm) -> one row per usable run (index: seed), one column per number; NaN if missing. Tables
            show the columns that are endpoints; a claim may compare any.
        of_arms: every number of one arm, in the order of the tables.
    """

    final: Measure
    endpoints: tuple[Endpoint, ...]
    of_runs: Mapping[tuple[str, str], pd.DataFrame]
    of_arms: Mapping[Key, Figure]

    def estimate(
        self, setting: str, quantity: str, arm: str, unit: str = "", target: float | None = None
    ) -> Estimate:
        """Return the mean of an endpoint, or the median time to a target; of no runs if there is no such number."""
        found = self.of_arms.get((setting, quantity, arm, "", unit, target))
        return NOTHING if found is None else found.estimate


def figures_of(times: Times) -> Figures:
    """Return the figures of some runs."""
    runs, measured = times.runs, times.measured
    final = final_of(runs, measured)
    endpoints = [  # a further one also needs its column in _values
        *(Endpoint(name, _LABELS[name], final, compared=name == "last") for name in columns_of(final)),
        Endpoint("area", "area under curve", measured, compared=True),
    ]
    if runs.plan.has_measured_controls:  # whose endpoint it is
        loss = measures.measure("train_loss")
        endpoints.append(
            Endpoint("training_loss", "mean training loss, lower is better", loss, compared=True)
        )
    values = {
        (setting, arm): _values(times, setting, arm, final)
        for setting in runs.plan.settings
        for arm in runs.arms(setting)
    }
    made = [
        figure for setting in runs.plan.settings for figure in _of_arms(times, setting, endpoints, values)
    ]
    return Figures(final, tuple(endpoints), values, {figure.key: figure for figure in made})


def final_of(runs: Runs, measured: Measure) -> Measure:
    """Return the measure of final results; see :attr:`Figures.final`."""
    final = measured.final
    # A run without a test accuracy has a missing value; for other measures, some tasks have no test set at all.
    return final if final.family == "accuracy" or runs.has(final.key) else measured


def columns_of(final: Measure) -> tuple[str, ...]:
    """Return the columns of final results: :data:`TESTED` on a test set, else :data:`UNSPLIT`."""
    return TESTED if final.split == "test" else UNSPLIT


def last_values(runs: Runs, setting: str, arm: str, key: str) -> list[float]:
    """Return the last value of a curve key of each usable run, by seed; NaN for those that diverged."""
    found = []
    for seed, status in runs.statuses(setting, arm).items():
        (values,) = runs.columns(setting, arm, seed, (key,))
        found.append(float(values[-1]) if len(values) and status == "finished" else math.nan)
    return found


def _of_arms(
    times: Times,
    setting: str,
    endpoints: Sequence[Endpoint],
    values: Mapping[tuple[str, str], pd.DataFrame],
) -> Iterator[Figure]:
    arms = times.runs.arms(setting)
    for arm in arms:
        for name in (one.name for one in endpoints):
            yield Figure(setting, name, arm, mean_interval(values[setting, arm][name].dropna().tolist()))
    for unit in times.units(setting):
        for target in times.targets(setting):
            for arm in arms:
                median = times.median(setting, arm, target, unit)
                yield Figure(setting, "time_to_target", arm, median, target=target, unit=unit)


def _values(times: Times, setting: str, arm: str, final: Measure) -> pd.DataFrame:
    """Return the endpoints of an arm's usable runs, one row per seed."""
    runs, seeds = times.runs, times.runs.statuses(setting, arm)
    if final.family == "accuracy" and final.split == "test":
        frame = runs.usable(setting, arm).set_index("seed")[[*TESTED]]
    else:
        rows = {seed: _of_run(runs, setting, arm, seed, times.measured, final) for seed in seeds}
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*columns_of(final)], dtype=float)
    areas = [times.curves[setting, arm, seed].area for seed in seeds]
    losses = [_training_loss(runs, setting, arm, seed) for seed in seeds]
    return frame.rename_axis("seed").assign(area=areas, training_loss=losses)


def _training_loss(runs: Runs, setting: str, arm: str, seed: int) -> float:
    """Return the mean training loss of a run over all updates; NaN if it diverged or records no training loss.

    A point of a curve holds the mean since the last point, so it counts by the updates in between.
    """
    updates, losses = runs.columns(setting, arm, seed, ("update", "train_loss"))
    since = np.diff(updates, prepend=0.0)
    trained = since > 0  # the point before the first update has no training loss
    if runs.statuses(setting, arm)[seed] == "diverged" or not trained.any():
        return math.nan
    return float(np.average(losses[trained], weights=since[trained]))


def _of_run(
    runs: Runs, setting: str, arm: str, seed: int, measured: Measure, final: Measure
) -> tuple[float, ...]:
    """Return the columns of final results of one run; "best by validation" is the best value of `measured`."""
    values, selecting = runs.columns(setting, arm, seed, (final.key, measured.key))
    diverged = runs.statuses(setting, arm)[seed] == "diverged"
    last = math.nan if diverged or not len(values) else float(values[-1])
    known = pd.Series(final.sign * values).dropna()
    best = math.nan if known.empty else float(values[known.idxmax()])
    if final.split != "test":
        return last, best
    both = pd.Series(measured.sign * selecting)[known.index].dropna()
    return last, math.nan if both.empty else float(values[both.idxmax()]), best
