"""How long a sweep will go on, from what its finished runs took and how many processes are at work."""

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
        work: seconds that one process would still need for the runs it covers.
        seconds: seconds left with the processes now at work; None where none is.
        processes: runs that are being trained now.
        uncovered: runs to come of which nothing tells how long they take.
    """

    work: float
    seconds: float | None
    processes: int
    uncovered: int


def time_left(states: Mapping[Entry, RunState]) -> TimeLeft:
    """Estimate the time left of a sweep.

    A run to come takes what the finished runs of its arm took (the median), else of its setting, else what its own
    pace or that of its setting's running runs says. Failed runs are not counted: the sweep does not try them again.
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
            or running.get(entry)  # its first updates bear the start-up: the last resort but one
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
    # Work spreads over the processes, but a run that is begun stays with its own.
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
