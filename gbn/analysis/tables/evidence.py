"""Sub-tables behind the speed-ups: how certain they are, what is known despite misses, and results by machine."""

from collections.abc import Iterator, Sequence

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.evidence import Evidence
from gbn.analysis.comparison.figures import Figure
from gbn.analysis.comparison.times import Times, heterogeneity
from gbn.analysis.estimates import survival
from gbn.analysis.estimates.decisions import reach
from gbn.analysis.estimates.power import decision_in_words
from gbn.analysis.estimates.targets import Time, Unit
from gbn.analysis.tables import numbers
from gbn.analysis.tables.section import Section


def certainty(comparison: Comparison, setting: str, unit: Unit) -> Iterator[Section]:
    """Yield the sub-tables that follow "updates (or seconds) to a fixed target"."""
    runs, times = comparison.runs, comparison.times
    arms = runs.arms(setting)
    tests = comparison.evidence.tests(setting, unit, runs.plan.reference)
    tests.sort(key=lambda one: arms.index(one.arm))  # stable: the targets stay in their order
    if any(one.estimate.n > 1 for one in tests):
        yield _how_sure(comparison.evidence, times, tests)
    if any(one.estimate.arm_misses or one.estimate.reference_misses for one in tests):
        yield _censored(times, setting, unit)
    machines = sorted({*times.machines(setting, arms).values()})
    if unit == "updates" and len(machines) > 1 and tests:
        yield _by_machine(times, tests, machines)


def _how_sure(evidence: Evidence, times: Times, tests: Sequence[Figure]) -> Section:
    rows = []
    for test in tests:
        estimate = test.estimate
        other = evidence.resampled.get(test.key)
        rows.append(
            (
                test.arm,
                times.measured.target(test.target),
                str(estimate.n),
                numbers.p_value(estimate.p) + " (signs)" * (estimate.method == "median"),
                numbers.p_value(estimate.p_holm),
                numbers.interval(*other.bootstrap.percentile) if other else numbers.NONE,
                numbers.interval(*other.bootstrap.bca) if other else numbers.NONE,
                numbers.p_value(other.sign_flip) if other else numbers.NONE,
                decision_in_words(estimate),
            )
        )
    n = max(test.estimate.n for test in tests)
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


def _censored(times: Times, setting: str, unit: Unit) -> Section:
    reference, rows, horizons = times.runs.plan.reference, [], []
    for target in times.targets(setting):
        by_arm = {arm: times.of_arm(setting, arm, target, unit) for arm in times.runs.arms(setting)}
        if all(time.reached for own in by_arm.values() for time in own.values()):
            continue
        horizon = survival.common_horizon(*(list(own.values()) for own in by_arm.values()))
        if not horizon > 0:
            continue
        goal = times.measured.target(target)
        horizons.append(f"{amount(horizon, unit)} ({goal})")
        for arm, own in by_arm.items():
            rows.append((arm, goal, *_censored_cells(own, by_arm.get(reference, {}), horizon, unit)))
    return Section(
        f"Where runs missed a target: Kaplan-Meier median and mean of the {unit}, each run observed up to "
        f"the same horizon (less is faster; differences arm - {reference})",
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
    median = "not reached" if curve.median is None else amount(curve.median, unit)
    low, high = (None if end is None else amount(end, unit) for end in curve.median_interval)
    mean = survival.restricted_mean(list(own.values()), horizon)
    seeds = [seed for seed in own if seed in reference] if own is not reference else []
    difference = survival.restricted_mean_difference(
        [own[seed] for seed in seeds], [reference[seed] for seed in seeds], horizon
    )
    bracket = f" [{low or '?'}, {high or 'inf'}]" if low or high else ""
    return (
        f"{curve.n - curve.misses}/{curve.n}",
        f"{median}{bracket}",
        amount(mean.value, unit) + (f" ± {amount(mean.standard_error, unit)}" if curve.n > 1 else ""),
        numbers.change(difference, lambda value: amount(value, unit, signed=True)),
    )


def amount(value: float, unit: Unit, signed: bool = False) -> str:
    """Format an amount of updates or seconds: ``1,234``, ``-12.3 s``."""
    sign = "+" if signed else ""
    return f"{value:{sign},.0f}" if unit == "updates" else f"{value:{sign}.3g} s"


def _by_machine(times: Times, tests: Sequence[Figure], machines: Sequence[str]) -> Section:
    names = [chr(ord("A") + place) if place < 26 else f"M{place}" for place in range(len(machines))]
    rows = []
    for test in tests:
        blocks = times.by_machine(test.setting, test.arm, test.against, test.target)
        parts = {machine: block.speedup() for machine, block in blocks.items()}
        cells = [
            f"{numbers.ratio(parts[machine])} ({parts[machine].n})" if machine in parts else numbers.NONE
            for machine in machines
        ]
        rows.append(
            (
                *(test.arm, times.measured.target(test.target), *cells),
                *(numbers.ratio(test.estimate), numbers.p_value(heterogeneity(blocks.values()))),
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
