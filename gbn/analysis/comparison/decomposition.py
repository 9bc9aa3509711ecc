"""Why an arm is faster: time = updates x cost an update, and the effect of GBN taken apart by its controls.

*Time.* To a target, ``seconds(reference) / seconds(arm) = [updates(reference) / updates(arm)] x [cost(reference) /
cost(arm)]``, exactly. The first factor comes from training runs (paired by seed), the second from interleaved timing
(:mod:`gbn.analysis.comparison.cost`, paired by block). They are separate experiments and so independent: the
logarithm of the product is the sum of two independent means, with Welch and Satterthwaite's interval
(:mod:`gbn.analysis.estimates.combine`). Where a run missed the target the first factor is a median with the sign
test's interval; each factor then gets an interval of level 1 - (1 - level)/2, and their product covers with at least
`level` (Bonferroni).

*Effect.* GBN differs from BN in three things at once: on Gaussian inputs it is BN with another initial gain and
bias, it is parametrised differently, and its statistic and deviation are others where inputs are not Gaussian. Two
controls at the same seed tell them apart::

    bn / arm  =  bn / bn_matched            initialisation: BN started at the arm's gain and bias
              x  bn_matched / bn_reparam    parametrisation: BN scaled and shifted inside, as the arm is
              x  bn_reparam / arm           own: what the deviation measure itself does

Seed by seed the three multiply to the whole exactly, hence their geometric means do. Medians do not multiply.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gbn.analysis.comparison import cost as costs_of
from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.cost import Costs
from gbn.analysis.estimates import pairs as statistics
from gbn.analysis.estimates.combine import Part, sum_of_independent
from gbn.analysis.estimates.estimate import LEVEL, NOTHING, Estimate
from gbn.analysis.estimates.targets import Time, Unit
from gbn.analysis.runs.plan import Plan

#: The two kinds of controls, by their ``norm.method``, in the order of the chain.
MATCHED, REPARAM = CONTROL_METHODS = ("bn_matched", "bn_reparam")
#: The links of a chain, with what each compares: (reference, candidate) by place in (bn, matched, reparam, arm).
LINKS = {"total": (0, 3), "initialisation": (0, 1), "parametrisation": (1, 2), "own": (2, 3)}

Quantity = Literal["speedup", "area", "last"]


@dataclass(frozen=True)
class TimeRatio:
    """Seconds to a target, reference / arm, as a product.

    Attributes:
        target: the value; NaN: the best of the reference at each seed.
        updates: the speed-up in updates, over seeds.
        cost: seconds an update, reference / arm, over blocks.
        time: their product; n is the number of seeds, sd does not exist.
    """

    arm: str
    against: str
    target: float
    updates: Estimate
    cost: Estimate
    time: Estimate


@dataclass(frozen=True)
class Chain:
    """The effect of an arm as a product (speed-up) or a sum (area, last: arm - reference) of three.

    Attributes:
        names: the reference, the two controls, the arm.
        quantity: what is taken apart; `target` and `unit` belong to a speed-up.
        seeds: those that all four have.
        exact: whether the links give the whole: not where runs missed the target, for medians stand there.
        total, initialisation, parametrisation, own: the whole and its links.
    """

    names: tuple[str, str, str, str]
    quantity: Quantity
    target: float
    unit: str
    seeds: tuple[int, ...]
    exact: bool
    total: Estimate
    initialisation: Estimate
    parametrisation: Estimate
    own: Estimate

    @property
    def arm(self) -> str:
        """The arm whose effect it is."""
        return self.names[-1]


def goals(comparison: Comparison, setting: str) -> list[float | None]:
    """The targets; where an arm is a mixture also the best of the reference (None), the metric of its paper."""
    plan = comparison.runs.plan
    mixtures = any(plan.methods.get(arm) == "mixture" for arm in comparison.arms(setting))
    return [*comparison.targets(setting), *([None] if mixtures else [])]


def time_ratio(
    comparison: Comparison,
    costs: Costs,
    setting: str,
    arm: str,
    target: float | None,
    *,
    against: str | None = None,
    elsewhere: bool = False,
    level: float = LEVEL,
) -> TimeRatio:
    """Seconds to a target, reference / arm, from updates and cost; see the module's docstring.

    Args:
        target: a value of the measure; None: at each seed the best that the plan's reference reached there (Mixture
            Normalization's metric).
        against: the arm in the numerator; by default the plan's reference.
        elsewhere: take costs of another machine or configuration than the runs', for a forecast.

    Raises:
        ValueError: these costs are not of these runs' machine or configurations, and `elsewhere` is not said.
    """
    reason = None if elsewhere else costs_of.refusal(costs, comparison.runs)
    if reason:
        raise ValueError(f"{reason}, or ask for a forecast (elsewhere=True, --elsewhere)")
    against = against or comparison.runs.plan.reference
    goals: Mapping[int, float] = comparison.peaks(setting)
    if target is not None:
        goals = dict.fromkeys(comparison.pairs(setting, arm, against), target)
    seeds = [seed for seed in comparison.pairs(setting, arm, against) if seed in goals]
    ours, theirs = (
        [comparison.time(setting, name, s, goals[s], "updates") for s in seeds] for name in (arm, against)
    )
    target = math.nan if target is None else target
    updates = statistics.speedup(ours, theirs, level)
    cost = costs_of.ratio(costs, setting, arm, against, level)
    if not updates.n or not cost.n:
        return TimeRatio(arm, against, target, updates, cost, NOTHING)
    if updates.arm_misses or updates.reference_misses:
        each = 1 - (1 - level) / 2
        time = _bounded_product(
            statistics.speedup(ours, theirs, each), costs_of.ratio(costs, setting, arm, against, each)
        )
    else:
        time = product(updates, cost, level)
    return TimeRatio(arm, against, target, updates, cost, time)


def product(first: Estimate, second: Estimate, level: float = LEVEL) -> Estimate:
    """The product of two independent geometric means with Welch and Satterthwaite's interval.

    `n` is the first's. Both must be numbers with the standard deviation of their log ratios in ``sd``.
    """
    parts = [Part(math.log(one.value_low), one.sd, one.n) for one in (first, second)]
    total = sum_of_independent(parts, level)
    # Two wild pairs can have an interval beyond what a float holds.
    value, low, high = (math.inf if x > 700 else math.exp(x) for x in (total.value, total.low, total.high))
    return Estimate(value, value, low, high, first.n, "product")


def _bounded_product(updates: Estimate, cost: Estimate) -> Estimate:
    """A median known by bounds times a number; the interval from the two intervals, end by end."""
    return Estimate(
        updates.value_low * cost.value_low,
        updates.value_high * cost.value_low,
        updates.low * cost.low,
        updates.high * cost.high,
        updates.n,
        "product of a median",
        arm_misses=updates.arm_misses,
        reference_misses=updates.reference_misses,
    )


def controls_of(plan: Plan, arm: str) -> tuple[str, str] | None:
    """(bn_matched, bn_reparam) of an arm; None where one lacks, or the reference is no plain BN.

    A control is known by its ``norm.method``, and by its label ("bn_matched[arm]") where the plan has no methods.
    """
    if plan.methods.get(plan.reference, "bn") != "bn":
        return None
    found: dict[str, str] = {}
    for control in plan.controls.get(arm, ()):
        label = control.partition("[")[0]
        method = plan.methods.get(control)
        found.setdefault(method if method in CONTROL_METHODS else label, control)
    if not found.keys() >= set(CONTROL_METHODS):
        return None
    return found[MATCHED], found[REPARAM]


def chains(comparison: Comparison, setting: str) -> Iterator[Chain]:
    """Every chain of a setting: for each arm with both controls, each target in each unit, area, last value.

    An arm without a seed that it shares with its controls and the reference has none.
    """
    plan, present = comparison.runs.plan, comparison.arms(setting)
    for arm in present:
        controls = controls_of(plan, arm)
        if controls is None:
            continue
        names = (plan.reference, *controls, arm)
        if not set(names) <= set(present):
            continue
        seeds = sorted(set.intersection(*({*comparison.runs.usable(setting, name).seed} for name in names)))
        if not seeds:
            continue
        for unit in comparison.units(setting):
            for target in comparison.targets(setting):
                yield _speedup_chain(comparison, setting, names, seeds, target, unit)
        for quantity in ("area", "last"):
            yield _difference_chain(comparison, setting, names, seeds, quantity)


def _speedup_chain(
    comparison: Comparison,
    setting: str,
    names: tuple[str, str, str, str],
    seeds: list[int],
    target: float,
    unit: Unit,
) -> Chain:
    times = [[comparison.time(setting, name, int(seed), target, unit) for seed in seeds] for name in names]
    exact = all(time.reached for arm_times in times for time in arm_times)
    factor = statistics.speedup if exact else _median_speedup
    links = {
        link: factor(times[candidate], times[reference]) for link, (reference, candidate) in LINKS.items()
    }
    return Chain(names, "speedup", target, unit, tuple(map(int, seeds)), exact, **links)


def _median_speedup(arm: list[Time], reference: list[Time]) -> Estimate:
    """The median over pairs also where no run of these two missed: one kind of estimate in a chain."""
    if any(not time.reached for time in (*arm, *reference)):
        return statistics.speedup(arm, reference)
    ratios = [r.low / a.low for a, r in zip(arm, reference, strict=True)]
    return statistics.median_of_bounds([(ratio, ratio) for ratio in ratios])


def _difference_chain(
    comparison: Comparison,
    setting: str,
    names: tuple[str, str, str, str],
    seeds: list[int],
    quantity: Literal["area", "last"],
) -> Chain:
    frames = [comparison.values(setting, name)[quantity] for name in names]
    known = [seed for seed in seeds if not any(math.isnan(frame.loc[seed]) for frame in frames)]
    values = [[float(frame.loc[seed]) for seed in known] for frame in frames]
    links = {
        link: statistics.paired_difference(values[candidate], values[reference])
        for link, (reference, candidate) in LINKS.items()
    }
    return Chain(names, quantity, math.nan, "", tuple(map(int, known)), True, **links)
