"""All figures of a comparison: one :class:`Figure` for each number that a table prints.

Per setting: final results (test accuracies, or the values of another measure); updates (and seconds, if they are
comparable) to the fixed targets; the same to the reference's own best, the metric of the Mixture Normalization paper,
with its A/A row; each arm against its controls.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from gbn import measures
from gbn.analysis.comparison.qualities import columns_of, qualities
from gbn.analysis.estimates.estimate import AA, PUBLISHED_SAVING, Figure
from gbn.analysis.estimates.evidence import Evidence, evidence
from gbn.analysis.estimates.holm import corrected
from gbn.analysis.estimates.pairs import (
    aa_fixed_target,
    aa_maximum,
    mean_interval,
    median_of_bounds,
    paired_difference,
    speedup,
)
from gbn.analysis.estimates.targets import INTERPOLATIONS, Curve, Interpolation, Time, Unit
from gbn.analysis.runs.load import Runs
from gbn.measures import Measure


@dataclass(frozen=True)
class Options:
    """The way times to targets are measured.

    Attributes:
        measure: a curve key of :mod:`gbn.measures`; None means the plan's own.
        interpolation: "interpolated" between points, or the "first" point at the target.

    Raises:
        ValueError: the measure or the interpolation is unknown.
    """

    measure: str | None = None
    interpolation: Interpolation = "interpolated"

    def __post_init__(self) -> None:
        if self.measure is not None:
            measures.measure(self.measure)
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation={self.interpolation!r}: allowed are {', '.join(INTERPOLATIONS)}")


@dataclass
class Comparison:
    """The figures of a set of runs, computed on first use.

    Attributes:
        runs, options: what the figures are computed from, and how.
        measured: the measure that targets refer to; `measure` is its key.
    """

    runs: Runs
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        # This also catches a misspelled measure in a plan.
        self.measured: Measure = measures.measure(self.options.measure or self.runs.plan.measure)
        self.measure: str = self.measured.key
        self._curves: dict[tuple[str, str, int], Curve] = {}
        self._times: dict[tuple[str, str, int, Unit], dict[float, Time]] = defaultdict(dict)
        self._arm_times: dict[tuple[str, str, float, Unit], dict[int, Time]] = {}
        self._maxima: dict[str, dict[int, float]] = {}
        self._values: dict[tuple[str, str], pd.DataFrame] = {}
        self._evidence: dict[Figure, Evidence] = {}

    @property
    def selection(self) -> dict[str, Any]:
        """How to make this comparison again: goes into the files that come of it."""
        return {
            **self.runs.plan.selection,
            "source": self.runs.source,
            "measure": self.measure,
            "interpolation": self.options.interpolation,
        }

    @cached_property
    def final(self) -> Measure:
        """The measure of final results: the measure on the test set if there is one, else the measure itself."""
        final = self.measured.final
        # A run without a test accuracy has a missing value; for other measures, some tasks have no test set at all.
        return final if final.family == "accuracy" or self.has(final.key) else self.measured

    def has(self, key: str) -> bool:
        """Return whether some usable run has a number under this key of its curve."""
        runs = self.runs
        return key in runs.points.keys and any(
            pd.notna(runs.columns(setting, arm, seed, [key])[0]).any()
            for setting in runs.plan.settings
            for arm in self.arms(setting)
            for seed in runs.statuses(setting, arm)
        )

    @cached_property
    def figures(self) -> list[Figure]:
        """Every figure in the order of the tables, with Holm's correction applied within each table."""
        made = [figure for setting in self.runs.plan.settings for figure in self._setting(setting)]
        return corrected(made, self.runs.plan.reference)

    @cached_property
    def lookup(self) -> dict[tuple[str, str, str, str, str, float], Figure]:
        """The figures by (setting, quantity, arm, against, unit, target or -1)."""
        return {
            (f.setting, f.quantity, f.arm, f.against, f.unit, -1.0 if math.isnan(f.target) else f.target): f
            for f in self.figures
        }

    def evidence(self, figure: Figure) -> Evidence:
        """Return the evidence for a speed-up (computed once, since several formats print it)."""
        if figure not in self._evidence:
            # Computed for all rows of the table at once, since they share resamples.
            others = () if self._evidence else self.figures
            made = [f for f in others if f.quantity.startswith("speedup") and f.estimate.n and f.arm != AA]
            made = [figure, *(f for f in made if f != figure)]
            self._evidence.update(zip(made, evidence([f.estimate for f in made]), strict=True))
        return self._evidence[figure]

    def seconds_reason(self, setting: str) -> str | None:
        """Return why seconds of this setting are not compared; None if they are."""
        done = self.runs.runs
        done = done[(done.setting == setting) & done.status.isin(["finished", "diverged"])]
        if (done.clock != "exclusive").any():
            shared = int((done.clock != "exclusive").sum())
            return f"shared clock ({shared} of {len(done)} runs shared their machine with other work)"
        if len(done.machine.unique()) > 1:
            return f"mixed devices ({'; '.join(sorted(done.machine.unique()))})"
        if len(done.threads.unique()) > 1:
            return "different numbers of threads"
        if not self._clocked:
            return "no training clock in the curves"
        return None

    @cached_property
    def _clocked(self) -> bool:
        return self.runs.points.complete("seconds")

    def units(self, setting: str) -> list[Unit]:
        """Return the units in which this setting is compared."""
        return ["updates"] if self.seconds_reason(setting) else ["updates", "seconds"]

    def targets(self, setting: str) -> tuple[float, ...]:
        """Return the fixed targets of a setting, easiest first; empty if they are values of another measure."""
        plan = self.runs.plan
        same = self.measured.comparable(measures.measure(plan.measure))
        return self.measured.ordered(plan.targets.get(setting, ())) if same else ()

    def arms(self, setting: str) -> list[str]:
        """Return the arms of a setting that have a usable run, in the plan's order."""
        return [arm for arm in self.runs.plan.arms(setting) if len(self.runs.usable(setting, arm))]

    def curve(self, setting: str, arm: str, seed: int) -> Curve:
        """Return the curve of a usable run in the selected measure."""
        key = (setting, arm, seed)
        if key not in self._curves:
            updates, seconds, values = self.runs.columns(*key, ("update", "seconds", self.measure))
            diverged = self.runs.statuses(setting, arm)[seed] == "diverged"
            self._curves[key] = Curve.of_columns(
                updates, seconds, values, diverged, self.measured.higher_is_better
            )
        return self._curves[key]

    def time(self, setting: str, arm: str, seed: int, target: float, unit: Unit) -> Time:
        """Return one run's time to a target."""
        known = self._times[setting, arm, seed, unit]
        if target not in known:  # all targets together, since one search costs about as much as many
            peak = self.peaks(setting).get(seed, target)
            wanted = dict.fromkeys((target, peak, *self.targets(setting)))
            times = self.curve(setting, arm, seed).times_to([*wanted], unit, self.options.interpolation)
            known.update(zip(wanted, times, strict=True))
        return known[target]

    def times(self, setting: str, arm: str, target: float, unit: Unit) -> dict[int, Time]:
        """Return the times to a target of all usable runs of an arm, by seed."""
        key = (setting, arm, target, unit)
        if key not in self._arm_times:
            seeds = self.runs.statuses(setting, arm)
            self._arm_times[key] = {seed: self.time(setting, arm, seed, target, unit) for seed in seeds}
        return self._arm_times[key]

    def pairs(self, setting: str, arm: str, against: str) -> list[int]:
        """Return the seeds that both arms have, each on a single machine (see :mod:`gbn.analysis.runs.load`)."""
        return sorted(self.runs.statuses(setting, arm).keys() & self.runs.statuses(setting, against).keys())

    def _setting(self, setting: str) -> Iterator[Figure]:
        reference = self.runs.plan.reference
        arms = self.arms(setting)
        for arm in arms:
            yield from self._qualities(setting, arm)
            if arm != reference and reference in arms:
                yield from self._differences(setting, arm, reference)
        for unit in self.units(setting):
            for target in self.targets(setting):
                yield from self._fixed(setting, arms, target, unit)
            if reference in arms:
                yield from self._maximum(setting, arms, unit)
        for arm, controls in self.runs.plan.controls.items():
            for control in controls:
                if arm in arms and control in arms:
                    yield from self._differences(setting, arm, control)
                    for unit in self.units(setting):
                        for target in self.targets(setting):
                            yield self._speedup(setting, arm, control, target, unit)

    def values(self, setting: str, arm: str) -> pd.DataFrame:
        """Return last, best (see :mod:`.qualities`) and area of each usable run of an arm, by seed."""
        key = (setting, arm)
        if key not in self._values:
            usable = qualities(self.runs, setting, arm, self.measured, self.final)
            areas = [self.curve(setting, arm, seed).area for seed in self.runs.statuses(setting, arm)]
            self._values[key] = usable.assign(area=areas)
        return self._values[key]

    def training_losses(self, setting: str, arm: str) -> pd.DataFrame:
        """Return the mean training loss over all updates of each usable run of an arm, by seed: ``training_loss``.

        A point of a curve holds the mean since the last point, so it counts by the updates in between. NaN for a run
        that diverged or that records no training loss.
        """
        means = {}
        for seed, status in self.runs.statuses(setting, arm).items():
            updates, losses = self.runs.columns(setting, arm, seed, ("update", "train_loss"))
            since = np.diff(updates, prepend=0.0)
            trained = since > 0  # the point before the first update has no training loss
            whole = status == "finished" and bool(trained.any())
            means[seed] = float(np.average(losses[trained], weights=since[trained])) if whole else math.nan
        return pd.DataFrame({"training_loss": means}, dtype=float).rename_axis("seed")

    def _qualities(self, setting: str, arm: str) -> Iterator[Figure]:
        values = self.values(setting, arm)
        for quantity in (*columns_of(self.final), "area"):
            estimate = mean_interval(values[quantity].dropna().tolist())
            yield Figure(setting, quantity, arm, estimate)

    def _differences(self, setting: str, arm: str, against: str) -> Iterator[Figure]:
        seeds = self.pairs(setting, arm, against)
        ours, theirs = (self.values(setting, name).loc[seeds] for name in (arm, against))
        for quantity in ("last", "area"):
            estimate = paired_difference(ours[quantity].tolist(), theirs[quantity].tolist())
            yield Figure(setting, f"{quantity}_difference", arm, estimate, against)

    def _fixed(self, setting: str, arms: Sequence[str], target: float, unit: Unit) -> Iterator[Figure]:
        reference = self.runs.plan.reference
        for arm in arms:
            times = self._all_times(setting, arm, target, unit)
            missed = sum(not time.reached for time in times)
            median = median_of_bounds(times, arm_misses=missed)
            yield Figure(setting, "time_to_target", arm, median, target=target, unit=unit)
            if arm == reference:
                estimate = aa_fixed_target(times)
                yield Figure(setting, "speedup_to_target", AA, estimate, reference, target, unit)
            elif reference in arms:
                yield self._speedup(setting, arm, reference, target, unit)

    def _all_times(self, setting: str, arm: str, target: float, unit: Unit) -> list[Time]:
        return list(self.times(setting, arm, target, unit).values())

    def _speedup(self, setting: str, arm: str, against: str, target: float, unit: Unit) -> Figure:
        seeds = self.pairs(setting, arm, against)
        own, other = (self.times(setting, name, target, unit) for name in (arm, against))
        ours, theirs = ([times[seed] for seed in seeds] for times in (own, other))
        return Figure(setting, "speedup_to_target", arm, speedup(ours, theirs), against, target, unit)

    def _maximum(self, setting: str, arms: Sequence[str], unit: Unit) -> Iterator[Figure]:
        """Yield speed-ups in Mixture Normalization's metric: to the best that the reference reached at the pair's
        seed.
        """
        reference = self.runs.plan.reference
        peaks = self.peaks(setting)
        own = {seed: self.time(setting, reference, seed, peak, unit) for seed, peak in peaks.items()}
        for arm in arms:
            if arm == reference:
                table = [self._to_peaks(setting, seed, peaks, unit) for seed in peaks]
                estimate, name = aa_maximum(table), AA
                times = [
                    (time, own[theirs])
                    for ours, row in zip(peaks, table, strict=True)
                    for theirs, time in zip(peaks, row, strict=True)
                    if ours != theirs
                ]
            else:
                seeds = [seed for seed in self.pairs(setting, arm, reference) if seed in peaks]
                times = [(self.time(setting, arm, s, peaks[s], unit), own[s]) for s in seeds]
                estimate = speedup([a for a, _ in times], [r for _, r in times])
                name = arm
            saved = sum(a.reached and a.high <= (1 - PUBLISHED_SAVING) * r.low for a, r in times)
            yield Figure(setting, "speedup_to_maximum", name, estimate, reference, unit=unit, saved=saved)

    def peaks(self, setting: str) -> dict[int, float]:
        """Return the best value of each run of the reference, by seed."""
        if setting not in self._maxima:
            reference = self.runs.plan.reference
            seeds = self.runs.statuses(setting, reference)
            maxima = {seed: self.curve(setting, reference, seed).best for seed in seeds}
            self._maxima[setting] = {seed: peak for seed, peak in maxima.items() if peak is not None}
        return self._maxima[setting]

    def _to_peaks(self, setting: str, seed: int, peaks: Mapping[int, float], unit: Unit) -> list[Time]:
        """Return the times that the reference's run at this seed took to the best values of all reference runs."""
        curve = self.curve(setting, self.runs.plan.reference, seed)
        return curve.times_to([*peaks.values()], unit, self.options.interpolation)
