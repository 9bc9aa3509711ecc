"""The numbers of the sub-tables about causes, as figures for a table's .csv."""

import math
from collections.abc import Iterator

from gbn.analysis.comparison import cost, decomposition
from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.decomposition import LINKS
from gbn.analysis.estimates.estimate import Figure


def effect_figures(comparison: Comparison) -> Iterator[Figure]:
    """Yield, for every setting, the links of each chain, the cost per update and the resulting time.

    Quantities: ``effect_<of>_<link>``, where <of> is speedup, area or last and <link> is total, initialization,
    parametrisation or own; ``cost_of_update``, ``time_to_target_by_cost`` and, if an arm is a mixture,
    ``time_to_maximum_by_cost``, all against / arm.
    """
    plan = comparison.runs.plan
    costs, _ = cost.choose(comparison.runs)
    for setting in plan.settings:
        for chain in decomposition.chains(comparison, setting):
            for link in LINKS:
                yield Figure(
                    setting,
                    f"effect_{chain.quantity}_{link}",
                    chain.arm,
                    getattr(chain, link),
                    plan.reference,
                    chain.target,
                    chain.unit,
                )
        if costs is None:
            continue
        for arm in comparison.arms(setting):
            ratio = cost.ratio(costs, setting, arm, plan.reference)
            if arm == plan.reference or not ratio.n:
                continue
            yield Figure(setting, "cost_of_update", arm, ratio, plan.reference, unit="seconds")
            for target in decomposition.goals(comparison, setting):
                time = decomposition.time_ratio(comparison, costs, setting, arm, target).time
                goal = math.nan if target is None else target
                quantity = f"time_to_{'maximum' if target is None else 'target'}_by_cost"
                yield Figure(setting, quantity, arm, time, plan.reference, goal, "seconds")
