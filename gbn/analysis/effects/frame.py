"""The numbers of the sub-tables about causes, as figures for a table's .csv."""

from collections.abc import Iterator

from gbn.analysis.compare import Comparison
from gbn.analysis.effects import cost, decompose
from gbn.analysis.effects.decompose import LINKS
from gbn.analysis.estimate import Figure


def effect_figures(comparison: Comparison) -> Iterator[Figure]:
    """Of every setting: the links of each chain, the cost of an update and the time made of it.

    Quantities: ``effect_<of>_<link>`` with <of> speedup, area or last and <link> total, initialisation,
    parametrisation or own; ``cost_of_update`` and ``time_to_target_by_cost``, both against / arm.
    """
    plan = comparison.runs.plan
    costs, _ = cost.choose(comparison.runs)
    for setting in plan.settings:
        for chain in decompose.chains(comparison, setting):
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
            for target in comparison.targets(setting):
                time = decompose.time_ratio(comparison, costs, setting, arm, target).time
                yield Figure(setting, "time_to_target_by_cost", arm, time, plan.reference, target, "seconds")
