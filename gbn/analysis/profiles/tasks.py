"""The tasks on which arms of several experiments are compared: a task is a setting with one of its fixed targets.

Targets of one setting are different tasks but use the same runs, so they are not independent: anything drawn or
averaged over seeds takes all targets of a setting together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gbn.analysis.comparison.times import Times
from gbn.analysis.estimates.targets import Time, Unit
from gbn.measures import ACCURACY, Measure


@dataclass(frozen=True)
class SettingTasks:
    """The tasks of one setting: times over shared seeds.

    Attributes:
        name: experiment and setting.
        targets: values of the measure, one per task.
        seeds: the seeds that all arms have.
        times: arm -> one row per target, with one time per seed.
        measure: the measure of the targets; settings with different measures can be combined.
    """

    name: str
    targets: tuple[float, ...]
    seeds: tuple[int, ...]
    times: Mapping[str, Sequence[Sequence[Time]]]
    measure: Measure = ACCURACY


@dataclass(frozen=True)
class Tasks:
    """The tasks of some experiments.

    Attributes:
        arms: the arms that every setting has, the reference first.
        reference: the arm that speed-ups are relative to.
        unit: of the times.
        settings: each with its targets.
        left_out: arms that some setting lacks, or settings without a seed shared by all arms: name -> why.
    """

    arms: tuple[str, ...]
    reference: str
    unit: Unit
    settings: tuple[SettingTasks, ...]
    left_out: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """One name per task."""
        return [
            f"{one.name} to {one.measure.target(target)}" for one in self.settings for target in one.targets
        ]


def tasks_of(
    experiments: Sequence[Times],
    unit: Unit = "updates",
    arms: Sequence[str] | None = None,
    controls: bool = False,
) -> Tasks:
    """Return the tasks of one or several experiments, for the arms that all their settings have.

    Args:
        experiments: with the same reference; each setting with fixed targets gives tasks.
        unit: "seconds" only if every setting compares them.
        arms: the arms besides the reference; by default all that every setting has.
        controls: whether these include arms that only serve as controls of others.

    Raises:
        ValueError: references differ, seconds are not compared, a setting lacks an arm, or there is no target or no
            arm besides the reference.
    """
    references = sorted({one.runs.plan.reference for one in experiments})
    if len(references) != 1:
        raise ValueError(
            f"the experiments have {len(references)} references ({', '.join(references) or 'none'}): profile those "
            "that share one"
        )
    places = [
        (one, setting) for one in experiments for setting in one.runs.plan.settings if one.targets(setting)
    ]
    if not places:
        raise ValueError("none of these experiments has a fixed target: there is no task")
    for one, setting in places:
        if unit not in one.units(setting):
            raise ValueError(
                f"{_name(one, setting)}: seconds are not compared: {one.seconds_reasons[setting]}"
            )
    chosen, left_out = _arms(places, references[0], arms, controls)
    settings = []
    for one, setting in places:
        made = _setting(one, setting, chosen, unit)
        if made.seeds:
            settings.append(made)
        else:
            left_out[made.name] = "no seed that all these arms share"
    if not settings:
        raise ValueError(f"no setting has a seed that all of {', '.join(chosen)} share")
    return Tasks(chosen, references[0], unit, tuple(settings), left_out)


def _arms(
    places: Sequence[tuple[Times, str]], reference: str, wanted: Sequence[str] | None, controls: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the arms to profile, the reference first, and why others are left out."""
    had = {_name(one, setting): one.runs.arms(setting) for one, setting in places}
    every = list(dict.fromkeys(arm for present in had.values() for arm in present))
    lacking = {arm: [name for name, present in had.items() if arm not in present] for arm in every}
    for arm in (reference, *(wanted or ())):
        without = lacking.get(arm, list(had))
        if without:
            raise ValueError(
                f"arm {arm!r} has no run in {', '.join(without)}: a profile needs runs in every setting"
            )
    if wanted is None:
        of_others = {c for one, _ in places for kept in one.runs.plan.controls.values() for c in kept}
        wanted = [arm for arm in every if controls or arm not in of_others]
    left_out = {arm: f"no run in {', '.join(lacking[arm])}" for arm in wanted if lacking[arm]}
    chosen = tuple(dict.fromkeys([reference, *(arm for arm in wanted if not lacking[arm])]))
    if len(chosen) < 2:
        raise ValueError(f"no arm besides {reference} has runs in every one of {', '.join(had)}")
    return chosen, left_out


def _setting(times: Times, setting: str, arms: Sequence[str], unit: Unit) -> SettingTasks:
    seeds, targets = tuple(times.runs.pairs(setting, *arms)), times.targets(setting)
    found = {
        arm: [[times.time(setting, arm, seed, target, unit) for seed in seeds] for target in targets]
        for arm in arms
    }
    return SettingTasks(_name(times, setting), targets, seeds, found, times.measured)


def _name(times: Times, setting: str) -> str:
    return " ".join(filter(None, (times.runs.plan.name, setting)))
