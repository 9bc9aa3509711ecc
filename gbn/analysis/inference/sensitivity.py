"""Speed-up against the target, since one threshold can be picked to please."""

import math
from typing import TYPE_CHECKING

from gbn.analysis import statistics
from gbn.analysis.estimate import Estimate
from gbn.analysis.targets import Unit

if TYPE_CHECKING:
    from gbn.analysis.compare import Comparison

STEP = 0.01


def speedup_curve(
    comparison: "Comparison", setting: str, arm: str, against: str, unit: Unit = "updates"
) -> list[tuple[float, Estimate]]:
    """The speed-up to every accuracy of a fixed grid (:func:`thresholds`): (target, estimate), ascending.

    Each interval is that of the tables, not corrected for the many targets: the curve shows whether a speed-up
    depends on the target, it does not look for one.

    Args:
        comparison: the runs, and how crossings are measured.
        setting, arm, against: what is compared; speed-up = against / arm.
        unit: "updates", or "seconds" where the comparison allows them.

    Returns:
        Empty where the arms share no seed.

    Raises:
        ValueError: seconds of runs whose seconds are not compared.
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
        curve.append((target, statistics.speedup(ours, theirs)))
    return curve


def thresholds(comparison: "Comparison", setting: str, arm: str, against: str) -> list[float]:
    """Targets one point apart: from above every run's first measurement to what half of the runs of `against` reach.

    At or below the first measured accuracy the time to it is where the evaluation began, not when it was reached;
    beyond the median of the other arm's maxima most of its times are not known.
    """
    seeds = comparison.pairs(setting, arm, against)
    curves = {name: [comparison.curve(setting, name, seed) for seed in seeds] for name in (arm, against)}
    starts = [float(curve.values[0]) for own in curves.values() for curve in own if len(curve.values)]
    peaks = sorted((curve.maximum or 0.0 for curve in curves[against]), reverse=True)
    if not starts or not peaks:
        return []
    # In whole steps, so that every table and figure has the same targets.
    first = math.floor(max(starts) / STEP + 1e-9) + 1
    last = math.floor(peaks[math.ceil(len(peaks) / 2) - 1] / STEP + 1e-9)
    return [round(step * STEP, 4) for step in range(first, last + 1)]
