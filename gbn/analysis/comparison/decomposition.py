"""Decompositions: time = updates x cost per update, and the effect of GBN split by its controls.

*Time.* To a target, ``seconds(reference) / seconds(arm) = [updates(reference) / updates(arm)] x [cost(reference) /
cost(arm)]``, exactly. The first factor comes from training runs (paired by seed), the second from interleaved timing
(:mod:`gbn.analysis.comparison.cost`, paired by block). They are separate experiments and therefore independent: the
logarithm of the product is the sum of two independent means, with the Welch-Satterthwaite interval
(:mod:`gbn.analysis.estimates.combine`). If a run missed the target, the first factor is a median with the interval of
the sign test; each factor then gets an interval of level 1 - (1 - level)/2, and their product covers with probability
at least `level` (Bonferroni).

*Effect.* GBN differs from BN in three ways at once: on Gaussian inputs it is BN with another initial gain and bias;
it is parametrized differently; and on non-Gaussian inputs its statistic and deviation have other values. Two controls
at the same seed separate these::

    bn / arm  =  bn / bn_matched            initialization: BN started at the arm's gain and bias
              x  bn_matched / bn_reparam    parametrization: BN scaled and shifted inside, as the arm is
              x  bn_reparam / arm           own: the effect of the deviation measure itself

For each seed the product of the three is exactly the whole, and so it is for their geometric means, but not for
medians.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gbn.analysis.comparison import cost
from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.cost import Costs
from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.combine import Part, sum_of_independent
from gbn.analysis.estimates.estimate import LEVEL, NOTHING, Estimate
from gbn.analysis.estimates.targets import Time, Unit
from gbn.analysis.runs.plan import Plan
from gbn.methods import CHAIN

#: The two kinds of controls, by ``norm.method``, in the order of the chain.
MATCHED, REPARAM = CHAIN
#: The links of a chain, each as (reference, candidate) by position in (bn, matched, reparam, arm).
LINKS = {"total": (0, 3), "initialization": (0, 1), "parametrisation": (1, 2), "own": (2, 3)}

Quantity = Literal["speedup", "area", "last"]


@dataclass(frozen=True)
class TimeRatio:
    """Seconds to a target, reference / arm, as a product.

    Attributes:
        target: the value; NaN means the best of the reference at each seed.
        updates: the speed-up in updates, over seeds.
        cost: seconds per update, reference / arm, over blocks.
        time: their product; n is the number of seeds, sd is undefined.
    """

    arm: str
    against: str
    target: float
    updates: Estimate
    cost: Estimate
    time: Estimate


@dataclass(frozen=True)
class Chain:
    """The effect of an arm as a product (speed-up) or a sum (area, last: arm - reference) of three links.

    Attributes:
        names: the reference, the two controls, the arm.
        quantity: the decomposed quantity; `target` and `unit` apply to a speed-up.
        seeds: the seeds that all four arms have.
        exact: whether the links give the whole; False if runs missed the target, since the links are then medians.
        total, initialization, parametrisation, own: the whole and its links.
    """

    names: tuple[str, str, str, str]
    quantity: Quantity
    target: float
    unit: str
    seeds: tuple[int, ...]
    exact: bool
    total: Estimate
    initialization: Estimate
    parametrisation: Estimate
    own: Estimate

    @property
    def arm(self) -> str:
        """The arm whose effect is decomposed."""
        return self.names[-1]


def goals(comparison: Comparison, setting: str) -> list[float | None]:
    """Return the targets, and None (the best of the reference, the metric of the paper) if an arm is a mixture."""
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
    """Return seconds to a target, reference / arm, from updates and cost; see the module's docstring.

    Args:
        target: a value of the measure; None means the best that the plan's reference reached at each seed (Mixture
            Normalization's metric).
        against: the arm in the numerator; by default the plan's reference.
        elsewhere: accept costs of another machine or configuration than the runs', for a forecast.

    Raises:
        ValueError: the costs are not from the runs' machine or configurations, and `elsewhere` is False.
    """
    reason = None if elsewhere else cost.refusal(costs, comparison.runs)
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
    updates = pairs.speedup(ours, theirs, level)
    per_update = cost.ratio(costs, setting, arm, against, level)
    if not updates.n or not per_update.n:
        return TimeRatio(arm, against, target, updates, per_update, NOTHING)
    if updates.arm_misses or updates.reference_misses:
        each = 1 - (1 - level) / 2
        time = _bounded_product(
            pairs.speedup(ours, theirs, each), cost.ratio(costs, setting, arm, against, each)
        )
    else:
        time = product(updates, per_update, level)
    return TimeRatio(arm, against, target, updates, per_update, time)


def product(first: Estimate, second: Estimate, level: float = LEVEL) -> Estimate:
    """Return the product of two independent geometric means with its Welch-Satterthwaite interval.

    `n` is taken from `first`. Both must be numbers, with the standard deviation of their log ratios in ``sd``.
    """
    parts = [Part(math.log(one.value_low), one.sd, one.n) for one in (first, second)]
    total = sum_of_independent(parts, level)
    # The interval of two very noisy pairs can exceed the range of a float.
    value, low, high = (math.inf if x > 700 else math.exp(x) for x in (total.value, total.low, total.high))
    return Estimate(value, value, low, high, first.n, "product")


def _bounded_product(updates: Estimate, per_update: Estimate) -> Estimate:
    """Return a median known by bounds times a number; the interval is the product of both, end by end."""
    return Estimate(
        updates.value_low * per_update.value_low,
        updates.value_high * per_update.value_low,
        updates.low * per_update.low,
        updates.high * per_update.high,
        updates.n,
        "product of a median",
        arm_misses=updates.arm_misses,
        reference_misses=updates.reference_misses,
    )


def controls_of(plan: Plan, arm: str) -> tuple[str, str] | None:
    """Return (bn_matched, bn_reparam) of an arm; None if one is missing or the reference is not plain BN.

    A control is identified by its ``norm.method``, or by its label ("bn_matched[arm]") if the plan has no methods.
    """
    if plan.methods.get(plan.reference, "bn") != "bn":
        return None
    found: dict[str, str] = {}
    for control in plan.controls.get(arm, ()):
        label = control.partition("[")[0]
        method = plan.methods.get(control)
        found.setdefault(method if method in CHAIN else label, control)
    if not found.keys() >= set(CHAIN):
        return None
    return found[MATCHED], found[REPARAM]


def chains(comparison: Comparison, setting: str) -> Iterator[Chain]:
    """Yield every chain of a setting: for each arm with both controls, each target in each unit, area, last value.

    An arm is skipped if it shares no seed with its controls and the reference.
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
    factor = pairs.speedup if exact else _median_speedup
    links = {
        link: factor(times[candidate], times[reference]) for link, (reference, candidate) in LINKS.items()
    }
    return Chain(names, "speedup", target, unit, tuple(map(int, seeds)), exact, **links)


def _median_speedup(arm: list[Time], reference: list[Time]) -> Estimate:
    """Return the median over pairs even if neither run missed, so that a chain has only one kind of estimate."""
    if any(not time.reached for time in (*arm, *reference)):
        return pairs.speedup(arm, reference)
    ratios = [r.low / a.low for a, r in zip(arm, reference, strict=True)]
    return pairs.median_of_bounds([(ratio, ratio) for ratio in ratios])


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
        link: pairs.paired_difference(values[candidate], values[reference])
        for link, (reference, candidate) in LINKS.items()
    }
    return Chain(names, quantity, math.nan, "", tuple(map(int, known)), True, **links)
