"""The sub-tables of a speed-up table as plain rows of text, ready for any format."""

import math
from collections.abc import Iterator

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.figures import Endpoint, columns_of
from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.estimate import AA
from gbn.analysis.estimates.targets import Unit
from gbn.analysis.tables import headings, numbers
from gbn.analysis.tables.causes import effects
from gbn.analysis.tables.evidence import certainty
from gbn.analysis.tables.section import Section
from gbn.analysis.tables.segmentation import structures

ONE = "1 (reference)"


def sections(comparison: Comparison, setting: str) -> Iterator[Section]:
    """Yield the sub-tables of one setting."""
    times = comparison.times
    yield _quality(comparison, setting)
    if (further := structures(comparison.runs, comparison.figures.final, setting)) is not None:
        yield further
    for unit in times.units(setting):
        if times.targets(setting):
            yield _targets(comparison, setting, unit)
            yield from certainty(comparison, setting, unit)
        if comparison.runs.plan.reference in comparison.runs.arms(setting):
            yield _maximum(comparison, setting, unit)
    controls = _controls(comparison, setting)
    if controls.rows:
        yield controls
    yield from effects(comparison, setting)


def summary(comparison: Comparison, setting: str) -> Section:
    """Return the short table for a terminal: the last value, its difference, and the speed-ups in updates."""
    reference, targets = comparison.runs.plan.reference, comparison.times.targets(setting)
    figures, evidence = comparison.figures, comparison.evidence
    rows = []
    for arm in comparison.runs.arms(setting):
        count = str(len(comparison.runs.usable(setting, arm)))
        last = numbers.value(figures.estimate(setting, "last", arm), figures.final)
        less = evidence.estimate(setting, "last_difference", arm, reference)
        speedups = _speedups(comparison, setting, arm, reference)
        rows.append((arm, count, last, numbers.difference(less, figures.final), *speedups))
        if arm == reference:
            rows.append((AA, "", "", "", *_speedups(comparison, setting, AA, reference)))
    return Section(
        "",
        (
            *("arm", "n", headings.column(figures.final), f"- {reference}{headings.counted(figures.final)}"),
            *(f"speed-up to {comparison.measured.target(t)}" for t in targets),
        ),
        tuple(rows),
        (_resolution(comparison, setting, "updates"),) if targets else (),
    )


def _speedups(
    comparison: Comparison, setting: str, arm: str, against: str, unit: Unit = "updates"
) -> list[str]:
    """Return the speed-up to each fixed target."""
    if arm == against:
        return [ONE] * len(comparison.times.targets(setting))
    return [
        numbers.ratio(comparison.evidence.estimate(setting, "speedup_to_target", arm, against, unit, target))
        for target in comparison.times.targets(setting)
    ]


_OPTIMISTIC = {
    "best_test": "Best on test selects on the test set: it is an upper bound, not a result.",
    "best": "Best of the run selects on what it reports: it is optimistic, not a result.",
}


def _quality(comparison: Comparison, setting: str) -> Section:
    reference, measured, figures = comparison.runs.plan.reference, comparison.measured, comparison.figures
    final, quantities = figures.final, columns_of(figures.final)
    last = len(quantities)
    groups = [figures.endpoints[:last], *((one,) for one in figures.endpoints[last:])]
    columns = ["arm", "n"]
    for group in groups:
        columns += [
            *(one.label for one in group),
            *(f"{one.name} - {reference}" for one in group if one.compared),
        ]
    rows = []
    for arm in comparison.runs.arms(setting):
        usable = comparison.runs.usable(setting, arm)
        diverged = int((usable.status == "diverged").sum())
        row = [arm, f"{len(usable)}" + (f" ({diverged} diverged)" if diverged else "")]
        for group in groups:
            row += [numbers.value(figures.estimate(setting, one.name, arm), one.measure) for one in group]
            row += [_difference(comparison, setting, one, arm, reference) for one in group if one.compared]
        rows.append(tuple(row))
    optimistic = " ".join(text for name, text in _OPTIMISTIC.items() if name in quantities)
    return Section(
        f"{headings.quality(final)}; {headings.differences(final, 'reference')}",
        tuple(columns),
        tuple(rows),
        (f"Area under curve: mean of {measured.key} over the logarithm of the update. {optimistic}",),
    )


def _difference(comparison: Comparison, setting: str, endpoint: Endpoint, arm: str, against: str) -> str:
    estimate = comparison.evidence.estimate(setting, f"{endpoint.name}_difference", arm, against)
    return numbers.difference(estimate, endpoint.measure)


def _targets(comparison: Comparison, setting: str, unit: Unit) -> Section:
    reference, targets = comparison.runs.plan.reference, comparison.times.targets(setting)
    measured, rows = comparison.measured, []
    columns = ["arm"]
    for target in targets:
        columns += [f"{unit} to {measured.target(target)}", "reached", "speed-up"]
    for arm in comparison.runs.arms(setting):
        row = [arm]
        for target, speedup in zip(
            targets, _speedups(comparison, setting, arm, reference, unit), strict=True
        ):
            time = comparison.figures.estimate(setting, "time_to_target", arm, unit, target)
            row += [numbers.duration(time, unit), f"{time.n - time.arm_misses}/{time.n}", speedup]
        rows.append(tuple(row))
        if arm == reference:
            speedups = _speedups(comparison, setting, AA, reference, unit)
            cells = (("", "", "needs 2 seeds" if one == numbers.NONE else one) for one in speedups)
            rows.append((_aa(reference), *(cell for three in cells for cell in three)))
    return Section(
        f"{unit.capitalize()} to a fixed {measured.name}{headings.direction(measured)}: medians, and speed-up = "
        f"{unit} of {reference} / {unit} of the arm (greater than 1: the arm is faster)",
        tuple(columns),
        tuple(rows),
        (_resolution(comparison, setting, unit),),
    )


def _aa(reference: str) -> str:
    return f"{AA} ({reference} against {reference})"


def _maximum(comparison: Comparison, setting: str, unit: Unit) -> Section:
    reference, measured, final = comparison.runs.plan.reference, comparison.measured, comparison.figures.final
    evidence, rows = comparison.evidence, []
    for arm in comparison.runs.arms(setting):
        own = arm == reference
        figure = evidence.contrasts[setting, "speedup_to_maximum", AA if own else arm, reference, unit, None]
        estimate, label = figure.estimate, _aa(reference) if own else arm
        if not estimate.n:
            rows.append((label, "needs 2 seeds" if own else "no pair", *[""] * 5))
            continue
        last = evidence.estimate(setting, "last_difference", arm, reference)
        rows.append(
            (
                label,
                str(estimate.n),
                f"{estimate.arm_misses}/{estimate.n}",
                numbers.ratio(estimate),
                numbers.saving(estimate),
                f"{figure.saved}/{estimate.n}",
                numbers.difference(last, final),
            )
        )
    best, accuracy = headings.best(measured), measured.family == "accuracy"
    quality, paper = ("accuracy", " (the paper: test accuracy)") if accuracy else (measured.name, "")
    worth = "half a point more accuracy" if accuracy else f"a better final {measured.name}"
    return Section(
        f"{unit.capitalize()} to the {best} of {reference} at the same seed (Mixture Normalization's metric): "
        f"speed-up = {unit} of {reference} / {unit} of the arm; saved = 1 - 1/speed-up",
        (
            *("arm", "pairs", "missed", "speed-up", "saved", "saved 31 % or more"),
            f"last - {reference}{headings.counted(final)}",
        ),
        tuple(rows),
        (
            f"Measured on {measured.key}{paper}. This metric is the {best} of a "
            f"noisy curve, late for the reference by construction, and mixes final {quality} with speed: {worth} "
            "alone can show as more than a third saved. Read a row only beside the A/A row "
            "(all ordered pairs of different seeds of the reference; its bracket spans what single rows of "
            f"identical arms would have shown) and beside the {quality} difference.",
        ),
    )


def _controls(comparison: Comparison, setting: str) -> Section:
    final, present = comparison.figures.final, comparison.runs.arms(setting)
    compared = [one for one in comparison.figures.endpoints if one.compared]
    unit = f" in {final.points}" if final.points else ""
    rows = [
        (
            arm,
            control,
            *(_difference(comparison, setting, one, arm, control) for one in compared),
            *_speedups(comparison, setting, arm, control),
        )
        for arm, controls in comparison.runs.plan.controls.items()
        for control in controls
        if arm in present and control in present
    ]
    return Section(
        f"Each arm against its own controls: differences{unit} (arm - control{headings.sense(final)}), speed-up = "
        "updates of the control / updates of the arm",
        (
            *("arm", "control", *(one.name for one in compared)),
            *(f"speed-up to {comparison.measured.target(t)}" for t in comparison.times.targets(setting)),
        ),
        tuple(rows),
        _of_controls(comparison),
    )


#: Descriptions of the controls of a pair, of instance enhancement, and of a mixture.
_OF_PAIRS = (
    "bn_matched is BN started at the arm's gain and bias; bn_reparam is BN with the arm's Gaussian scale "
    "and shift inside the layer. Real pre-activations are not Gaussian: what an arm shows beyond bn_reparam comes "
    "from that as well as from the shape of its deviation, and no control here separates the two."
)
_OF_MEASURED = (
    "bn_matched is BN started at the gain and bias that a Gaussian would give the arm, bn_reparam is BN with this "
    "scale and shift inside the layer; bn_measured_matched and bn_measured_reparam are the same with the scale and "
    "shift that the arm has on the first training batch. bn_tracking has the arm's forward pass and BN's backward "
    "pass. Real pre-activations are not Gaussian: only what an arm shows beyond bn_measured_reparam comes from its "
    "deviation's shape."
)
_OF_GATES = (
    "bn_matched of iebn is BN started at the gain that the gate has at the start; bn_reparam is BN with that gain "
    "inside the layer. Only what iebn shows beyond bn_reparam comes from its gate."
)
_OF_MIXTURES = (
    "bn_matched of a mixture is BN started at the gain that the mixture has on the first batch; bn_reparam is BN "
    "with that gain inside the layer. Only what a mixture shows beyond bn_reparam comes from its components."
)


def _of_controls(comparison: Comparison) -> tuple[str, ...]:
    """Return the descriptions of the controls of the plan's arms."""
    plan = comparison.runs.plan
    of_pairs = _OF_MEASURED if plan.has_measured_controls else _OF_PAIRS
    texts = {"iebn": _OF_GATES, "mixture": _OF_MIXTURES}
    found = {texts.get(plan.methods.get(arm, ""), of_pairs) for arm in plan.controls}
    return tuple(text for text in (of_pairs, *texts.values()) if text in found)


def _resolution(comparison: Comparison, setting: str, unit: Unit) -> str:
    """Say what this number of pairs can and cannot decide."""
    reference = comparison.runs.plan.reference
    speedups = [one.estimate for one in comparison.evidence.tests(setting, unit, reference)]
    if not speedups:
        return "No other arm to compare with."
    n = max(estimate.n for estimate in speedups)
    if n < 2:
        return "One pair has no interval: it decides nothing, whatever its ratio."
    smallest = sorted(ratio for e in speedups if not math.isnan(ratio := pairs.smallest_ratio(e.sd, e.n)))
    text = f"By chance alone, about {len(speedups) / 20:.1f} of {len(speedups)} intervals exclude 1: rely on the *. "
    if smallest:
        middle, least, most = (f"{smallest[i]:.2f}" for i in (len(smallest) // 2, 0, -1))
        text += f"With up to {n} pairs, the smallest speed-up that can be distinguished from 1 is {middle} (median "
        text += f"over rows; {least} to {most}); these runs cannot decide anything smaller. "
    if any(e.method == "median" for e in speedups):
        text += (
            "Where a run missed the target, the speed-up is the median over pairs; a miss counts as a time beyond "
            "the end of its run"
        )
        text += "." if n >= 6 else ", without an interval (the sign test needs six pairs)."
    return text.strip()
