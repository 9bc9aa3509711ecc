"""Decompositions: time = updates x cost per update, and the effect of GBN split by its controls.

*Time.* To a target, ``seconds(reference) / seconds(arm) = [updates(reference) / updates(arm)] x [cost(reference) /
cost(arm)]``, exactly. The first factor comes from training runs (paired by seed), the second from interleaved timing
(:mod:`gbn.analysis.comparison.cost`, paired by block). They are separate experiments and therefore independent: the
logarithm of the product is the sum of two independent means, with the Welch-Satterthwaite interval
(:mod:`gbn.analysis.estimates.combine`). If a run missed the target, the first factor is a median with the interval of
the sign test; each factor then gets an interval of level 1 - (1 - level)/2, and their product covers with probability
at least `level` (Bonferroni).

*Effect.* GBN differs from BN in several ways at once: on Gaussian inputs it is BN with another initial gain and bias;
it is parametrized differently; real inputs are not Gaussian, so that its scale and shift have other values; and these
change with the data. Controls at the same seed separate these::

    bn / arm  =  bn / bn_matched                     initialization: BN started at the arm's gain and bias
              x  bn_matched / bn_reparam             parametrization: BN scaled and shifted inside, as the arm is
              x  bn_reparam / bn_measured_reparam    calibration: scale and shift of the first batch, not a Gaussian's
              x  bn_measured_reparam / arm           shape: the effect of the deviation measure itself

Without ``bn_measured_reparam`` the last factor, bn_reparam / arm, is called "calibration and shape", since nothing
separates the two. In instance enhancement, whose pair is BN's, and in a mixture, whose controls measure the first
batch, there is nothing to calibrate: the last factor is their "own".

For each seed the product of the factors is exactly the whole, and so it is for their geometric means, but not for
medians.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gbn.analysis.comparison import cost
from gbn.analysis.comparison.cost import Costs
from gbn.analysis.comparison.figures import Figures
from gbn.analysis.comparison.times import Times
from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.combine import Summand, sum_of_independent
from gbn.analysis.estimates.estimate import LEVEL, NOTHING, Estimate
from gbn.analysis.estimates.targets import Time
from gbn.analysis.runs.plan import Plan
from gbn.methods import CHAIN, COMMON_CONTROLS

#: The methods whose Gaussian controls need no calibration.
_CALIBRATED = ("iebn", "mixture")


@dataclass(frozen=True)
class TimeRatio:
    """Seconds to a target, reference / arm, as a product.

    Attributes:
        updates: the speed-up in updates, over seeds.
        cost: seconds per update, reference / arm, over blocks.
        time: their product; n is the number of seeds, sd is undefined.
    """

    updates: Estimate
    cost: Estimate
    time: Estimate


@dataclass(frozen=True)
class Chain:
    """The effect of an arm as a product (speed-up) or a sum (endpoints: arm - reference) of its links.

    Attributes:
        names: the reference, the controls, the arm.
        quantity: "speedup", or the name of an endpoint; `target` and `unit` apply to a speed-up.
        seeds: the seeds that all these arms have.
        exact: whether the links give the whole; False if runs missed the target, since the links are then medians.
        links: "total", then the factors in the order of the chain: of each control in
            :data:`gbn.methods.CHAIN`, and last "shape", "calibration and shape" or "own".
    """

    names: tuple[str, ...]
    quantity: str
    target: float
    unit: str
    seeds: tuple[int, ...]
    exact: bool
    links: Mapping[str, Estimate]

    @property
    def arm(self) -> str:
        """The arm whose effect is decomposed."""
        return self.names[-1]


def goals(times: Times, setting: str) -> list[float | None]:
    """Return the targets, and None (the best of the reference, the metric of the paper) if an arm is a mixture."""
    methods = times.runs.plan.methods
    mixtures = any(methods.get(arm) == "mixture" for arm in times.runs.arms(setting))
    return [*times.targets(setting), *([None] if mixtures else [])]


def time_ratio(
    times: Times,
    costs: Costs,
    setting: str,
    arm: str,
    target: float | None,
    *,
    elsewhere: bool = False,
    level: float = LEVEL,
) -> TimeRatio:
    """Return seconds to a target, reference / arm, from updates and cost; see the module's docstring.

    Args:
        target: a value of the measure; None means the best that the reference reached at each seed (Mixture
            Normalization's metric).
        elsewhere: accept costs of another machine or configuration than the runs', for a forecast.

    Raises:
        ValueError: the costs are not from the runs' machine or configurations, and `elsewhere` is False.
    """
    reason = None if elsewhere else cost.refusal(costs, times.runs)
    if reason:
        raise ValueError(f"{reason}, or ask for a forecast (elsewhere=True, --elsewhere)")
    reference = times.runs.plan.reference
    both = times.pairs(setting, arm, reference, target, "updates")
    updates, per_update = both.speedup(level), cost.ratio(costs, setting, arm, reference, level)
    if not updates.n or not per_update.n:
        return TimeRatio(updates, per_update, NOTHING)
    if updates.arm_misses or updates.reference_misses:
        each = 1 - (1 - level) / 2
        time = _bounded_product(both.speedup(each), cost.ratio(costs, setting, arm, reference, each))
    else:
        time = product(updates, per_update, level)
    return TimeRatio(updates, per_update, time)


def product(first: Estimate, second: Estimate, level: float = LEVEL) -> Estimate:
    """Return the product of two independent geometric means with its Welch-Satterthwaite interval.

    `n` is taken from `first`. Both must be numbers, with the standard deviation of their log ratios in ``sd``.
    """
    terms = [Summand(math.log(one.value_low), one.sd, one.n) for one in (first, second)]
    total = sum_of_independent(terms, level)
    value, low, high = map(pairs.exp, (total.value, total.low, total.high))
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


def controls_of(plan: Plan, arm: str) -> tuple[str, ...] | None:
    """Return the controls of an arm in the chain's order, those that measure only if it has them.

    None if it lacks one of the others, or if the reference is not plain BN.
    """
    if plan.methods.get(plan.reference, "bn") != "bn":
        return None
    found: dict[str, str] = {}
    for control in plan.controls.get(arm, ()):
        found.setdefault(plan.method_of_control(control), control)
    if not found.keys() >= {*COMMON_CONTROLS}:
        return None
    return tuple(found[method] for method in CHAIN if method in found)


def _links(plan: Plan, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return what each link of a chain leads from and to, by position in (reference, controls..., arm)."""
    factors = [CHAIN[plan.method_of_control(control)] for control in names[1:-1]]
    if plan.methods.get(names[-1]) in _CALIBRATED:
        factors.append("own")
    else:
        factors.append("shape" if "calibration" in factors else "calibration and shape")
    steps = {name: (place, place + 1) for place, name in enumerate(factors)}
    return {"total": (0, len(factors)), **steps}


def chains(times: Times, figures: Figures, setting: str) -> Iterator[Chain]:
    """Yield every chain of a setting: per arm with all controls, each target in each unit, area, last value.

    An arm is skipped if it shares no seed with its controls and the reference.
    """
    plan, present = times.runs.plan, times.runs.arms(setting)
    for arm in present:
        controls = controls_of(plan, arm)
        names = (plan.reference, *(controls or ()), arm)
        seeds = times.runs.pairs(setting, *names) if controls and {*names} <= {*present} else []
        if not seeds:
            continue
        steps = _links(plan, names)
        for unit in times.units(setting):
            for target in times.targets(setting):
                reached = [
                    [times.time(setting, name, seed, target, unit) for seed in seeds] for name in names
                ]
                exact = all(time.reached for of_arm in reached for time in of_arm)
                factor = pairs.speedup if exact else _median_speedup
                links = {link: factor(reached[to], reached[start]) for link, (start, to) in steps.items()}
                yield Chain(names, "speedup", target, unit, tuple(seeds), exact, links)
        for endpoint in reversed([one.name for one in figures.endpoints if one.compared]):
            columns = [figures.of_runs[setting, name].loc[seeds, endpoint] for name in names]
            known = [seed for seed in seeds if not any(math.isnan(column[seed]) for column in columns)]
            values = [column.loc[known].tolist() for column in columns]
            links = {
                link: pairs.paired_difference(values[to], values[start])
                for link, (start, to) in steps.items()
            }
            yield Chain(names, endpoint, math.nan, "", tuple(known), True, links)


def _median_speedup(arm: Sequence[Time], reference: Sequence[Time]) -> Estimate:
    """Return the median over pairs even if neither run missed, so that a chain has only one kind of estimate."""
    if any(not time.reached for time in (*arm, *reference)):
        return pairs.speedup(arm, reference)
    ratios = [r.low / a.low for a, r in zip(arm, reference, strict=True)]
    return pairs.median_of_bounds([(ratio, ratio) for ratio in ratios])
