"""Each arm against another, and how sure that is: pairs with their intervals, A/A rows, Holm's correction, causes.

The verdict on a speed-up is that of the primary analysis (paired t on log ratios, or the sign test if a run missed)
after Holm. Bootstrap and sign flips show whether it depends on that choice; they decide nothing.

A family of Holm's is everything that a reader sees at once and could pick from: all rows and targets of one table (a
setting, a quantity and a unit). Comparisons with the reference and comparisons with controls are separate families.
A/A rows test nothing.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gbn.analysis.comparison import cost
from gbn.analysis.comparison.cost import Costs
from gbn.analysis.comparison.decomposition import Chain, chains
from gbn.analysis.comparison.figures import Figure, Figures, Key
from gbn.analysis.comparison.times import Times
from gbn.analysis.estimates import pairs, resampling
from gbn.analysis.estimates.decisions import holm, holm_levels
from gbn.analysis.estimates.estimate import AA, ALPHA, NOTHING, Estimate
from gbn.analysis.estimates.resampling import Bootstrap
from gbn.analysis.estimates.targets import Unit

#: Savings that count in the column "saved 31 %": the low end of the 31 to 47 % published for Mixture Normalization.
PUBLISHED_SAVING = 0.31


@dataclass(frozen=True)
class Resampled:
    """A speed-up without assuming a normal distribution.

    Attributes:
        bootstrap: intervals over resampled pairs; NaN if a run missed the target.
        sign_flip: p value of the permutation test; NaN if a run missed.
    """

    bootstrap: Bootstrap
    sign_flip: float


@dataclass(frozen=True)
class Evidence:
    """All comparisons of two arms, after Holm's correction.

    Attributes:
        contrasts: every difference and speed-up, A/A rows included, in the order of the tables.
        resampled: the same speed-ups (those that have a pair, without A/A) by other methods.
        chains: setting -> where the effects of its arms come from.
        costs: the timings of an update that apply to these runs; None if there are none.
        refused_costs: why newer timings do not apply.
    """

    contrasts: Mapping[Key, Figure]
    resampled: Mapping[Key, Resampled]
    chains: Mapping[str, tuple[Chain, ...]]
    costs: Costs | None
    refused_costs: tuple[str, ...]

    def estimate(
        self, setting: str, quantity: str, arm: str, against: str, unit: str = "", target: float | None = None
    ) -> Estimate:
        """Return the estimate of a contrast; of no pairs if there is none."""
        found = self.contrasts.get((setting, quantity, arm, against, unit, target))
        return NOTHING if found is None else found.estimate

    def tests(self, setting: str, unit: Unit, reference: str) -> list[Figure]:
        """Return the family of speed-ups over the reference at the fixed targets, without A/A."""
        family = (setting, "speedup_to_target", unit, reference)
        return [
            one
            for one in self.contrasts.values()
            if (one.setting, one.quantity, one.unit, one.against) == family and one.arm != AA
        ]


def evidence_of(times: Times, figures: Figures) -> Evidence:
    """Return the evidence of some runs."""
    plan = times.runs.plan
    made = [one for setting in plan.settings for one in _contrasts(times, figures, setting)]
    contrasts = {one.key: one for one in corrected(made, plan.reference)}
    speedups = {
        key: one.estimate
        for key, one in contrasts.items()
        if one.quantity.startswith("speedup") and one.estimate.n and one.arm != AA
    }
    costs, refused = cost.choose(times.runs)
    return Evidence(
        contrasts,
        dict(zip(speedups, resample(list(speedups.values())), strict=True)),
        {setting: tuple(chains(times, figures, setting)) for setting in plan.settings},
        costs,
        tuple(refused),
    )


def resample(speedups: Sequence[Estimate]) -> list[Resampled]:
    """Return the sensitivity analyses of speed-ups; all at once, since they share resamples."""
    logs = [
        [math.log(low) for low, _ in estimate.ratios] if estimate.method == "paired t" else []
        for estimate in speedups
    ]
    flipped = resampling.sign_flips(logs)
    return [Resampled(resampling.bootstrap(own), p) for own, p in zip(logs, flipped, strict=True)]


def _contrasts(times: Times, figures: Figures, setting: str) -> Iterator[Figure]:
    """Yield everything that one setting compares, before Holm's correction."""
    plan, arms = times.runs.plan, times.runs.arms(setting)
    reference = plan.reference
    if reference in arms:
        for arm in arms:
            if arm != reference:
                yield from _differences(times, figures, setting, arm, reference)
        for unit in times.units(setting):
            for target in times.targets(setting):
                for arm in arms:
                    if arm != reference:
                        yield _speedup(times, setting, arm, reference, target, unit)
                        continue
                    aa = pairs.aa_fixed_target([*times.of_arm(setting, arm, target, unit).values()])
                    yield Figure(setting, "speedup_to_target", AA, aa, reference, target, unit)
            yield from _to_maximum(times, setting, unit)
    for arm, controls in plan.controls.items():
        for control in controls:
            if arm in arms and control in arms:
                yield from _differences(times, figures, setting, arm, control)
                for unit in times.units(setting):
                    for target in times.targets(setting):
                        yield _speedup(times, setting, arm, control, target, unit)


def _differences(times: Times, figures: Figures, setting: str, arm: str, against: str) -> Iterator[Figure]:
    seeds = times.runs.pairs(setting, arm, against)
    ours, theirs = (figures.of_runs[setting, name].loc[seeds] for name in (arm, against))
    for name in (one.name for one in figures.endpoints if one.compared):
        estimate = pairs.paired_difference(ours[name].tolist(), theirs[name].tolist())
        yield Figure(setting, f"{name}_difference", arm, estimate, against)


def _speedup(times: Times, setting: str, arm: str, against: str, target: float, unit: Unit) -> Figure:
    estimate = times.pairs(setting, arm, against, target, unit).speedup()
    return Figure(setting, "speedup_to_target", arm, estimate, against, target, unit)


def _to_maximum(times: Times, setting: str, unit: Unit) -> Iterator[Figure]:
    """Yield speed-ups to the best that the reference reached at the pair's seed: Mixture Normalization's metric."""
    reference = times.runs.plan.reference
    bests = times.bests(setting, reference)
    for arm in times.runs.arms(setting):
        if arm == reference:
            # the time that each run took to the best values of all
            table = [
                times.curves[setting, arm, seed].times_to([*bests.values()], unit, times.interpolation)
                for seed in bests
            ]
            estimate, name = pairs.aa_maximum(table), AA
            places = range(len(table))
            both = [(table[i][j], table[j][j]) for i in places for j in places if i != j]
        else:
            found = times.pairs(setting, arm, reference, None, unit)
            estimate, name = found.speedup(), arm
            both = list(zip(found.arm, found.against, strict=True))
        saved = sum(a.reached and a.high <= (1 - PUBLISHED_SAVING) * r.low for a, r in both)
        yield Figure(setting, "speedup_to_maximum", name, estimate, reference, unit=unit, saved=saved)


def corrected(figures: Sequence[Figure], reference: str, alpha: float = ALPHA) -> list[Figure]:
    """Return the figures in the same order, each test with Holm's p and the interval at the level Holm tests it."""
    families: dict[tuple[str, str, str, bool], list[int]] = defaultdict(list)
    for index, one in enumerate(figures):
        if one.against and one.estimate.method != "A/A":
            families[one.setting, one.quantity, one.unit, one.against == reference].append(index)
    changed = list(figures)
    for members in families.values():
        p = [figures[index].estimate.p for index in members]
        for index, adjusted, level in zip(members, holm(p), holm_levels(p, alpha), strict=True):
            estimate = figures[index].estimate
            ratio = figures[index].quantity.startswith("speedup")
            low, high = pairs.interval_at(estimate, level, ratio=ratio)
            changed[index] = replace(
                figures[index],
                estimate=replace(estimate, p_holm=adjusted, holm_level=level, holm_low=low, holm_high=high),
            )
    return changed
