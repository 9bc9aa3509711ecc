"""The first paragraph: what the runs show, computed from the figures."""

import math
from collections import Counter
from dataclasses import dataclass

from gbn.analysis.comparison.comparison import Comparison
from gbn.analysis.comparison.figures import Figure
from gbn.analysis.estimates.decisions import Decision, decision
from gbn.analysis.estimates.power import decision_in_words
from gbn.analysis.tables import numbers

#: In a group with more arms than this, some are named and the rest counted.
NAMED = 6

#: The groups in order: a verdict after Holm's correction, and the tone of its badge.
GROUPS: tuple[tuple[Decision, str], ...] = (
    ("faster", "good"),
    ("slower", "bad"),
    ("equal within 5 %", "same"),
    ("inconclusive", "open"),
)


@dataclass(frozen=True)
class Group:
    """Arms with the same verdict: the badge, and one line per arm (of many, only those farthest from 1)."""

    word: str
    tone: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """The answer from the runs of one setting: a sentence, and the arms by verdict."""

    setting: str
    text: str
    groups: tuple[Group, ...] = ()


def counts(comparison: Comparison) -> list[tuple[str, int]]:
    """Return (status, number of runs), the most important status first."""
    order = (
        *("finished", "diverged", "failed", "running"),
        *("interrupted", "not_applicable", "left out", "missing"),
    )
    found = Counter(comparison.runs.runs.status)
    ordered = sorted(found, key=lambda status: order.index(status) if status in order else len(order))
    return [(status.replace("_", " "), found[status]) for status in ordered]


def answers(comparison: Comparison) -> list[Answer]:
    """Return one answer per setting that has runs."""
    return [_answer(comparison, s) for s in comparison.runs.plan.settings if comparison.runs.arms(s)]


def _answer(comparison: Comparison, setting: str) -> Answer:
    plan, arms = comparison.runs.plan, comparison.runs.arms(setting)
    if plan.reference not in arms:
        return Answer(setting, f"No run of the reference {plan.reference} yet, so no speed-up can be given.")
    controls = {control for inner in plan.controls.values() for control in inner}
    own = [arm for arm in arms if arm != plan.reference and arm not in controls]
    if not own:
        return Answer(setting, f"No arm but the reference {plan.reference} has a run: nothing is compared.")
    if not comparison.times.targets(setting):
        return Answer(setting, "No target is fixed, so no speed-up can be given.")
    target, figures = _telling(comparison, setting, own)
    goal = comparison.measured.target(target) + " accuracy" * (comparison.measured.family == "accuracy")
    if not figures:
        return Answer(setting, "No pair of runs (same seed) to compare yet.")
    words = {figure.arm: decision(figure.estimate) for figure in figures}
    groups = ((word, tone, [f for f in figures if words[f.arm] == word]) for word, tone in GROUPS)
    return Answer(
        setting,
        f"To {goal}, speed-up over {plan.reference} in updates (above 1 is faster), by verdict "
        "after Holm's correction:",
        tuple(Group(word, tone, _group(inside)) for word, tone, inside in groups if inside),
    )


def _telling(comparison: Comparison, setting: str, arms: list[str]) -> tuple[float, list[Figure]]:
    """Return the hardest target at which some arm has an interval, else the easiest, with the figures there."""
    reference, targets = comparison.runs.plan.reference, comparison.times.targets(setting)
    for target in reversed(targets):
        keys = ((setting, "speedup_to_target", arm, reference, "updates", target) for arm in arms)
        figures = [f for key in keys if (f := comparison.evidence.contrasts.get(key)) and f.estimate.n]
        if any(not math.isnan(figure.estimate.low) for figure in figures) or target == targets[0]:
            break
    return target, figures


def _group(group: list[Figure]) -> tuple[str, ...]:
    if len(group) <= NAMED:
        return tuple(_one(figure) for figure in group)
    far = sorted(group, key=lambda figure: abs(math.log(figure.estimate.value_low or 1e-9)), reverse=True)
    return (f"{len(group)} arms, the farthest from 1:", *(_one(figure) for figure in far[:3]))


def _one(figure: Figure) -> str:
    words = decision_in_words(figure.estimate)
    more = (
        words.removeprefix("inconclusive at ")
        if words.startswith("inconclusive")
        else f"n = {figure.estimate.n}"
    )
    return f"{figure.arm} {numbers.ratio(figure.estimate)} ({more})"
