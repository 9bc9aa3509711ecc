"""All data of the charts, embedded once: arms with their looks, settings with curves, speed-ups, times, layers."""

from collections.abc import Mapping
from typing import Any

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.report import curves, effects
from gbn.analysis.report.looks import Look
from gbn.analysis.runs.activations import layer_frame

#: If there are more arms than this, the charts initially show this many; readers choose.
SHOWN_AT_FIRST = 12


def payload(comparison: Comparison, looks: Mapping[str, Look]) -> dict[str, Any]:
    """Return the page's data.

    Returns:
        ``reference``, ``measure`` (of the targets), ``arms`` (name, colors, dash, marker, of, shown), ``measures``
        (how each is written, and whether lower is better), ``quantities`` (of layers) and ``settings``, each with
        ``name``, ``arms``, ``targets``, ``secondsReason``, :func:`curves.curves`, ``speedups`` (unit -> arm),
        ``survivals`` (unit -> target as printed -> arm) and ``layers``. Arms are named, never numbered.
    """
    plan = comparison.runs.plan
    frame = layer_frame(comparison.runs)
    return {
        "reference": plan.reference,
        "measure": comparison.measure,
        "arms": [
            {"name": arm, "light": look.light, "dark": look.dark, "dash": look.dash, "marker": look.marker,
             "of": look.of, "shown": place < SHOWN_AT_FIRST}
            for place, (arm, look) in enumerate(looks.items())
        ],
        "measures": [
            {
                "key": measure.key, "name": curves.name(measure), "axis": measure.label, "scale": measure.scale,
                "unit": measure.unit, "points": measure.points, "digits": measure.digits,
                "lower": not measure.higher_is_better, "loss": measure.family == "loss",
            }
            for measure in curves.measures(comparison)
        ],
        "quantities": effects.quantities(frame),
        "settings": [_setting(comparison, name, frame) for name in plan.settings if comparison.arms(name)],
    }  # fmt: skip


def _setting(comparison: Comparison, name: str, frame: Any) -> dict[str, Any]:
    units, targets = comparison.units(name), comparison.targets(name)
    return {
        "name": name,
        "arms": comparison.arms(name),
        "targets": list(targets),
        "secondsReason": comparison.seconds_reason(name),
        **curves.curves(comparison, name),
        "speedups": {unit: effects.speedups(comparison, name, unit) for unit in units},
        "survivals": {
            unit: {
                comparison.measured.target(target): effects.survivals(comparison, name, target, unit)
                for target in targets
            }
            for unit in units
        },
        "layers": effects.layers(frame, name),
    }
