"""Speed-up as a function of the target, since a single threshold could be cherry-picked."""

import math
from typing import TYPE_CHECKING

from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.estimates.targets import Unit

if TYPE_CHECKING:
    from gbn.analysis.comparison.comparison import Comparison

#: The step between targets of a share (accuracy, Dice) ...
STEP = 0.01
#: ... and, for other measures, whose values span powers of ten, the number of targets per decade (4.7 % apart).
PER_DECADE = 50


def speedup_curve(
    comparison: "Comparison", setting: str, arm: str, against: str, unit: Unit = "updates"
) -> list[tuple[float, Estimate]]:
    """Return (target, estimate) for every value of a fixed grid (:func:`thresholds`), easiest first.

    The intervals are those of the tables, not corrected for the many targets: the curve shows whether a speed-up
    depends on the target and is not meant for finding one.

    Args:
        comparison: the runs, and how crossings are measured.
        setting, arm, against: what is compared; speed-up = against / arm.
        unit: "updates", or "seconds" if the comparison allows them.

    Returns:
        An empty list if the arms share no seed.

    Raises:
        ValueError: seconds were asked for, but the seconds of these runs are not compared.
    """
    reason = comparison.seconds_reason(setting) if unit == "seconds" else None
    if reason:
        raise ValueError(f"seconds of {setting or 'these runs'} are not compared: {reason}")
    seeds = comparison.pairs(setting, arm, against)
    curve = []
    for target in thresholds(comparison, setting, arm, against):
        ours, theirs = (
            [comparison.time(setting, name, seed, target, unit) for seed in seeds] for name in (arm, against)
        )
        curve.append((target, pairs.speedup(ours, theirs)))
    return curve


def thresholds(comparison: "Comparison", setting: str, arm: str, against: str) -> list[float]:
    """Return targets, easiest first, from just past every run's first value to what half of the runs of `against`
    reach.

    Shares are one point apart, other values 4.7 %. A target that the first measurement already meets was reached at
    an unknown time before it; beyond the median of the other arm's best values, most of its times are unknown.
    """
    measured = comparison.measured
    seeds = comparison.pairs(setting, arm, against)
    curves = {name: [comparison.curve(setting, name, seed) for seed in seeds] for name in (arm, against)}
    starts = [float(curve.values[0]) for own in curves.values() for curve in own if len(curve.values)]
    bests = [measured.worst if curve.best is None else curve.best for curve in curves[against]]
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
