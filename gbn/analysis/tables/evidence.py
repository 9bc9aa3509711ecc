"""Sub-tables behind the speed-ups: how certain they are, what is known despite misses, and results by machine."""

from collections.abc import Iterator

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.estimates import blocks, survival
from gbn.analysis.estimates.decisions import reach
from gbn.analysis.estimates.estimate import AA, Figure
from gbn.analysis.estimates.evidence import text
from gbn.analysis.estimates.targets import Time, Unit
from gbn.analysis.tables import numbers
from gbn.analysis.tables.section import Section


def evidence(comparison: Comparison, setting: str, unit: Unit) -> Iterator[Section]:
    """Yield the sub-tables that follow "updates (or seconds) to a fixed target"."""
    tests = _tests(comparison, setting, unit)
    if any(figure.estimate.n > 1 for figure in tests):
        yield _how_sure(comparison, tests)
    if any(f.estimate.arm_misses or f.estimate.reference_misses for f in tests):
        yield _censored(comparison, setting, unit)
    machines = blocks.machines(comparison, setting)
    if unit == "updates" and len(machines) > 1 and tests:
        yield _by_machine(comparison, setting, tests, machines)


def _tests(comparison: Comparison, setting: str, unit: Unit) -> list[Figure]:
    """Return the speed-ups against the reference, arm by arm."""
    reference = comparison.runs.plan.reference
    figures = [
        f
        for f in comparison.figures
        if (f.setting, f.quantity, f.unit, f.against) == (setting, "speedup_to_target", unit, reference)
        and f.arm != AA
    ]
    order = {arm: place for place, arm in enumerate(comparison.arms(setting))}
    sign = comparison.measured.sign
    return sorted(figures, key=lambda figure: (order[figure.arm], sign * figure.target))


def _how_sure(comparison: Comparison, tests: list[Figure]) -> Section:
    rows = []
    for figure in tests:
        estimate, more = figure.estimate, comparison.evidence(figure)
        rows.append(
            (
                figure.arm,
                comparison.measured.target(figure.target),
                str(estimate.n),
                numbers.p_value(estimate.p) + " (signs)" * (estimate.method == "median"),
                numbers.p_value(estimate.p_holm),
                numbers.interval(*more.bootstrap.percentile),
                numbers.interval(*more.bootstrap.bca),
                numbers.p_value(more.sign_flip),
                text(estimate),
            )
        )
    n = max(figure.estimate.n for figure in tests)
    return Section(
        "How sure: p of the primary analysis, alone and after Holm; bootstrap and sign flips as sensitivity; verdict",
        (
            *("arm", "target", "pairs", "p", "p after Holm", "bootstrap, percentile", "bootstrap, BCa"),
            *("p of sign flips", "verdict after Holm"),
        ),
        tuple(rows),
        (
            "p: paired t on log ratios, or (signs) the sign test where a run missed. The verdict rests on it alone, "
            f"after Holm over these {len(tests)} comparisons. With few pairs a bootstrap interval is too narrow (how "
            "much is measured in results/validation/statistics.md).",
            "Seeds that would decide: 80 % power at the level at which Holm tests the row, if the speed-up is what "
            "was estimated; from the noise as measured to the upper 80 % confidence limit of its standard deviation.",
            reach(n, len(tests)),
        ),
    )


def _censored(comparison: Comparison, setting: str, unit: Unit) -> Section:
    reference, rows, horizons = comparison.runs.plan.reference, [], []
    for target in comparison.targets(setting):
        times = {arm: comparison.times(setting, arm, target, unit) for arm in comparison.arms(setting)}
        if all(time.reached for own in times.values() for time in own.values()):
            continue
        horizon = survival.common_horizon(*(list(own.values()) for own in times.values()))
        if not horizon > 0:
            continue
        goal = comparison.measured.target(target)
        horizons.append(f"{_amount(horizon, unit)} ({goal})")
        for arm, own in times.items():
            rows.append((arm, goal, *_censored_cells(own, times.get(reference, {}), horizon, unit)))
    return Section(
        f"Where runs missed a target: Kaplan-Meier median and mean of the {unit}, each run watched to the same "
        f"horizon (less is faster; differences arm - {reference})",
        ("arm", "target", "reached", "median, 95 %", "restricted mean", f"restricted mean - {reference}"),
        tuple(rows),
        (
            f"Horizons: {', '.join(horizons)}: the earliest end of a run without the target. A run that ended "
            "without the target is right-censored there; one that diverged never reaches it and stays at risk. "
            "Interval of the median: Greenwood, log-log; ± is a standard error; the difference is paired by seed (t "
            "on pseudo-values).",
        ),
    )


def _censored_cells(
    own: dict[int, Time], reference: dict[int, Time], horizon: float, unit: Unit
) -> tuple[str, ...]:
    curve = survival.kaplan_meier(list(own.values()))
    median = "not reached" if curve.median is None else _amount(curve.median, unit)
    low, high = (None if end is None else _amount(end, unit) for end in curve.median_interval)
    mean = survival.restricted_mean(list(own.values()), horizon)
    seeds = [seed for seed in own if seed in reference] if own is not reference else []
    difference = survival.restricted_mean_difference(
        [own[seed] for seed in seeds], [reference[seed] for seed in seeds], horizon
    )
    bracket = f" [{low or '?'}, {high or 'inf'}]" if low or high else ""
    return (
        f"{curve.n - curve.misses}/{curve.n}",
        f"{median}{bracket}",
        _amount(mean.value, unit) + (f" ± {_amount(mean.standard_error, unit)}" if curve.n > 1 else ""),
        numbers.change(difference, lambda value: _amount(value, unit, signed=True)),
    )


def _amount(value: float, unit: Unit, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{value:{sign},.0f}" if unit == "updates" else f"{value:{sign}.3g} s"


def _by_machine(comparison: Comparison, setting: str, tests: list[Figure], machines: list[str]) -> Section:
    names = [chr(ord("A") + place) if place < 26 else f"M{place}" for place in range(len(machines))]
    rows = []
    for figure in tests:
        parts = blocks.by_machine(comparison, figure)
        cells = [
            f"{numbers.ratio(parts[machine])} ({parts[machine].n})" if machine in parts else numbers.NONE
            for machine in machines
        ]
        p = blocks.heterogeneity(comparison, figure)
        rows.append(
            (
                *(figure.arm, comparison.measured.target(figure.target), *cells),
                *(numbers.ratio(figure.estimate), numbers.p_value(p)),
            )
        )
    legend = "; ".join(f"{name}: {machine}" for name, machine in zip(names, machines, strict=True))
    return Section(
        "Speed-up in updates by machine, with the number of pairs, and pooled over machines",
        ("arm", "target", *names, "pooled", "p of heterogeneity"),
        tuple(rows),
        (
            f"{legend}. Both runs of a pair ran on one machine. Heterogeneity: F test that the mean log ratio is the "
            "same on every machine; a small p says that the pooled number is an average over different effects. "
            "Seconds are never pooled.",
        ),
    )
