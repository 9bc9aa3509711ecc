"""Snapshots of a running sweep: runs done and in progress, each arm's quality, the time left.

:class:`Watch` reads the store repeatedly and makes a :class:`Snapshot` each time; :mod:`gbn.sweep.watch.view` shows
it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median

from gbn import measures
from gbn.analysis.runs.plan import Entry, Plan
from gbn.store.files import StoreError
from gbn.store.finished import read_summary
from gbn.store.identity import group_of, identity
from gbn.store.records import DONE, SUMMARY, RunStore
from gbn.sweep.watch.run_state import RunState, WatchedRun, bad_value, read_config
from gbn.sweep.watch.time_left import TimeLeft, time_left

_BEGUN = (*DONE, "running", "interrupted")
_UNKNOWN = "-unknown"
_SEED_AND_HASH = re.compile(r"-s(\d+)-[0-9a-f]+$")


@dataclass(frozen=True)
class Median:
    """A median over the runs of an arm.

    Attributes:
        value: infinite if most of the runs diverged, since a diverged run is worse than any number.
        runs: number of runs.
        update: the update at which all of them were measured; None for the last points of done runs.
    """

    value: float
    runs: int
    update: int | None = None


@dataclass(frozen=True)
class ArmState:
    """One arm in one setting.

    Attributes:
        planned: number of runs it should have.
        counts: status -> runs.
        running: seed -> state, for runs being trained.
        now: the median at the latest update that all begun runs with a point share; None if there is none yet.
        final: the median of the last point of the done runs.
        errors: seed -> one line, for failed runs and damaged files.
    """

    setting: str
    arm: str
    planned: int
    counts: Mapping[str, int]
    running: Mapping[int, RunState]
    now: Median | None
    final: Median | None
    errors: Mapping[int, str]

    @property
    def done(self) -> int:
        """Number of runs that are done, whatever their result."""
        return sum(self.counts.get(status, 0) for status in DONE)


@dataclass(frozen=True)
class Snapshot:
    """A sweep at one moment.

    Attributes:
        title: one line for people.
        measure: the key of the curve whose medians are shown.
        counts: status -> runs, each run once.
        arms: in order of setting and arm.
        left: the estimate of the time left.
        command: the command that trains the remaining runs; "" if unknown.
    """

    title: str
    measure: str
    counts: Mapping[str, int]
    arms: tuple[ArmState, ...]
    left: TimeLeft
    command: str = ""

    @property
    def total(self) -> int:
        """Number of all runs."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """Number of runs that are done, whatever their result."""
        return sum(self.counts.get(status, 0) for status in DONE)

    @property
    def over(self) -> bool:
        """True if each run is done or has failed."""
        return self.total > 0 and self.total == self.done + self.counts.get("failed", 0)


class Watch:
    """Reads the runs of a plan, or those whose ids match patterns, as often as asked.

    Args:
        results_dir: the folder that holds ``runs/``.
        plan: an experiment's runs.
        patterns: ids or shell patterns on ids, matched again at each look; used if there is no plan.
        measure: the key of the curve to show; the plan's own by default.
        command: the command that trains the remaining runs.

    Raises:
        ValueError: the measure is unknown.
    """

    def __init__(
        self,
        results_dir: str | Path,
        plan: Plan | None = None,
        patterns: Sequence[str] = (),
        measure: str | None = None,
        command: str = "",
    ) -> None:
        self.store = RunStore(results_dir)
        self.plan = plan
        self.patterns = [Path(pattern).name for pattern in patterns]
        self.measure = measures.measure(measure or (plan.measure if plan else measures.DEFAULT)).key
        self.command = command
        self._runs: dict[str, WatchedRun] = {}
        self._groups: dict[str, str] = {}

    def look(self) -> Snapshot:
        """Return the current state of the sweep."""
        entries = self.plan.entries if self.plan else self._found()
        states = {entry: self._state(entry.run_id) for entry in entries}
        each = {entry.run_id: state.status for entry, state in states.items()}
        return Snapshot(
            self._title(),
            self.measure,
            Counter(each.values()),
            tuple(_arms(states, self.plan, self.measure)),
            time_left(states),
            self.command,
        )

    def _title(self) -> str:
        if self.plan is None:
            return f"runs {' '.join(self.patterns)}"
        scale = self.plan.selection.get("scale")
        return self.plan.title + (f" (scale {scale})" if scale else "")

    def _state(self, run_id: str) -> RunState:
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = WatchedRun(self.store.path(run_id), self.measure)
        return run.look()

    def _found(self) -> tuple[Entry, ...]:
        """Return the runs that match the patterns, with setting, arm and seed from the id; equal names get marks."""
        try:
            ids = self.store.run_ids()
        except OSError:  # a folder was removed while it was listed
            ids = []
        fitting = [one for one in ids if any(fnmatchcase(one, pattern) for pattern in self.patterns)]
        groups = {run_id: self._group(run_id) for run_id in fitting}
        known = {group for group in groups.values() if not group.endswith(_UNKNOWN)}
        named = Counter(group.rsplit("-", 1)[0] for group in known)
        entries = []
        for run_id, group in groups.items():
            slug, digest = group.rsplit("-", 1)
            setting, _, arm = slug.rpartition("-")
            mark = f" #{digest[:4]}" if named[slug] > 1 else ""
            entries.append(Entry(setting.replace("-", " "), arm + mark, _seed(run_id), run_id))
        return tuple(sorted(entries, key=lambda entry: (entry.setting, entry.arm, entry.seed)))

    def _group(self, run_id: str) -> str:
        """Return a run's group, shared by the seeds of its arm; from its id alone while it has no configuration."""
        if run_id not in self._groups:
            found = _group_on_disk(self.store.path(run_id))
            if found is None:
                return _SEED_AND_HASH.sub("", run_id) + _UNKNOWN
            self._groups[run_id] = found
        return self._groups[run_id]


def _seed(run_id: str) -> int:
    found = _SEED_AND_HASH.search(run_id)
    return int(found[1]) if found else 0


def _group_on_disk(folder: Path) -> str | None:
    from gbn.config.schema import Config

    try:
        if (folder / SUMMARY).exists():
            return group_of(read_summary(folder)[0]["identity"])
        config = Config.model_validate(read_config(folder))
        return group_of(identity(config.as_dict(), config.defaults()))
    except (OSError, StoreError, LookupError, ValueError, TypeError):
        return None


def _arms(states: Mapping[Entry, RunState], plan: Plan | None, measure: str) -> Iterable[ArmState]:
    grouped: dict[tuple[str, str], dict[int, RunState]] = {}
    for entry, state in states.items():
        grouped.setdefault((entry.setting, entry.arm), {})[entry.seed] = state
    order = list(grouped)
    if plan:
        order = [(setting, arm) for setting in plan.settings for arm in plan.arms(setting)]
    for setting, arm in order:
        runs = grouped[(setting, arm)]
        yield ArmState(
            setting,
            arm,
            planned=len(runs),
            counts=Counter(state.status for state in runs.values()),
            running={seed: state for seed, state in runs.items() if state.status == "running"},
            now=_now([state for state in runs.values() if state.status in _BEGUN], measure),
            final=_final([state for state in runs.values() if state.status in DONE], measure),
            errors={seed: state.error for seed, state in runs.items() if state.error},
        )


def _now(runs: Sequence[RunState], measure: str) -> Median | None:
    """Return the median at the latest update at which every run has a value or has diverged."""
    begun = [run for run in runs if run.values or run.diverged]
    sound = [set(run.values) for run in begun if not run.diverged]
    if begun and not sound:
        return Median(bad_value(measure), len(begun), max(run.update or 0 for run in begun))
    shared = set.intersection(*sound) if sound else set()
    if not shared:
        return None
    update = max(shared)
    values = [run.values.get(update, bad_value(measure)) for run in begun]
    return Median(median(values), len(values), update)


def _final(runs: Sequence[RunState], measure: str) -> Median | None:
    values = [
        bad_value(measure) if run.diverged else run.values[max(run.values)]
        for run in runs
        if run.diverged or run.values
    ]
    return Median(median(values), len(values)) if values else None
