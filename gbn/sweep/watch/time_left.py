"""Estimate of a sweep's remaining time, from the duration of its finished runs and the number of processes."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from statistics import median

from gbn.analysis.runs.plan import Entry
from gbn.sweep.watch.run_state import RunState

_TO_COME = ("running", "interrupted", "missing")


@dataclass(frozen=True)
class TimeLeft:
    """An estimate.

    Attributes:
        work: seconds that a single process would need for the covered runs.
        seconds: seconds left with the current number of processes; None if there are none.
        processes: number of runs being trained now.
        uncovered: number of remaining runs whose duration cannot be estimated.
    """

    work: float
    seconds: float | None
    processes: int
    uncovered: int


def time_left(states: Mapping[Entry, RunState]) -> TimeLeft:
    """Estimate a sweep's remaining time.

    A remaining run is assumed to take the median time of the finished runs of its arm, else of its setting, else the
    time by its own pace or that of its setting's running runs. Failed runs are not counted: they are not retried.
    """
    to_come = {entry: state for entry, state in states.items() if state.status in _TO_COME}
    took = {entry: state.took for entry, state in states.items() if state.status == "finished"}
    running = {
        entry: state.pace * state.total for entry, state in to_come.items() if state.pace and state.total
    }
    by_arm = _medians(took, lambda entry: (entry.setting, entry.arm))
    by_setting = _medians(took, lambda entry: entry.setting)
    by_pace = _medians(running, lambda entry: entry.setting)
    left, uncovered = [], 0
    at_work = [0.0]
    for entry, state in to_come.items():
        whole = (
            by_arm.get((entry.setting, entry.arm))
            or by_setting.get(entry.setting)
            or running.get(entry)  # includes the start-up, hence only the second to last resort
            or by_pace.get(entry.setting)
        )
        if whole is None:
            uncovered += 1
            continue
        left.append(whole * (1 - state.share))
        if state.status == "running":
            at_work.append(left[-1])
    processes = sum(state.status == "running" for state in to_come.values())
    work = sum(left)
    # Work is spread over the processes, but a run in progress stays with its own.
    seconds = max(work / processes, *at_work) if processes and left else None
    return TimeLeft(work, seconds, processes, uncovered)


def _medians(
    seconds: Mapping[Entry, float | None], key: Callable[[Entry], Hashable]
) -> dict[Hashable, float]:
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for entry, value in seconds.items():
        if value:
            groups[key(entry)].append(value)
    return {name: median(values) for name, values in groups.items()}
