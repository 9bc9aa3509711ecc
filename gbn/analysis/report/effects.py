"""The numbers behind three more charts: speed-up against the target, time to target, activation statistics."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.estimates.sensitivity import speedup_curve
from gbn.analysis.estimates.survival import kaplan_meier
from gbn.analysis.estimates.targets import Unit
from gbn.analysis.report.rounding import short, shorts
from gbn.analysis.runs.activations import QUANTITIES, SHOWN
from gbn.analysis.tables import numbers

if TYPE_CHECKING:
    import pandas as pd


def speedups(comparison: Comparison, setting: str, unit: Unit) -> dict[str, Any]:
    """Return arm -> {target, value, low, high, text, n}: the speed-up over the reference at each target.

    If an estimate is only a bound, or the arm never reaches the target, there is no value; the text says what is
    known.
    """
    reference = comparison.runs.plan.reference
    arms = comparison.arms(setting)
    if reference not in arms:
        return {}
    found = {}
    for arm in arms:
        if arm == reference:
            continue
        points = speedup_curve(comparison, setting, arm, reference, unit)
        if points:
            estimates = [estimate for _, estimate in points]
            found[arm] = {
                "target": shorts(target for target, _ in points),
                "value": shorts(_value(e) for e in estimates),
                "low": shorts(e.low for e in estimates),
                "high": shorts(e.high for e in estimates),
                "text": [numbers.ratio(e) for e in estimates],
                "n": [e.n for e in estimates],
            }
    return found


def _value(estimate: Estimate) -> float | None:
    known = estimate.value_low == estimate.value_high and 0 < estimate.value_low < float("inf")
    return estimate.value_low if known else None


def survivals(comparison: Comparison, setting: str, target: float, unit: Unit) -> dict[str, Any]:
    """Return arm -> {time, reached, low, high, end, n, hits, median}: the share of runs at a target by each time.

    It is one minus the Kaplan-Meier estimate, so a run that ends early counts for as long as it was observed.
    """
    found = {}
    for arm in comparison.arms(setting):
        seeds = comparison.runs.usable(setting, arm).seed
        times = [comparison.time(setting, arm, int(seed), target, unit) for seed in seeds]
        if not times:
            continue
        curve = kaplan_meier(times)
        watched = [time.low for time in times if time.low < float("inf")]
        found[arm] = {
            "time": shorts(curve.time, 6),
            "reached": shorts(1 - share for share in curve.survival),
            "low": shorts(1 - share for share in curve.high),
            "high": shorts(1 - share for share in curve.low),
            "end": short(max(watched, default=0.0), 6),
            "n": len(times),
            "hits": sum(time.reached for time in times),
            "median": short(curve.median, 6),
        }
    return found


def quantities(frame: "pd.DataFrame") -> dict[str, Any]:
    """Return quantity -> {label, log, neutral} for the recorded quantities, the most informative first."""
    recorded = set(frame.quantity)
    ordered = [name for name in dict.fromkeys((*SHOWN, *QUANTITIES)) if name in recorded]
    return {
        name: {
            "label": QUANTITIES[name].label,
            "log": QUANTITIES[name].log,
            "neutral": QUANTITIES[name].neutral,
        }
        for name in ordered
    }


def layers(frame: "pd.DataFrame", setting: str) -> dict[str, Any]:
    """Return quantity -> layer (in the network's order) -> arm -> {x, median, low, high, n}: means over seeds.

    A quantity drawn on a logarithmic axis is averaged there (the geometric mean).
    """
    inside = frame[frame.setting == setting].sort_values("depth", kind="stable")
    found: dict[str, Any] = {}
    columns = ["median", "low", "high"]
    for (quantity, layer, arm), rows in inside.groupby(["quantity", "layer", "arm"], sort=False):
        log = QUANTITIES[str(quantity)].log
        values = np.log(rows[columns].where(rows[columns] > 0)) if log else rows[columns]
        means = values.groupby(rows["update"], sort=True).mean()
        means = np.exp(means) if log else means
        found.setdefault(str(quantity), {}).setdefault(str(layer), {})[str(arm)] = {
            "x": shorts(means.index, 7),
            **{name: shorts(means[name], 4) for name in columns},
            "n": int(rows.seed.nunique()),
        }
    return found
