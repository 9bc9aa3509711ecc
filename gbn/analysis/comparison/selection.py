"""Selections between two stages of an experiment: which pairs pass a screen, and the learning rate of each arm.

The rules are written in the first stage's README before its runs. The second stage trains fresh seeds, so that the
selection is judged on data that did not make it. A grid that depends on a selection declares it in its key
``selected``, and :func:`check` repeats the selection from the archive.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gbn import measures
from gbn.analysis.comparison.times import Times
from gbn.measures import Measure

#: The axis of a first stage that is tuned.
RATE = "optimizer.lr"

#: The value assigned to a diverged run when a rate is chosen: the accuracy of guessing among ten classes. For another
#: measure it is the worst value (:attr:`gbn.measures.Measure.worst`).
CHANCE = 0.1


@dataclass(frozen=True)
class Ranked:
    """An arm with the number that it is ranked by.

    Attributes:
        value: the mean over runs; NaN for an excluded arm.
        n: number of runs.
        out: why the arm cannot be selected; empty if it can.
    """

    arm: str
    value: float
    n: int
    out: str = ""


def rank_by_area(times: Times, setting: str = "", without: tuple[str, ...] = ()) -> list[Ranked]:
    """Rank the arms by their mean area under the curve, best first (smallest if lower is better); ties by name.

    Args:
        times: of the screen's runs.
        setting: one of its settings.
        without: arms that are not candidates (the reference never is).

    Returns:
        All candidates; those with a missing, failed or diverged run come last, with the reason.
    """
    plan, ranked = times.runs.plan, []
    for arm in plan.arms(setting):
        if arm == plan.reference or arm in without:
            continue
        planned = len(plan.seeds(setting, arm))
        usable = times.runs.usable(setting, arm)
        diverged = int((usable.status == "diverged").sum())
        if len(usable) < planned or diverged:
            why = f"{diverged} diverged" if diverged else f"{planned - len(usable)} of {planned} runs missing"
            ranked.append(Ranked(arm, math.nan, len(usable), why))
            continue
        areas = [times.curves[setting, arm, seed].area for seed in times.runs.statuses(setting, arm)]
        ranked.append(Ranked(arm, float(pd.Series(areas, dtype=float).mean()), len(usable)))
    sign = times.measured.sign
    return sorted(ranked, key=lambda one: (bool(one.out), -sign * one.value if not one.out else 0.0, one.arm))


@dataclass(frozen=True)
class BestRate:
    """The learning rate that suits an arm best.

    Attributes:
        group: the second stage's setting that the rates are for; empty if there is only one.
        rate: as written in the axis ``optimizer.lr`` of the first stage.
        values: rate -> mean of the measure given by :func:`selecting`, in the grid's order.
        at_an_end: whether the best is the first or last rate, so that the true optimum may lie outside the grid.
    """

    group: str
    arm: str
    rate: str
    values: Mapping[str, float]
    at_an_end: bool


def best_rates(times: Times) -> list[BestRate]:
    """Return for each arm the rate with the best mean of :func:`selecting` at the last update.

    Rates are the levels of the axis ``optimizer.lr``. The levels of a setting's other axes name the setting of the
    second stage, and each arm has a best rate in each of these. A diverged run counts as :data:`CHANCE`, or as the
    worst value of another measure. The grid's order is taken as the order of rates. An arm without any finished run
    in a group is left out if others have theirs (BN at batch 1 is not applicable).

    Raises:
        ValueError: a setting has no rate; or an arm lacks runs in one, so budgets would be unequal.
    """
    plan, found = times.runs.plan, []
    groups: dict[str, dict[str, str]] = {}
    for setting in plan.settings:
        levels = dict(plan.levels.get(setting, {}))
        if RATE not in levels:
            raise ValueError(
                f"setting {setting!r} of {plan.name} has no learning rate to choose: name it by an axis, as in "
                f"axes: {{{RATE}: [0.1, 0.2]}}, settings: {{'lr_{{{RATE}}}': []}}"
            )
        rate = levels.pop(RATE)
        groups.setdefault("_".join(levels.values()), {})[rate] = setting
    for group, rates in groups.items():
        for arm in dict.fromkeys(name for setting in rates.values() for name in plan.arms(setting)):
            if group and all(times.runs.usable(setting, arm).empty for setting in rates.values()):
                continue
            values = {}
            for rate, setting in rates.items():
                found_values = _last_validation(times, setting, arm)
                planned = len(plan.seeds(setting, arm))
                if len(found_values) < planned:
                    raise ValueError(
                        f"{arm} in {setting}: {len(found_values)} of {planned} runs are there; every arm needs its "
                        "whole budget before rates are chosen: "
                        f"python scripts/reproduce.py {plan.selection.get('experiment')}"
                    )
                values[rate] = sum(found_values) / len(found_values)
            best = max(values, key=lambda rate: times.measured.sign * values[rate])
            found.append(BestRate(group, arm, best, values, best in (next(iter(values)), rate)))
    return found


def selecting(times: Times) -> Measure:
    """Return the measure that settings are chosen by: val_full_accuracy, or another on the whole set."""
    measured = times.measured
    if measured.family == "accuracy":
        return measures.measure("val_full_accuracy")
    whole = measured.key.replace("val_", "val_full_", 1).removesuffix("_exact")
    on_slice = measured.split == "validation" and not measured.whole
    return measures.measure(whole) if on_slice and times.runs.has(whole) else measured


def _last_validation(times: Times, setting: str, arm: str) -> list[float]:
    measure, values = selecting(times), []
    worst = CHANCE if measure.family == "accuracy" else measure.worst
    for seed, status in times.runs.statuses(setting, arm).items():
        (curve,) = times.runs.columns(setting, arm, seed, [measure.key])
        known = curve[np.isfinite(curve)]
        values.append(worst if status == "diverged" or not len(known) else float(known[-1]))
    return values


def check(selected: Mapping[str, Any], arms: Mapping[tuple[str, str], list[str]], times: Times) -> str | None:
    """Return how a second stage's arms differ from its first stage's selection; None if they agree.

    Args:
        selected: the second grid's key of that name: ``{experiment, scale, rule: area, top: 4, without: [...]}`` or
            ``{experiment, scale, rule: rate}``.
        arms: the second grid's (setting, arm) with their overrides; the last override of a key wins.
        times: of the first stage's.

    Raises:
        ValueError: the rule is unknown.
    """
    if selected["rule"] == "area":
        ranked = rank_by_area(times, without=tuple(selected.get("without", ())))
        wanted = [one.arm for one in ranked if not one.out][: selected["top"]]
        lacking = [arm for arm in wanted if arm not in {label for _, label in arms}]
        return (
            f"selected are {', '.join(wanted)}; not among the arms: {', '.join(lacking)}" if lacking else None
        )
    if selected["rule"] == "rate":
        for best in best_rates(times):
            rate = f"{RATE}={best.rate}"
            for (setting, arm), overrides in arms.items():
                given = [one for one in overrides if one.startswith(f"{RATE}=")]
                if arm == best.arm and best.group in ("", setting) and given[-1:] != [rate]:
                    where = f"{arm} in {setting}" if setting else arm
                    return f"{where} should train at {rate}, its overrides are {', '.join(overrides)}"
        return None
    raise ValueError(f"selected.rule={selected['rule']!r}: use area or rate")
