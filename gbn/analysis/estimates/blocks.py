"""Pairs from several machines: each machine's speed-up beside the pooled one, for updates only.

A machine's rounding may change a curve but presumably not the effect. Pairs are homogeneous, so whatever a machine
does to both runs cancels in the ratio. Whether the effect itself differs between machines is tested rather than
assumed.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from gbn.analysis.estimates import pairs
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.estimates.targets import Time

if TYPE_CHECKING:
    from gbn.analysis.comparison.comparison import Comparison
    from gbn.analysis.estimates.estimate import Figure


def machines(comparison: "Comparison", setting: str) -> list[str]:
    """Return the sorted machines (device kind, versions, kernels) that a setting's usable runs used."""
    return sorted(
        {m for arm in comparison.arms(setting) for m in _machine_of(comparison, setting, arm).values()}
    )


def by_machine(comparison: "Comparison", figure: "Figure") -> dict[str, Estimate]:
    """Return the speed-up of a figure ("speedup_to_target", in updates) on each machine that has pairs for it."""
    return {machine: pairs.speedup(*times) for machine, times in _blocks(comparison, figure).items()}


def heterogeneity(comparison: "Comparison", figure: "Figure") -> float:
    """Return the p value of the F test (one-way analysis of variance) that all machines share one mean log ratio.

    NaN if a run missed the target, there is only one machine, or no machine has two pairs.
    """
    if figure.estimate.method != "paired t":
        return math.nan
    blocks = _blocks(comparison, figure).values()
    return f_test([np.array(pairs.log_ratios(*times)) for times in blocks])


def f_test(groups: list[np.ndarray]) -> float:
    """Return the p value of a one-way analysis of variance; NaN without two groups or a degree of freedom."""
    k, n = len(groups), sum(map(len, groups))
    if k < 2 or n <= k:
        return math.nan
    from scipy.special import fdtrc

    mean = float(np.concatenate(groups).mean())
    between = sum(len(group) * (float(group.mean()) - mean) ** 2 for group in groups) / (k - 1)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (n - k)
    if within == 0:
        return 1.0 if between == 0 else 0.0
    return float(fdtrc(k - 1, n - k, between / within))


def _blocks(comparison: "Comparison", figure: "Figure") -> dict[str, tuple[list[Time], list[Time]]]:
    """Return machine -> (times of the arm, times of the other arm) for the pairs that ran there."""
    machine_of = _machine_of(comparison, figure.setting, figure.arm)
    found: dict[str, tuple[list[Time], list[Time]]] = {}
    for seed in comparison.pairs(figure.setting, figure.arm, figure.against):
        ours, theirs = found.setdefault(machine_of[seed], ([], []))
        for name, times in ((figure.arm, ours), (figure.against, theirs)):
            times.append(comparison.time(figure.setting, name, seed, figure.target, "updates"))
    return found


def _machine_of(comparison: "Comparison", setting: str, arm: str) -> dict[int, str]:
    usable = comparison.runs.usable(setting, arm)
    return {int(seed): str(machine) for seed, machine in zip(usable.seed, usable.machine, strict=True)}
