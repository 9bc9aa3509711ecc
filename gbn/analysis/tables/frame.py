"""Every number of a comparison as a long frame: the contents of a table's .csv."""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from gbn.analysis.comparison import cost
from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.decomposition import goals, time_ratio
from gbn.analysis.comparison.figures import Figure
from gbn.analysis.estimates.decisions import decision
from gbn.analysis.estimates.estimate import AA
from gbn.analysis.estimates.pairs import smallest_ratio
from gbn.analysis.estimates.power import seeds_to_decide


def frame(comparison: Comparison) -> pd.DataFrame:
    """Return one row per number, unrounded: those of each arm and its comparisons, then those about causes.

    The primary interval (interval_low, interval_high) is at 95 % for each row separately. Beside it are p and p_holm,
    the interval at the level at which Holm's correction of the table tests the row (holm_*), and, for speed-ups, the
    sensitivity intervals, the permutation's p, the verdict and how many seeds would decide it (1,000,000 means that
    many or more).
    """
    made = [*comparison.figures.of_arms.values(), *comparison.evidence.contrasts.values()]
    made.sort(key=lambda figure: _place(comparison, figure))
    made += _causes(comparison)
    return pd.DataFrame([{**_estimate(figure), **_evidence(comparison, figure)} for figure in made])


def _place(comparison: Comparison, figure: Figure) -> tuple[int, ...]:
    """Return the position of a figure: the order of the sub-tables, row by row; ties keep theirs."""
    times, plan = comparison.times, comparison.runs.plan
    setting = plan.settings.index(figure.setting)
    if figure.against not in ("", plan.reference):
        return (setting, 1)  # an arm against its controls
    unit = times.units(figure.setting).index(figure.unit) + 1 if figure.unit else 0  # type: ignore[arg-type]
    targets = times.targets(figure.setting)
    target = targets.index(figure.target) if figure.target in targets else len(targets)
    arm = plan.reference if figure.arm == AA else figure.arm
    return (setting, 0, unit, target, comparison.runs.arms(figure.setting).index(arm))


def _causes(comparison: Comparison) -> Iterator[Figure]:
    """Yield, for every setting, the links of each chain, the cost per update and the resulting time.

    Quantities: ``effect_<of>_<link>``, where <of> is speedup or an endpoint and <link> one of the chain's
    (:class:`gbn.analysis.comparison.decomposition.Chain`), with "_" for spaces; ``cost_of_update``,
    ``time_to_target_by_cost`` and, if an arm is a mixture, ``time_to_maximum_by_cost``, all against / arm.
    """
    reference, costs = comparison.runs.plan.reference, comparison.evidence.costs
    for setting, chains in comparison.evidence.chains.items():
        for chain in chains:
            for link, estimate in chain.links.items():
                quantity = f"effect_{chain.quantity}_{link.replace(' ', '_')}"
                yield Figure(setting, quantity, chain.arm, estimate, reference, chain.target, chain.unit)
        for arm in comparison.runs.arms(setting) if costs else ():
            assert costs is not None
            ratio = cost.ratio(costs, setting, arm, reference)
            if arm == reference or not ratio.n:
                continue
            yield Figure(setting, "cost_of_update", arm, ratio, reference, unit="seconds")
            for target in goals(comparison.times, setting):
                time = time_ratio(comparison.times, costs, setting, arm, target).time
                goal = math.nan if target is None else target
                quantity = f"time_to_{'maximum' if target is None else 'target'}_by_cost"
                yield Figure(setting, quantity, arm, time, reference, goal, "seconds")


def _estimate(figure: Figure) -> dict[str, Any]:
    estimate = figure.estimate
    log_sd = estimate.sd if figure.quantity.startswith("speedup") else math.nan
    return {
        "setting": figure.setting,
        "quantity": figure.quantity,
        "target": figure.target,
        "unit": figure.unit,
        "arm": figure.arm,
        "against": figure.against,
        "n": estimate.n,
        "value_low": estimate.value_low,
        "value_high": estimate.value_high,
        "interval_low": estimate.low,
        "interval_high": estimate.high,
        "sd": estimate.sd,
        "method": estimate.method,
        "arm_misses": estimate.arm_misses,
        "against_misses": estimate.reference_misses,
        "saved_31_percent": figure.saved if figure.quantity == "speedup_to_maximum" else None,
        "smallest_ratio_told_from_1": smallest_ratio(log_sd, estimate.n),
        "p": estimate.p,
        "p_holm": estimate.p_holm,
        "holm_level": estimate.holm_level,
        "holm_low": estimate.holm_low,
        "holm_high": estimate.holm_high,
    }


def _evidence(comparison: Comparison, figure: Figure) -> dict[str, Any]:
    other = comparison.evidence.resampled.get(figure.key)
    if other is None:
        return {}
    return {
        "percentile_low": other.bootstrap.percentile[0],
        "percentile_high": other.bootstrap.percentile[1],
        "bca_low": other.bootstrap.bca[0],
        "bca_high": other.bootstrap.bca[1],
        "p_sign_flip": other.sign_flip,
        "verdict": decision(figure.estimate),
        "seeds_to_decide": seeds_to_decide(figure.estimate),
    }
