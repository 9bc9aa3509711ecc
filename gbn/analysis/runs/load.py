"""Load the runs of a plan: which of them exist, on which machine, and their curves.

Two records of one run on two machines are not two seeds. Each setting and seed uses one machine, the one with most of
its arms, so that every pair is homogeneous. A note says what was left out.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import filter as fitting
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from gbn import measures
from gbn.analysis.runs.cache import Cache
from gbn.analysis.runs.columns import Curves, Row
from gbn.analysis.runs.defaults import measure_of, round_targets
from gbn.analysis.runs.derive import derive_plan
from gbn.analysis.runs.ingest import list_runs
from gbn.analysis.runs.notes import absences, mixtures, stand_ins
from gbn.analysis.runs.plan import Entry, GridLike, Plan, plan_of_grid
from gbn.analysis.runs.same_data import data_notes
from gbn.store.records import DONE

Source = Literal["store", "archive", "both"]
SOURCES: tuple[Source, ...] = ("store", "archive", "both")

#: The columns of :attr:`Runs.runs`.
RUN_COLUMNS = [
    *("setting", "arm", "seed", "run_id", "status", "source", "machine", "threads", "clock"),
    *("updates", "seconds", "parameters", "last", "best_val", "best_test"),
]

#: The statuses of runs that enter a comparison; a diverged run is a result.
USABLE = ("finished", "diverged")


class NothingFound(LookupError):
    """No run of the plan is finished in the given source; the message says where others are."""


@dataclass
class Runs:
    """The runs of a plan.

    Attributes:
        plan: the runs that should exist.
        runs: one row per entry of the plan, with columns :data:`RUN_COLUMNS`. `last`, `best_val` (best by validation)
            and `best_test` are test accuracies; NaN if there is none.
        points: the curves of the finished runs, each key read on first use.
        source: where records were looked up.
        notes: one sentence for each thing that is missing, mixed or left out.
        results_dir: the directory that was searched; None for runs built in memory.
    """

    plan: Plan
    runs: pd.DataFrame
    points: Curves
    source: Source
    notes: list[str] = field(default_factory=list)
    results_dir: Path | None = None

    def usable(self, setting: str, arm: str) -> pd.DataFrame:
        """Return the finished and diverged runs of an arm, sorted by seed."""
        found = self._usable.get((setting, arm))
        return self.runs.iloc[:0] if found is None else found

    def statuses(self, setting: str, arm: str) -> Mapping[int, str]:
        """Return the status ("finished" or "diverged") of the usable runs of an arm by seed, in ascending order."""
        return self._statuses.get((setting, arm), {})

    def arms(self, setting: str) -> list[str]:
        """Return the arms of a setting that have a usable run, in the plan's order."""
        return [arm for arm in self.plan.arms(setting) if (setting, arm) in self._statuses]

    def pairs(self, setting: str, *arms: str) -> list[int]:
        """Return the seeds that all these arms have, ascending; the runs of a seed are all of one machine."""
        return sorted(set.intersection(*({*self.statuses(setting, arm)} for arm in arms)))

    def has(self, key: str) -> bool:
        """Return whether some usable run has a number under this key of its curve."""
        return key in self.points.keys and any(
            pd.notna(self.columns(setting, arm, seed, [key])[0]).any()
            for (setting, arm), seeds in self._statuses.items()
            for seed in seeds
        )

    def curve(self, setting: str, arm: str, seed: int) -> pd.DataFrame:
        """Return the points of one run in order of update: setting, arm, seed and the curve's keys."""
        key = (setting, arm, seed)
        return self.points.frame([key] if key in self.points else [])

    def columns(self, setting: str, arm: str, seed: int, names: Sequence[str]) -> tuple[np.ndarray, ...]:
        """Return some keys of one run's curve in order of update, float64 of shape (points,); NaN if not measured.

        A run that does not exist has no points. Far cheaper than :meth:`curve`.
        """
        return self.points.columns((setting, arm, seed), names)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row per point of the finished runs: setting, arm, seed and the point's keys. Loads every curve into
        memory.
        """
        return self.points.frame()

    @cached_property
    def _usable(self) -> dict[Any, pd.DataFrame]:
        usable = self.runs[self.runs.status.isin(USABLE)].sort_values("seed")
        return dict(iter(usable.groupby(["setting", "arm"], sort=False)))

    @cached_property
    def _statuses(self) -> dict[tuple[str, str], dict[int, str]]:
        usable = self.runs[self.runs.status.isin(USABLE)].sort_values("seed")
        found: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
        columns = (usable[name].tolist() for name in ("setting", "arm", "seed", "status"))
        for setting, arm, seed, status in zip(*columns, strict=True):
            found[setting, arm][int(seed)] = status
        return dict(found)


def load_grid_runs(
    grid: GridLike,
    results_dir: str | Path = "results",
    source: Source = "store",
    targets: Sequence[float] = (),
    cache: bool = True,
    measure: str | None = None,
) -> Runs:
    """Load the runs of an experiment.

    Args:
        grid: from :func:`gbn.config.grid.load_grid`.
        results_dir: holds ``runs/`` and ``archive/``.
        source: "store", "archive" or "both" (if both have a run, the store's record is used).
        targets: values of the measure (accuracies are fractions) to use instead of the grid's own; a note then says
            so.
        cache: keep a columnar copy in ``<results_dir>/cache/`` (:mod:`gbn.analysis.runs.cache`) and read unchanged
            runs from it.
        measure: the measure that `targets` are values of; None means the grid's own.

    Raises:
        NothingFound: no run of the grid is finished there.
        StoreError: a file is damaged, or runs were trained on different data without permission.
        ValueError: the measure is unknown, or a target is outside its range.
    """
    plan = plan_of_grid(grid)
    if targets:
        said = "Targets were given by hand, in the place of the experiment's own."
        plan = plan.with_targets(targets, said, measure)
    return load_plan(plan, results_dir, source, cache)


def load_any(
    patterns: Sequence[str],
    results_dir: str | Path = "results",
    source: Source = "store",
    reference: str | None = None,
    targets: Sequence[float] = (),
    name: str = "runs",
    cache: bool = True,
    measure: str | None = None,
) -> Runs:
    """Load any set of runs, given by id, by shell pattern on ids, or by the path of a run's folder.

    `measure` defaults to the first of :func:`gbn.measures.ranked` that the runs have. `targets` default to the three
    hardest of a fixed list that every run of the reference reached; a note then says that these targets were not
    fixed before the runs.

    Raises:
        NothingFound: a pattern matches no run, or no run is finished.
        StoreError: a file is damaged, or runs were trained on different data without permission.
        ValueError: there is no arm to compare with (see :func:`gbn.analysis.runs.derive.derive_plan`), the measure is
            unknown, or a target is outside its range.
    """
    wanted = [Path(pattern).name for pattern in patterns]
    look = Cache(results_dir, cache)
    rows = _fitting(wanted, look, source)
    selection = {"runs": sorted(wanted), "reference": reference, "targets": list(targets), "name": name}
    measure = measures.measure(measure or measure_of(rows)).key
    plan = derive_plan(
        rows, name=name, reference=reference, targets=targets, selection=selection, measure=measure
    )
    runs = _load(plan, look, source)
    if targets:
        return runs
    hardest = "highest" if measures.measure(measure).higher_is_better else "lowest"
    note = f"Targets were chosen from these runs (the {hardest} that every run of the reference reached)."
    return replace(
        runs,
        plan=replace(plan, targets=round_targets(runs), notes=(*plan.notes, note)),
        notes=[*runs.notes, note],
    )


def _fitting(wanted: Sequence[str], cache: Cache, source: Source) -> list[Row]:
    """Return the finished runs whose ids match any of these patterns."""
    ids = list_runs(cache.store) if source != "archive" else []
    chosen: dict[str, None] = {}
    archived = cache.archived() if source != "store" else []
    kept = dict.fromkeys(row.run_id for row in archived)
    for pattern in wanted:
        here, there = fitting(ids, pattern), fitting(kept, pattern)
        begun = (run_id for run_id in here if cache.store.status(run_id) != "missing")
        if not there and next(begun, None) is None:
            raise NothingFound(f"no run fits {pattern!r} in the {_place(cache, source)}")
        chosen |= dict.fromkeys([*here, *there])
    stored = cache.stored(chosen) if source != "archive" else {}
    return [*stored.values(), *(row for row in archived if row.run_id in chosen)]


def load_plan(
    plan: Plan, results_dir: str | Path = "results", source: Source = "store", cache: bool = True
) -> Runs:
    """Load the runs of a plan; see :func:`load_grid_runs`."""
    if source not in SOURCES:
        raise ValueError(f"source={source!r}: allowed are {', '.join(SOURCES)}")
    return _load(plan, Cache(results_dir, cache), source)


def _load(plan: Plan, cache: Cache, source: Source) -> Runs:
    statuses, candidates = _find(plan, cache, source)
    notes = list(plan.notes)
    chosen = _choose(plan, candidates, notes)
    if not chosen:
        raise NothingFound(_nothing(plan, cache, source, statuses))
    rows = [_row(entry, chosen.get(entry), statuses.get(entry.run_id, "missing")) for entry in plan.entries]
    runs = pd.DataFrame(rows, columns=RUN_COLUMNS)
    notes += absences(runs) + mixtures(plan, runs) + data_notes(plan, chosen)
    points = Curves({(entry.setting, entry.arm, entry.seed): row for entry, row in chosen.items()})
    notes += stand_ins(plan, points)
    return Runs(plan, runs, points, source, notes, cache.store.results_dir)


def _find(plan: Plan, cache: Cache, source: Source) -> tuple[dict[str, str], dict[str, list[Row]]]:
    """Return the status and the finished records of every run id of the plan, the store's record first."""
    wanted = dict.fromkeys(entry.run_id for entry in plan.entries)
    statuses: dict[str, str] = {}
    candidates: dict[str, list[Row]] = defaultdict(list)
    if source != "archive":
        stored = cache.stored(wanted)
        for run_id in wanted:
            row = stored.get(run_id)
            statuses[run_id] = row.status if row else cache.store.status(run_id)
            if row:
                candidates[run_id].append(row)
    if source != "store":
        for row in cache.archived():
            if row.run_id in wanted:
                candidates[row.run_id].append(row)
                statuses[row.run_id] = row.status
    return statuses, candidates


def _choose(plan: Plan, candidates: Mapping[str, list[Row]], notes: list[str]) -> dict[Entry, Row]:
    """Choose one record per entry: each setting and seed uses the one machine that holds most of its arms."""
    overall = Counter(r.machine for entry in plan.entries for r in candidates.get(entry.run_id, ()))
    groups: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in plan.entries:
        groups[(entry.setting, entry.seed)].append(entry)
    chosen, elsewhere, copies = {}, [], 0
    for entries in groups.values():
        held = Counter(
            machine for e in entries for machine in {r.machine for r in candidates.get(e.run_id, ())}
        )
        if not held:
            continue
        best = min(held, key=lambda machine: (-held[machine], -overall[machine], machine))
        for entry in entries:
            records = candidates.get(entry.run_id, [])
            here = [record for record in records if record.machine == best]
            if here:
                chosen[entry] = here[0]
                copies += len({record.machine for record in records}) - 1
            elif records:
                elsewhere.append(f"{entry.arm} seed {entry.seed} ({records[0].machine})")
    if elsewhere:
        notes.append(
            "Mixed devices: left out, because the rest of their seed ran on another device or version and a "
            f"pair must be homogeneous: {', '.join(elsewhere)}."
        )
    if copies:
        notes.append(
            f"{copies} records of the same runs on other machines were not used (one machine a seed)."
        )
    return chosen


def _row(entry: Entry, found: Row | None, status: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(RUN_COLUMNS)
    row |= {"setting": entry.setting, "arm": entry.arm, "seed": entry.seed, "run_id": entry.run_id}
    if found is None:
        return row | {"status": "left out" if status in DONE else status}
    return row | {name: getattr(found, name) for name in RUN_COLUMNS[RUN_COLUMNS.index("status") :]}


def _place(cache: Cache, source: Source) -> str:
    names = {"store": "run store", "archive": "archive", "both": "run store or archive"}
    return f"{names[source]} of {cache.store.results_dir}/"


def _nothing(plan: Plan, cache: Cache, source: Source, statuses: Mapping[str, str]) -> str:
    text = f"nothing found: not one finished run of {plan.name} in the {_place(cache, source)}"
    begun = Counter(status for status in statuses.values() if status != "missing")
    if begun:
        text += f" ({', '.join(f'{count} {status}' for status, count in sorted(begun.items()))})"
    if source != "both":
        other: Source = "archive" if source == "store" else "store"
        count = sum(map(len, _find(plan, cache, other)[1].values()))
        if count:
            return f"{text}; the {other} holds {count}: add --source {other}"
    experiment = plan.selection.get("experiment")
    return f"{text}; train them: python scripts/reproduce.py {experiment}" if experiment else text
