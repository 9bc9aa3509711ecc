"""The data of the charts, embedded once: lines over training, speed-ups, times to targets, recorded layers.

Horizontal axes other than updates need no further copies of a line: epochs and images follow from updates by one
table per arm. Only seconds, which differ from seed to seed, have their own lines, if they may be compared. Numbers
have five significant digits, and nothing is embedded that JSON cannot represent.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.times import Times, speedup_curve
from gbn.analysis.estimates.survival import kaplan_meier
from gbn.analysis.estimates.targets import Unit
from gbn.analysis.looks import Look
from gbn.analysis.plots.lines import Line, difference_line, mean_line
from gbn.analysis.runs.activations import QUANTITIES, SHOWN, layer_frame
from gbn.analysis.runs.load import Runs
from gbn.analysis.tables import numbers
from gbn.measures import Measure, find

#: If there are more arms than this, the charts initially show this many; readers choose.
SHOWN_AT_FIRST = 12
#: The maximum number of embedded points per line; a screen shows no more.
MOST_POINTS = 150
#: Keys that the chart offers first, in this order; others follow in the order of the curves.
FIRST = (
    *("val_accuracy", "val_accuracy_exact", "val_full_accuracy", "test_accuracy", "train_accuracy"),
    *("val_loss", "val_loss_exact", "test_loss", "train_loss"),
)


def payload(comparison: Comparison, looks: Mapping[str, Look]) -> dict[str, Any]:
    """Return the page's data.

    Returns:
        ``reference``, ``measure`` (of the targets), ``arms`` (name, colors, dash, marker, of, shown), ``measures``
        (how each is written, and whether lower is better), ``quantities`` (of layers) and ``settings``, each with
        ``name``, ``arms``, ``targets``, ``secondsReason``, :func:`curves`, ``speedups`` (unit -> arm),
        ``survivals`` (unit -> target as printed -> arm) and ``layers``. Arms are named, never numbered.
    """
    plan = comparison.runs.plan
    frame = layer_frame(comparison.runs)
    shown = measures(comparison.runs, comparison.measured)
    return {
        "reference": plan.reference,
        "measure": comparison.measured.key,
        "arms": [
            {"name": arm, "light": look.light, "dark": look.dark, "dash": look.dash, "marker": look.marker,
             "of": look.of, "shown": place < SHOWN_AT_FIRST}
            for place, (arm, look) in enumerate(looks.items())
        ],
        "measures": [
            {
                "key": measure.key, "name": name_of(measure), "axis": measure.label, "scale": measure.scale,
                "unit": measure.unit, "points": measure.points, "digits": measure.digits,
                "lower": not measure.higher_is_better, "loss": measure.family == "loss",
            }
            for measure in shown
        ],
        "quantities": quantities(frame),
        "settings": [
            _setting(comparison.times, name, shown, frame)
            for name in plan.settings
            if comparison.runs.arms(name)
        ],
    }  # fmt: skip


def _setting(times: Times, name: str, shown: list[Measure], frame: pd.DataFrame) -> dict[str, Any]:
    units, targets = times.units(name), times.targets(name)
    return {
        "name": name,
        "arms": times.runs.arms(name),
        "targets": list(targets),
        "secondsReason": times.seconds_reasons[name],
        **curves(times.runs, name, units, shown),
        "speedups": {unit: speedups(times, name, unit) for unit in units},
        "survivals": {
            unit: {times.measured.target(target): survivals(times, name, target, unit) for target in targets}
            for unit in units
        },
        "layers": layers(frame, name),
    }


def measures(runs: Runs, measured: Measure) -> list[Measure]:
    """Return the measures that some curve has, that of the targets first."""
    keys = dict.fromkeys((measured.key, *FIRST, *runs.points.keys))
    known = (find(key) for key in keys)
    return [measure for measure in known if measure is not None and runs.has(measure.key)]


def name_of(measure: Measure) -> str:
    """Return the label that readers choose from: "Validation accuracy, exact statistics"."""
    text = measure.title[0].upper() + measure.title[1:]
    if measure.whole:
        return f"{text}, whole set"
    if measure.split == "validation" or measure.network:
        return f"{text}, {'exact' if measure.exact else 'running'} statistics"
    return text


def curves(runs: Runs, setting: str, units: list[Unit], shown: list[Measure]) -> dict[str, Any]:
    """Return the convergence data of a setting.

    Returns:
        ``axes``: arm -> {updates, epochs, images}; ``lines`` and ``differences``: unit -> measure -> arm -> line,
            where a line is {x, mean, low, high, n, cut}.
    """
    arms, reference = runs.arms(setting), runs.plan.reference
    result: dict[str, Any] = {"axes": {arm: _axes(runs, setting, arm) for arm in arms}}
    result |= {"lines": {}, "differences": {}}
    for unit in units:
        for measure in shown:
            lines = {arm: mean_line(runs, setting, arm, measure.key, unit) for arm in arms}
            _put(result["lines"], unit, measure.key, lines)
            if reference in arms and measure.family != "loss":  # a difference of losses has no natural scale
                rest = [arm for arm in arms if arm != reference]
                less = {
                    arm: difference_line(runs, setting, arm, reference, measure.key, unit) for arm in rest
                }
                _put(result["differences"], unit, measure.key, less)
    return result


def _put(into: dict[str, Any], unit: Unit, key: str, lines: dict[str, Line | None]) -> None:
    drawn = {arm: line_of(line) for arm, line in lines.items() if line is not None}
    if drawn:
        into.setdefault(unit, {})[key] = drawn


def line_of(line: Line) -> dict[str, Any]:
    """Return a line in its embedded form."""
    kept = _kept(len(line.x))
    drawn: dict[str, Any] = {"x": shorts(line.x[kept], 7), "mean": shorts(line.mean[kept]), "n": line.n}
    if line.low is not None and line.high is not None:
        drawn |= {"low": shorts(line.low[kept]), "high": shorts(line.high[kept])}
    if line.cut_by_divergence:
        drawn["cut"] = True
    return drawn


def _kept(count: int) -> np.ndarray:
    """Return the indices to keep: all of them, or as many as a screen shows, including the first and the last.

    Points lie on a geometric grid, so evenly spaced indices are evenly spaced on the logarithmic axis.
    """
    return np.unique(np.linspace(0, count - 1, min(count, MOST_POINTS)).round().astype(int))


def _axes(runs: Runs, setting: str, arm: str) -> dict[str, Any]:
    """Return epochs and images by updates, equal for every seed of an arm: the ends, and where the ratios change."""
    seed = next(iter(runs.statuses(setting, arm)))
    update, *others = runs.columns(setting, arm, seed, ("update", "epoch", "images"))
    axes: dict[str, np.ndarray] = {"updates": update}
    keep = np.zeros(len(update), dtype=bool)
    keep[[0, -1]] = True
    for name, values in zip(("epochs", "images"), others, strict=True):
        if np.isfinite(values).all():
            axes[name] = values
            ratio = values / np.maximum(update, 1)
            changes = np.abs(np.diff(ratio)) > 1e-6 * np.abs(ratio).max()
            keep[1:] |= changes
            keep[:-1] |= changes
    return {name: shorts(values[keep], 7) for name, values in axes.items()}


def speedups(times: Times, setting: str, unit: Unit) -> dict[str, Any]:
    """Return arm -> {target, value, low, high, text, n}: the speed-up over the reference at each target.

    If an estimate is only a bound, or the arm never reaches the target, there is no value; the text says what is
    known.
    """
    reference, arms = times.runs.plan.reference, times.runs.arms(setting)
    if reference not in arms:
        return {}
    found = {}
    for arm in arms:
        if arm == reference:
            continue
        points = speedup_curve(times, setting, arm, reference, unit)
        if points:
            estimates = [estimate for _, estimate in points]
            found[arm] = {
                "target": shorts(target for target, _ in points),
                "value": shorts(e.value_low if e.known else None for e in estimates),
                "low": shorts(e.low for e in estimates),
                "high": shorts(e.high for e in estimates),
                "text": [numbers.ratio(e) for e in estimates],
                "n": [e.n for e in estimates],
            }
    return found


def survivals(times: Times, setting: str, target: float, unit: Unit) -> dict[str, Any]:
    """Return arm -> {time, reached, low, high, end, n, hits, median}: the share of runs at a target by each time.

    It is one minus the Kaplan-Meier estimate, so a run that ends early counts for as long as it was observed.
    """
    found = {}
    for arm in times.runs.arms(setting):
        reached = list(times.of_arm(setting, arm, target, unit).values())
        curve = kaplan_meier(reached)
        watched = [time.low for time in reached if time.low < math.inf]
        found[arm] = {
            "time": shorts(curve.time, 6),
            "reached": shorts(1 - share for share in curve.survival),
            "low": shorts(1 - share for share in curve.high),
            "high": shorts(1 - share for share in curve.low),
            "end": short(max(watched, default=0.0), 6),
            "n": len(reached),
            "hits": sum(time.reached for time in reached),
            "median": short(curve.median, 6),
        }
    return found


def quantities(frame: pd.DataFrame) -> dict[str, Any]:
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


def layers(frame: pd.DataFrame, setting: str) -> dict[str, Any]:
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


def short(value: float | None, digits: int = 5) -> float | int | None:
    """Round to this many significant digits; return None for NaN and infinity, an int for whole numbers."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def shorts(values: Iterable[float | None], digits: int = 5) -> list[float | int | None]:
    """Apply :func:`short` to each value."""
    return [short(None if value is None else float(value), digits) for value in values]


def embedded(data: Any) -> str:
    """Return JSON that is safe inside a script element, whatever its strings contain."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
