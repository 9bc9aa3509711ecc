"""Selections between two stages of an experiment: the pairs a screen passes on, the learning rate of each arm.

The rules are written in the first stage's README before its runs; the second stage trains fresh seeds, so what
was selected is judged on data that did not select it. A grid that rests on a selection says so by its key
``selected``, and :func:`check` makes the selection again from the archive.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gbn import measures
from gbn.analysis.comparison.comparison import Comparison
from gbn.measures import Measure

#: What a run that diverged counts for in the choice of a rate: the accuracy of guessing among ten classes. Of another
#: measure it counts for the worst value (:attr:`gbn.measures.Measure.worst`).
CHANCE = 0.1


@dataclass(frozen=True)
class Ranked:
    """An arm with the number it is ranked by.

    Attributes:
        value: the mean over runs; NaN for an arm that is out.
        n: runs behind it.
        out: why the arm cannot be selected; empty where it can.
    """

    arm: str
    value: float
    n: int
    out: str = ""


def rank_by_area(comparison: Comparison, setting: str = "", without: tuple[str, ...] = ()) -> list[Ranked]:
    """The arms by their mean area under the curve, the best first (the smallest where lower is better); ties by name.

    Args:
        comparison: of the screen's runs.
        setting: one of its settings.
        without: arms that are not candidates (the reference never is).

    Returns:
        All candidates; those with a missing, failed or diverged run stand last, with the reason.
    """
    plan, ranked = comparison.runs.plan, []
    for arm in plan.arms(setting):
        if arm == plan.reference or arm in without:
            continue
        planned = len(plan.seeds(setting, arm))
        usable = comparison.runs.usable(setting, arm)
        diverged = int((usable.status == "diverged").sum())
        if len(usable) < planned or diverged:
            why = f"{diverged} diverged" if diverged else f"{planned - len(usable)} of {planned} runs missing"
            ranked.append(Ranked(arm, math.nan, len(usable), why))
            continue
        ranked.append(Ranked(arm, float(comparison.values(setting, arm).area.mean()), len(usable)))
    sign = comparison.measured.sign
    return sorted(ranked, key=lambda one: (bool(one.out), -sign * one.value if not one.out else 0.0, one.arm))


@dataclass(frozen=True)
class BestSetting:
    """The setting (learning rate) that suits an arm best.

    Attributes:
        group: the second stage's setting that the rates are for; empty where there is one.
        values: setting -> mean of what :func:`selecting` says, in the grid's order.
        at_an_end: the best is the first or last setting, so the true optimum may lie outside the grid.
    """

    group: str
    arm: str
    setting: str
    values: Mapping[str, float]
    at_an_end: bool


def rate_of(setting: str) -> tuple[str, str]:
    """The second stage's setting and the rate in a first stage's setting: ``[<setting>_]lr_<rate>``.

    >>> rate_of("mnist_batch_1_lr_0.25")
    ('mnist_batch_1', '0.25')
    >>> rate_of("lr_0.25")
    ('', '0.25')
    """
    group, _, rate = setting.rpartition("lr_")
    return group.removesuffix("_"), rate


def best_settings(comparison: Comparison) -> list[BestSetting]:
    """For each arm the setting with the best mean of :func:`selecting` at the last update.

    Where settings are named ``<setting>_lr_<rate>``, for each arm in each second-stage setting. A run that diverged
    counts as :data:`CHANCE`, or for the worst value of another measure. The grid's order of settings is taken as the
    order of rates. An arm without a single finished run in a group is left out if others have theirs (BN at batch 1
    is not applicable).

    Raises:
        ValueError: an arm lacks runs in a setting, so that budgets would not be equal.
    """
    plan, found = comparison.runs.plan, []
    groups: dict[str, list[str]] = {}
    for setting in plan.settings:
        groups.setdefault(rate_of(setting)[0], []).append(setting)
    for group, settings in groups.items():
        for arm in dict.fromkeys(name for setting in settings for name in plan.arms(setting)):
            if group and all(comparison.runs.usable(setting, arm).empty for setting in settings):
                continue
            values = {}
            for setting in settings:
                found_values = _last_validation(comparison, setting, arm)
                planned = len(plan.seeds(setting, arm))
                if len(found_values) < planned:
                    raise ValueError(
                        f"{arm} in {setting}: {len(found_values)} of {planned} runs are there; every arm needs its "
                        "whole budget before rates are chosen: "
                        f"python scripts/reproduce.py {plan.selection.get('experiment')}"
                    )
                values[setting] = sum(found_values) / len(found_values)
            best = max(settings, key=lambda name: comparison.measured.sign * values[name])
            found.append(BestSetting(group, arm, best, values, best in (settings[0], settings[-1])))
    return found


def selecting(comparison: Comparison) -> Measure:
    """What settings are chosen by: accuracy on the whole validation set; another measure there, or as it stands."""
    measured = comparison.measured
    if measured.family == "accuracy":
        return measures.measure("val_full_accuracy")
    whole = measured.key.replace("val_", "val_full_", 1).removesuffix("_exact")
    on_slice = measured.split == "validation" and not measured.whole
    return measures.measure(whole) if on_slice and comparison.has(whole) else measured


def _last_validation(comparison: Comparison, setting: str, arm: str) -> list[float]:
    measure, values = selecting(comparison), []
    worst = CHANCE if measure.family == "accuracy" else measure.worst
    for seed, status in comparison.runs.statuses(setting, arm).items():
        (curve,) = comparison.runs.columns(setting, arm, seed, [measure.key])
        known = curve[np.isfinite(curve)]
        values.append(worst if status == "diverged" or not len(known) else float(known[-1]))
    return values


def check(
    selected: Mapping[str, Any], arms: Mapping[tuple[str, str], list[str]], comparison: Comparison
) -> str | None:
    """Whether a second stage's arms are what its first stage selects; None where they are.

    Args:
        selected: the second grid's key of that name: ``{experiment, scale, rule: area, top: 4, without: [...]}`` or
            ``{experiment, scale, rule: rate}``.
        arms: the second grid's (setting, arm) with their overrides, of which the last one of a key holds.
        comparison: the first stage's.

    Raises:
        ValueError: an unknown rule.
    """
    if selected["rule"] == "area":
        ranked = rank_by_area(comparison, without=tuple(selected.get("without", ())))
        wanted = [one.arm for one in ranked if not one.out][: selected["top"]]
        lacking = [arm for arm in wanted if arm not in {label for _, label in arms}]
        return (
            f"selected are {', '.join(wanted)}; not among the arms: {', '.join(lacking)}" if lacking else None
        )
    if selected["rule"] == "rate":
        for best in best_settings(comparison):
            rate = f"optimizer.lr={rate_of(best.setting)[1]}"
            for (setting, arm), overrides in arms.items():
                given = [one for one in overrides if one.startswith("optimizer.lr=")]
                if arm == best.arm and best.group in ("", setting) and given[-1:] != [rate]:
                    where = f"{arm} in {setting}" if setting else arm
                    return f"{where} should train at {rate}, its overrides are {', '.join(overrides)}"
        return None
    raise ValueError(f"selected.rule={selected['rule']!r}: allowed are area, rate")
