"""The sub-tables of a speed-up table as plain rows of text, ready for any format."""

import math
from collections.abc import Iterator

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.qualities import columns_of
from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.estimate import AA, NOTHING, Estimate, Figure
from gbn.analysis.estimates.targets import Unit
from gbn.analysis.tables import evidence, headings, numbers
from gbn.analysis.tables.causes import effects
from gbn.analysis.tables.section import Section
from gbn.analysis.tables.segmentation import beside
from gbn.config.norms import CONTROLS, MIXTURE_CONTROLS
from gbn.measures import measure


def sections(comparison: Comparison, setting: str) -> Iterator[Section]:
    """Yield the sub-tables of one setting."""
    yield _quality(comparison, setting)
    further = beside(comparison, setting)
    if further is not None:
        yield further
    for unit in comparison.units(setting):
        if comparison.targets(setting):
            yield _targets(comparison, setting, unit)
            yield from evidence.evidence(comparison, setting, unit)
        if comparison.runs.plan.reference in comparison.arms(setting):
            yield _maximum(comparison, setting, unit)
    controls = _controls(comparison, setting)
    if controls.rows:
        yield controls
    if _has_measured_controls(comparison):
        yield _training(comparison, setting)
    yield from effects(comparison, setting)


def summary(comparison: Comparison, setting: str) -> Section:
    """Return the short table for a terminal: the last value, its difference, and the speed-ups in updates."""
    reference, targets = comparison.runs.plan.reference, comparison.targets(setting)
    final = comparison.final
    rows = []
    for arm in comparison.arms(setting):
        last = _estimate(_get(comparison, setting, "last", arm))
        against = _estimate(_get(comparison, setting, "last_difference", arm, reference))
        row = [arm, str(len(comparison.runs.usable(setting, arm))), numbers.value(last, final)]
        row.append(numbers.difference(against, final))
        for target in targets:
            speed = _get(comparison, setting, "speedup_to_target", arm, reference, "updates", target)
            row.append("1 (reference)" if arm == reference else numbers.ratio(_estimate(speed)))
        rows.append(tuple(row))
        if arm == reference:
            aa = [AA, "", "", ""]
            for target in targets:
                speed = _get(comparison, setting, "speedup_to_target", AA, reference, "updates", target)
                aa.append(numbers.ratio(_estimate(speed)))
            rows.append(tuple(aa))
    return Section(
        "",
        (
            "arm",
            "n",
            headings.column(final),
            f"- {reference}{headings.counted(final)}",
            *(f"speed-up to {comparison.measured.target(t)}" for t in targets),
        ),
        tuple(rows),
        (_resolution(comparison, setting, "updates"),) if targets else (),
    )


def _get(
    comparison: Comparison,
    setting: str,
    quantity: str,
    arm: str,
    against: str = "",
    unit: str = "",
    target: float = -1.0,
) -> Figure | None:
    return comparison.lookup.get((setting, quantity, arm, against, unit, target))


def _estimate(figure: Figure | None) -> Estimate:
    return NOTHING if figure is None else figure.estimate


_COLUMNS = {
    "last": "last epoch",
    "best_val": "best by validation",
    "best_test": "best on test",
    "best": "best of the run",
}
_OPTIMISTIC = {
    "best_test": "Best on test selects on the test set: it is an upper bound, not a result.",
    "best": "Best of the run selects on what it reports: it is optimistic, not a result.",
}


def _quality(comparison: Comparison, setting: str) -> Section:
    reference, measured, final = comparison.runs.plan.reference, comparison.measured, comparison.final
    quantities = columns_of(final)
    rows = []
    for arm in comparison.arms(setting):
        usable = comparison.runs.usable(setting, arm)
        mean = {name: _estimate(_get(comparison, setting, name, arm)) for name in (*quantities, "area")}
        against = {
            name: _estimate(_get(comparison, setting, f"{name}_difference", arm, reference))
            for name in ("last", "area")
        }
        diverged = int((usable.status == "diverged").sum())
        rows.append(
            (
                arm,
                f"{len(usable)}" + (f" ({diverged} diverged)" if diverged else ""),
                *(numbers.value(mean[name], final) for name in quantities),
                numbers.difference(against["last"], final),
                numbers.value(mean["area"], measured),
                numbers.difference(against["area"], measured),
            )
        )
    optimistic = " ".join(text for name, text in _OPTIMISTIC.items() if name in quantities)
    return Section(
        f"{headings.quality(final)}; {headings.differences(final, 'reference')}",
        (
            *("arm", "n", *(_COLUMNS[name] for name in quantities)),
            *(f"last - {reference}", "area under curve", f"area - {reference}"),
        ),
        tuple(rows),
        (f"Area under curve: mean of {measured.key} over the logarithm of the update. {optimistic}",),
    )


def _targets(comparison: Comparison, setting: str, unit: Unit) -> Section:
    reference, targets = comparison.runs.plan.reference, comparison.targets(setting)
    measured = comparison.measured
    columns = ["arm"]
    for target in targets:
        columns += [f"{unit} to {measured.target(target)}", "reached", "speed-up"]
    rows = []
    for arm in comparison.arms(setting):
        row = [arm]
        for target in targets:
            time = _estimate(_get(comparison, setting, "time_to_target", arm, "", unit, target))
            speed = _estimate(_get(comparison, setting, "speedup_to_target", arm, reference, unit, target))
            row += [
                numbers.duration(time, unit),
                f"{time.n - time.arm_misses}/{time.n}",
                "1 (reference)" if arm == reference else numbers.ratio(speed),
            ]
        rows.append(tuple(row))
        if arm == reference:
            aa = [f"{AA} ({reference} against {reference})"]
            for target in targets:
                speed = _estimate(_get(comparison, setting, "speedup_to_target", AA, reference, unit, target))
                aa += ["", "", numbers.ratio(speed) if speed.n else "needs 2 seeds"]
            rows.append(tuple(aa))
    return Section(
        f"{unit.capitalize()} to a fixed {measured.name}{headings.direction(measured)}: medians, and speed-up = "
        f"{unit} of {reference} / {unit} of the arm (greater than 1: the arm is faster)",
        tuple(columns),
        tuple(rows),
        (_resolution(comparison, setting, unit),),
    )


def _maximum(comparison: Comparison, setting: str, unit: Unit) -> Section:
    reference, measured, final = comparison.runs.plan.reference, comparison.measured, comparison.final
    rows = []
    for arm in comparison.arms(setting):
        name = AA if arm == reference else arm
        figure = _get(comparison, setting, "speedup_to_maximum", name, reference, unit)
        estimate = _estimate(figure)
        last = _estimate(_get(comparison, setting, "last_difference", arm, reference))
        label = f"{AA} ({reference} against {reference})" if arm == reference else arm
        if figure is None or not estimate.n:
            rows.append((label, *(["needs 2 seeds" if arm == reference else "no pair"] + [""] * 5)))
            continue
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
            f"Measured on {comparison.measure}{paper}. This metric is the {best} of a "
            f"noisy curve, late for the reference by construction, and mixes final {quality} with speed: {worth} "
            "alone can show as more than a third saved. Read a row only beside the A/A row "
            "(all ordered pairs of different seeds of the reference; its bracket spans what single rows of "
            f"identical arms would have shown) and beside the {quality} difference.",
        ),
    )


def _controls(comparison: Comparison, setting: str) -> Section:
    targets, final = comparison.targets(setting), comparison.final
    unit = f" in {final.points}" if final.points else ""
    rows = []
    for arm, controls in comparison.runs.plan.controls.items():
        for control in controls:
            last = _get(comparison, setting, "last_difference", arm, control)
            if last is None:
                continue
            area = _estimate(_get(comparison, setting, "area_difference", arm, control))
            row = [arm, control, numbers.difference(last.estimate, final)]
            row.append(numbers.difference(area, comparison.measured))
            for target in targets:
                speed = _get(comparison, setting, "speedup_to_target", arm, control, "updates", target)
                row.append(numbers.ratio(_estimate(speed)))
            rows.append(tuple(row))
    return Section(
        f"Each arm against its own controls: differences{unit} (arm - control{headings.sense(final)}), speed-up = "
        "updates of the control / updates of the arm",
        (
            *("arm", "control", "last", "area"),
            *(f"speed-up to {comparison.measured.target(target)}" for target in targets),
        ),
        tuple(rows),
        _of_controls(comparison),
    )


#: Descriptions of the controls of a pair, and of a mixture.
_OF_PAIRS = (
    "bn_matched is BN started at the arm's gain and bias; bn_reparam is BN with the arm's Gaussian scale "
    "and shift inside the layer. Only what an arm shows beyond bn_reparam comes from its deviation measure."
)
_OF_MEASURED = (
    "bn_matched is BN started at the gain and bias that a Gaussian would give the arm, bn_reparam is BN with this "
    "scale and shift inside the layer; bn_measured_matched and bn_measured_reparam are the same with the scale and "
    "shift that the arm has on the first training batch. bn_tracking has the arm's forward pass and BN's backward "
    "pass. Only what an arm shows beyond bn_measured_reparam comes from its deviation's shape."
)
_OF_MIXTURES = (
    "bn_matched of a mixture is BN started at the gain that the mixture has on the first batch; bn_reparam is BN "
    "with that gain inside the layer. Only what a mixture shows beyond bn_reparam comes from its components."
)


def _of_controls(comparison: Comparison) -> tuple[str, ...]:
    """Return the descriptions of the controls of the plan's arms."""
    plan = comparison.runs.plan
    mixtures = {plan.methods.get(arm) == "mixture" for arm in plan.controls}
    of_pairs = _OF_MEASURED if _has_measured_controls(comparison) else _OF_PAIRS
    return tuple(text for mixture, text in ((False, of_pairs), (True, _OF_MIXTURES)) if mixture in mixtures)


def _has_measured_controls(comparison: Comparison) -> bool:
    """Return whether an arm of the plan has a control beyond the two of a Gaussian."""
    plan = comparison.runs.plan
    controls = [control for inner in plan.controls.values() for control in inner]
    methods = {name for one in controls for name in (plan.methods.get(one), one.partition("[")[0])}
    return not methods.isdisjoint(set(CONTROLS) - set(MIXTURE_CONTROLS))


def _training(comparison: Comparison, setting: str) -> Section:
    """Return the mean training loss of each arm, against the reference and against the arm that it controls for."""
    plan, loss = comparison.runs.plan, measure("train_loss")
    of = {control: arm for arm, inner in plan.controls.items() for control in inner}
    frames = {arm: comparison.training_losses(setting, arm).training_loss for arm in comparison.arms(setting)}
    rows = []
    for arm, ours in frames.items():
        row = [arm, str(ours.notna().sum()), numbers.value(pairs.mean_interval(ours.dropna().tolist()), loss)]
        for against in (plan.reference, of.get(arm, "")):
            both = (ours - frames[against]).dropna() if against in frames and against != arm else ours[:0]
            row.append(numbers.difference(pairs.paired_difference(both.tolist(), [0.0] * len(both)), loss))
        rows.append(tuple(row))
    return Section(
        "Mean training loss over all updates; differences over pairs, lower is better",
        ("arm", "n", "mean training loss", f"- {plan.reference}", "- the arm that it controls for"),
        tuple(rows),
        ("Runs that diverged are left out. Intervals: paired t, 95 %, one row at a time.",),
    )


def _resolution(comparison: Comparison, setting: str, unit: Unit) -> str:
    """Say what this number of pairs can and cannot decide."""
    reference = comparison.runs.plan.reference
    speedups = [
        f.estimate
        for f in comparison.figures
        if (f.setting, f.quantity, f.unit, f.against) == (setting, "speedup_to_target", unit, reference)
        and f.arm != AA
    ]
    if not speedups:
        return "No other arm to compare with."
    n = max(estimate.n for estimate in speedups)
    if n < 2:
        return "One pair has no interval: it decides nothing, whatever its ratio."
    smallest = sorted(ratio for e in speedups if not math.isnan(ratio := pairs.smallest_ratio(e.sd, e.n)))
    text = f"Of {len(speedups)} intervals about {len(speedups) / 20:.1f} exclude 1 by chance: go by the *. "
    if smallest:
        middle, least, most = (f"{smallest[i]:.2f}" for i in (len(smallest) // 2, 0, -1))
        text += f"With up to {n} pairs the smallest speed-up told from 1 is {middle} (median over rows; {least} to "
        text += f"{most}): anything smaller, or as much below 1, these runs cannot decide. "
    if any(e.method == "median" for e in speedups):
        text += (
            "Where a run missed the target the speed-up is the median over pairs, a miss beyond its run's end"
        )
        text += "." if n >= 6 else ", without an interval (the sign test needs six pairs)."
    return text.strip()
