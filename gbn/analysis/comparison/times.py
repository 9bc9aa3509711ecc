"""Times to targets: when each run reached a value of the measure, and what that says of one arm or of two.

A speed-up is always time of the other arm / time of the arm, seed by seed.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gbn import measures
from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.estimate import LEVEL, Estimate
from gbn.analysis.estimates.targets import Curve, Interpolation, Time, Unit
from gbn.analysis.runs.load import USABLE, Runs
from gbn.measures import Measure

UNITS: tuple[Unit, ...] = ("updates", "seconds")
#: The step between the targets of :func:`speedup_curve` for a share (accuracy, Dice) ...
STEP = 0.01
#: ... and, for other measures, whose values span powers of ten, the number of targets per decade (4.7 % apart).
PER_DECADE = 50


class Pairs(NamedTuple):
    """The times of two arms over the seeds that both have."""

    seeds: tuple[int, ...]
    arm: tuple[Time, ...]
    against: tuple[Time, ...]

    def speedup(self, level: float = LEVEL) -> Estimate:
        """Return against / arm; see :func:`gbn.analysis.estimates.pairs.speedup`."""
        return pairs.speedup(self.arm, self.against, level)


@dataclass(frozen=True)
class Times:
    """The curve of each usable run, from which its time to any target is read.

    Attributes:
        runs: the runs.
        measured: the measure that targets are values of.
        interpolation: "interpolated" between points, or the "first" point at the target.
        curves: (setting, arm, seed) -> the curve in that measure.
        seconds_reasons: setting -> why its seconds are not compared; None if they are.
        known: (setting, arm, seed, unit) -> the times to the fixed targets and to the reference's best at that seed.
    """

    runs: Runs
    measured: Measure
    interpolation: Interpolation
    curves: Mapping[tuple[str, str, int], Curve]
    seconds_reasons: Mapping[str, str | None]
    known: Mapping[tuple[str, str, int, Unit], Mapping[float, Time]]

    def targets(self, setting: str) -> tuple[float, ...]:
        """Return the fixed targets of a setting, easiest first; none if they are values of another measure."""
        return _targets(self.runs, self.measured, setting)

    def units(self, setting: str) -> list[Unit]:
        """Return the units in which this setting is compared."""
        return list(UNITS[: 1 if self.seconds_reasons[setting] else 2])

    def time(self, setting: str, arm: str, seed: int, target: float, unit: Unit) -> Time:
        """Return one run's time to a target."""
        known = self.known.get((setting, arm, seed, unit), {})
        if target in known:
            return known[target]
        return self.curves[setting, arm, seed].time_to(target, unit, self.interpolation)

    def of_arm(self, setting: str, arm: str, target: float, unit: Unit) -> dict[int, Time]:
        """Return the times of all usable runs of an arm, by seed."""
        seeds = self.runs.statuses(setting, arm)
        return {seed: self.time(setting, arm, seed, target, unit) for seed in seeds}

    def median(self, setting: str, arm: str, target: float, unit: Unit) -> Estimate:
        """Return an arm's median time to a target, with its number of misses."""
        times = list(self.of_arm(setting, arm, target, unit).values())
        return pairs.median_of_bounds(times, arm_misses=sum(not time.reached for time in times))

    def bests(self, setting: str, arm: str) -> dict[int, float]:
        """Return the best value of each run of an arm that has one, by seed."""
        found = {seed: self.curves[setting, arm, seed].best for seed in self.runs.statuses(setting, arm)}
        return {seed: best for seed, best in found.items() if best is not None}

    def pairs(self, setting: str, arm: str, against: str, target: float | None, unit: Unit) -> Pairs:
        """Return the times of two arms to a target; None means the best that `against` reached at the same seed,
        the metric of the Mixture Normalization paper.
        """
        seeds = self.runs.pairs(setting, arm, against)
        bests = self.bests(setting, against) if target is None else dict.fromkeys(seeds, target)
        kept = tuple(seed for seed in seeds if seed in bests)
        ours, theirs = (
            tuple(self.time(setting, name, seed, bests[seed], unit) for seed in kept)
            for name in (arm, against)
        )
        return Pairs(kept, ours, theirs)

    def by_machine(self, setting: str, arm: str, against: str, target: float) -> dict[str, Pairs]:
        """Return the pairs that each machine has, in updates.

        A machine's rounding may change a curve but presumably not the effect. The runs of a pair share their
        machine, so whatever it does to both cancels in the ratio; :func:`heterogeneity` tests whether the effect
        itself differs between machines.
        """
        machine_of = self.machines(setting, [arm])
        whole = self.pairs(setting, arm, against, target, "updates")
        found: dict[str, list[tuple[int, Time, Time]]] = {}
        for seed, ours, theirs in zip(*whole, strict=True):
            found.setdefault(machine_of[arm, seed], []).append((seed, ours, theirs))
        return {machine: Pairs(*zip(*rows, strict=True)) for machine, rows in found.items()}

    def machines(self, setting: str, arms: Iterable[str]) -> dict[tuple[str, int], str]:
        """Return the machine (device kind, versions, kernels) of each usable run, by arm and seed."""
        return {
            (arm, int(seed)): str(machine)
            for arm in arms
            for seed, machine in self.runs.usable(setting, arm)[["seed", "machine"]].itertuples(index=False)
        }


def times_of(runs: Runs, measured: Measure, interpolation: Interpolation = "interpolated") -> Times:
    """Return the times of some runs in a measure."""
    clocked = runs.points.complete("seconds")
    reasons = {setting: _seconds_reason(runs, setting, clocked) for setting in runs.plan.settings}
    curves = {
        (setting, arm, seed): curve_of(runs, setting, arm, seed, measured)
        for setting in reasons
        for arm in runs.arms(setting)
        for seed in runs.statuses(setting, arm)
    }
    known: dict[tuple[str, str, int, Unit], Mapping[float, Time]] = {}
    for (setting, arm, seed), curve in curves.items():
        reference = curves.get((setting, runs.plan.reference, seed))
        best = () if reference is None or reference.best is None else (reference.best,)
        # all targets together, since one search costs about as much as many
        wanted = list(dict.fromkeys((*best, *_targets(runs, measured, setting))))
        for unit in UNITS[: 1 if reasons[setting] else 2]:
            times = curve.times_to(wanted, unit, interpolation)
            known[setting, arm, seed, unit] = dict(zip(wanted, times, strict=True))
    return Times(runs, measured, interpolation, curves, reasons, known)


def curve_of(runs: Runs, setting: str, arm: str, seed: int, measured: Measure) -> Curve:
    """Return the curve of a usable run in any measure."""
    updates, seconds, values = runs.columns(setting, arm, seed, ("update", "seconds", measured.key))
    diverged = runs.statuses(setting, arm)[seed] == "diverged"
    return Curve.of_columns(updates, seconds, values, diverged, measured.higher_is_better)


def _targets(runs: Runs, measured: Measure, setting: str) -> tuple[float, ...]:
    same = measured.comparable(measures.measure(runs.plan.measure))
    return measured.ordered(runs.plan.targets.get(setting, ())) if same else ()


def _seconds_reason(runs: Runs, setting: str, clocked: bool) -> str | None:
    """Return why seconds of this setting are not compared; None if they are."""
    done = runs.runs[(runs.runs.setting == setting) & runs.runs.status.isin(USABLE)]
    if shared := int((done.clock != "exclusive").sum()):
        return f"shared clock ({shared} of {len(done)} runs shared their machine with other work)"
    if len(done.machine.unique()) > 1:
        return f"mixed devices ({'; '.join(sorted(done.machine.unique()))})"
    if len(done.threads.unique()) > 1:
        return "different numbers of threads"
    return None if clocked else "no training clock in the curves"


def heterogeneity(blocks: Iterable[Pairs]) -> float:
    """Return the p value of the F test that all machines' mean log ratios are equal.

    NaN if a run missed the target, there is only one machine, or no machine has two pairs.
    """
    blocks = list(blocks)
    if any(not time.reached for block in blocks for time in (*block.arm, *block.against)):
        return math.nan
    return pairs.f_test([np.array(pairs.log_ratios(block.arm, block.against)) for block in blocks])


def speedup_curve(
    times: Times, setting: str, arm: str, against: str, unit: Unit = "updates"
) -> list[tuple[float, Estimate]]:
    """Return (target, speed-up) for every target of :func:`thresholds`: a single threshold could be cherry-picked.

    The intervals are those of the tables, not corrected for the many targets: the curve shows whether a speed-up
    depends on the target and is not meant for finding one.

    Returns:
        An empty list if the arms share no seed.

    Raises:
        ValueError: seconds were asked for, but the seconds of these runs are not compared.
    """
    if unit not in times.units(setting):
        raise ValueError(
            f"seconds of {setting or 'these runs'} are not compared: {times.seconds_reasons[setting]}"
        )
    return [
        (target, times.pairs(setting, arm, against, target, unit).speedup())
        for target in thresholds(times, setting, arm, against)
    ]


def thresholds(times: Times, setting: str, arm: str, against: str) -> list[float]:
    """Return targets, easiest first, from just past every run's first value to what half of the runs of `against`
    reach.

    Shares are one point apart, other values 4.7 %. A target that the first measurement already meets was reached at
    an unknown time before it; beyond the median of the other arm's best values, most of its times are unknown.
    """
    measured, seeds = times.measured, times.runs.pairs(setting, arm, against)
    ours, theirs = ([times.curves[setting, name, seed] for seed in seeds] for name in (arm, against))
    starts = [float(curve.values[0]) for curve in (*ours, *theirs) if len(curve.values)]
    bests = [measured.worst if curve.best is None else curve.best for curve in theirs]
    bests.sort(key=lambda value: -measured.sign * value)
    if not starts or not bests:
        return []
    # In whole steps, so that every table and figure has the same targets.
    start, end = max(starts, key=lambda v: measured.sign * v), bests[math.ceil(len(bests) / 2) - 1]
    if measured.share:
        first, last = math.floor(start / STEP + 1e-9) + 1, math.floor(end / STEP + 1e-9)
        return [round(step * STEP, 4) for step in range(first, last + 1)]
    if not (0 < start < math.inf and end < start):  # an unbiased KID can be negative
        return []
    smallest = max(end, start / 1000)
    first = math.ceil(math.log10(start) * PER_DECADE - 1e-9) - 1
    last = math.ceil(math.log10(smallest) * PER_DECADE - 1e-9)
    return [float(f"{10 ** (step / PER_DECADE):.4g}") for step in range(first, last - 1, -1)]
