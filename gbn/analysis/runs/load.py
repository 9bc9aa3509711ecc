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
from gbn.analysis.runs.columns import Curves
from gbn.analysis.runs.derive import derive_plan
from gbn.analysis.runs.notes import absences, data_notes, mixtures, stand_ins
from gbn.analysis.runs.plan import Entry, GridLike, Plan, plan_of_grid
from gbn.analysis.runs.rows import Reader, Row
from gbn.store.records import DONE

Source = Literal["store", "archive", "both"]
SOURCES: tuple[Source, ...] = ("store", "archive", "both")

#: The columns of :attr:`Runs.runs`.
RUN_COLUMNS = [
    *("setting", "arm", "seed", "run_id", "status", "source", "machine", "threads", "clock"),
    *("updates", "seconds", "parameters", "last", "best_val", "best_test"),
]

#: Targets to choose from where none were fixed, easiest first: of accuracies and other shares, and of the rest.
ROUND_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
ROUND_AMOUNTS = tuple(float(f"{step}e{power}") for power in range(3, -6, -1) for step in (7, 5, 3, 2, 1.5, 1))

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
        points: the curves of the finished runs.
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

    def columns(self, setting: str, arm: str, seed: int, names: Sequence[str]) -> tuple[np.ndarray, ...]:
        """Return some keys of one run's curve in order of update, float64 of shape (points,); NaN if not measured.

        A run that does not exist has no points.
        """
        return self.points.columns((setting, arm, seed), names)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row per point of the finished runs: setting, arm, seed and the curve's keys, in order of update."""
        keys = self.points.keys
        frames = {
            run: pd.DataFrame(dict(zip(keys, self.points.columns(run, keys), strict=True)))
            for run in self.points.rows
        }
        return (
            pd.concat(frames, names=["setting", "arm", "seed", "point"]).reset_index().drop(columns="point")
        )

    @cached_property
    def _usable(self) -> dict[Any, pd.DataFrame]:
        usable = self.runs[self.runs.status.isin(USABLE)].sort_values("seed")
        return dict(iter(usable.groupby(["setting", "arm"], sort=False)))

    @cached_property
    def _statuses(self) -> dict[tuple[str, str], dict[int, str]]:
        return {
            key: dict(zip(own.seed.tolist(), own.status, strict=True)) for key, own in self._usable.items()
        }


def load_grid_runs(
    grid: GridLike,
    results_dir: str | Path = "results",
    source: Source = "store",
    targets: Sequence[float] = (),
    measure: str | None = None,
) -> Runs:
    """Load the runs of an experiment.

    Args:
        grid: from :func:`gbn.config.grid.load_grid`.
        results_dir: holds ``runs/`` and ``archive/``.
        source: "store", "archive" or "both" (if both have a run, the store's record is used).
        targets: values of the measure (accuracies are fractions) to use instead of the grid's own; a note then says
            so.
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
    return _load(plan, Reader(results_dir), source)


def load_any(
    patterns: Sequence[str],
    results_dir: str | Path = "results",
    source: Source = "store",
    reference: str | None = None,
    targets: Sequence[float] = (),
    name: str = "runs",
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
    reader = Reader(results_dir)
    rows = _fitting(wanted, reader, source)
    selection = {"runs": sorted(wanted), "reference": reference, "targets": list(targets), "name": name}
    measure = measures.measure(measure or _measure_of(rows)).key
    plan = derive_plan(
        rows, name=name, reference=reference, targets=targets, selection=selection, measure=measure
    )
    runs = _load(plan, reader, source)
    if targets:
        return runs
    hardest = "highest" if measures.measure(measure).higher_is_better else "lowest"
    note = f"Targets were chosen from these runs (the {hardest} that every run of the reference reached)."
    return replace(
        runs,
        plan=replace(plan, targets=_round_targets(runs), notes=(*plan.notes, note)),
        notes=[*runs.notes, note],
    )


def _fitting(wanted: Sequence[str], reader: Reader, source: Source) -> list[Row]:
    """Return the finished runs whose ids match any of these patterns."""
    ids = reader.store.run_ids() if source != "archive" else []
    kept = dict.fromkeys(record.run_id for record in reader.archive) if source != "store" else {}
    chosen: dict[str, None] = {}
    for pattern in wanted:
        here, there = fitting(ids, pattern), fitting(kept, pattern)
        if not there and not any(run_id in reader.store for run_id in here):
            raise NothingFound(f"no run fits {pattern!r} in the {_place(reader, source)}")
        chosen |= dict.fromkeys([*here, *there])
    stored = reader.stored(chosen).values() if source != "archive" else ()
    return [*stored, *(reader.archived(chosen) if source != "store" else ())]


def _measure_of(rows: Sequence[Row]) -> str:
    """Return the key that these runs are compared by: the first of :func:`gbn.measures.ranked` that some run has."""
    return next(
        iter(measures.ranked(dict.fromkeys(k for row in rows for k in row.columns))), measures.DEFAULT
    )


def _round_targets(runs: Runs) -> dict[str, tuple[float, ...]]:
    """Return for each setting the three hardest round values that all runs of the reference reached."""
    measure, reference = measures.measure(runs.plan.measure), runs.plan.reference
    offered = ROUND_SHARES if measure.share else ROUND_AMOUNTS
    chosen = {}
    for setting in runs.plan.settings:
        curves = [
            runs.columns(setting, reference, s, [measure.key])[0] for s in runs.statuses(setting, reference)
        ]
        peaks = [max(measure.sign * curve[np.isfinite(curve)], default=-np.inf) for curve in curves]
        worst = min(peaks, default=-np.inf)
        chosen[setting] = tuple(t for t in offered if measure.sign * t <= worst)[-3:]
    return chosen


def _load(plan: Plan, reader: Reader, source: Source) -> Runs:
    if source not in SOURCES:
        raise ValueError(f"source={source!r}: allowed are {', '.join(SOURCES)}")
    statuses, candidates = _find(plan, reader, source)
    notes = list(plan.notes)
    chosen = _choose(plan, candidates, notes)
    if not chosen:
        raise NothingFound(_nothing(plan, reader, source, statuses))
    rows = []
    for entry in plan.entries:
        status = statuses.get(entry.run_id, "missing")
        known = (
            chosen[entry].fields()
            if entry in chosen
            else {"status": "left out" if status in DONE else status}
        )
        rows.append(
            {"setting": entry.setting, "arm": entry.arm, "seed": entry.seed, "run_id": entry.run_id} | known
        )
    runs = pd.DataFrame(rows, columns=RUN_COLUMNS)
    notes += absences(runs) + mixtures(plan, runs) + data_notes(plan, chosen)
    points = Curves({(entry.setting, entry.arm, entry.seed): row for entry, row in chosen.items()})
    notes += stand_ins(plan, points)
    return Runs(plan, runs, points, source, notes, reader.store.results_dir)


def _find(plan: Plan, reader: Reader, source: Source) -> tuple[dict[str, str], dict[str, list[Row]]]:
    """Return the status and the finished records of every run id of the plan, the store's record first."""
    wanted = dict.fromkeys(entry.run_id for entry in plan.entries)
    statuses: dict[str, str] = {}
    candidates: dict[str, list[Row]] = defaultdict(list)
    if source != "archive":
        stored = reader.stored(wanted)
        for run_id in wanted:
            row = stored.get(run_id)
            statuses[run_id] = row.record.status if row else reader.store.status(run_id)
            if row:
                candidates[run_id].append(row)
    if source != "store":
        for row in reader.archived(wanted):
            candidates[row.record.run_id].append(row)
            statuses[row.record.run_id] = row.record.status
    return statuses, candidates


def _choose(plan: Plan, candidates: Mapping[str, list[Row]], notes: list[str]) -> dict[Entry, Row]:
    """Choose one record per entry: each setting and seed uses the one machine that holds most of its arms."""
    overall = Counter(r.record.machine for entry in plan.entries for r in candidates.get(entry.run_id, ()))
    groups: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in plan.entries:
        groups[(entry.setting, entry.seed)].append(entry)
    chosen, elsewhere, copies = {}, [], 0
    for entries in groups.values():
        held = Counter(
            machine for e in entries for machine in {r.record.machine for r in candidates.get(e.run_id, ())}
        )
        if not held:
            continue
        best = min(held, key=lambda machine: (-held[machine], -overall[machine], machine))
        for entry in entries:
            rows = candidates.get(entry.run_id, [])
            here = [row for row in rows if row.record.machine == best]
            if here:
                chosen[entry] = here[0]
                copies += len({row.record.machine for row in rows}) - 1
            elif rows:
                elsewhere.append(f"{entry.arm} seed {entry.seed} ({rows[0].record.machine})")
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


def _place(reader: Reader, source: Source) -> str:
    names = {"store": "run store", "archive": "archive", "both": "run store or archive"}
    return f"{names[source]} of {reader.store.results_dir}/"


def _nothing(plan: Plan, reader: Reader, source: Source, statuses: Mapping[str, str]) -> str:
    text = f"nothing found: not one finished run of {plan.name} in the {_place(reader, source)}"
    begun = Counter(status for status in statuses.values() if status != "missing")
    if begun:
        text += f" ({', '.join(f'{count} {status}' for status, count in sorted(begun.items()))})"
    if source != "both":
        other: Source = "archive" if source == "store" else "store"
        count = sum(map(len, _find(plan, reader, other)[1].values()))
        if count:
            return f"{text}; the {other} holds {count}: add --source {other}"
    experiment = plan.selection.get("experiment")
    return f"{text}; train them: gbn reproduce {experiment}" if experiment else text
