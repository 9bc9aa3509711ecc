"""From files to tidy frames: which run of the plan is there, on which machine, with which curve.

Two records of one run on two machines are no two seeds: of each setting and seed one machine is taken, the
one that holds most of its arms, so that every pair is homogeneous; what is left out is said in the notes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from gbn.analysis.derive import derive_plan
from gbn.analysis.notes import absences, mixtures
from gbn.analysis.plan import Entry, GridLike, Plan, plan_of_grid
from gbn.store.archive import Archive
from gbn.store.records import DONE, Record, RunStore

Source = Literal["store", "archive", "both"]
SOURCES: tuple[Source, ...] = ("store", "archive", "both")

#: The columns of :attr:`Runs.runs`.
RUN_COLUMNS = [
    *("setting", "arm", "seed", "run_id", "status", "source", "machine", "threads", "clock"),
    *("updates", "seconds", "parameters", "last", "best_val", "best_test"),
]


#: Accuracies offered as targets where none was fixed.
ROUND_TARGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)


class NothingFound(LookupError):
    """Not one finished run of the plan where it was sought; the message says where others are."""


@dataclass
class Runs:
    """The runs of a plan.

    Attributes:
        plan: what should be there.
        runs: one row an entry of the plan, columns :data:`RUN_COLUMNS`. `last`, `best_val` (best by
            validation) and `best_test` are test accuracies; NaN where there is none.
        curves: one row a point of a usable run: setting, arm, seed and the point's keys.
        source: where the records were sought.
        notes: what is missing, mixed or left out, a sentence each.
        results_dir: where the records were sought; None: they were made in memory.
    """

    plan: Plan
    runs: pd.DataFrame
    curves: pd.DataFrame
    source: Source
    notes: list[str] = field(default_factory=list)
    results_dir: Path | None = None

    def usable(self, setting: str, arm: str) -> pd.DataFrame:
        """The finished and diverged runs of an arm, sorted by seed."""
        return self._usable.get((setting, arm), self.runs.iloc[:0])

    def curve(self, setting: str, arm: str, seed: int) -> pd.DataFrame:
        """The points of one run in order of update."""
        return self._curves.get((setting, arm, seed), self.curves.iloc[:0])

    def __post_init__(self) -> None:
        usable = self.runs[self.runs.status.isin(["finished", "diverged"])].sort_values("seed")
        self._usable: dict[Any, pd.DataFrame] = dict(iter(usable.groupby(["setting", "arm"], sort=False)))
        self._curves: dict[Any, pd.DataFrame] = {}
        if len(self.curves):
            ordered = self.curves.sort_values("update")
            self._curves = dict(iter(ordered.groupby(["setting", "arm", "seed"], sort=False)))


def load_grid_runs(
    grid: GridLike,
    results_dir: str | Path = "results",
    source: Source = "store",
    targets: Sequence[float] = (),
) -> Runs:
    """The runs of an experiment.

    Args:
        grid: from :func:`gbn.config.grid.load_grid`.
        results_dir: holds ``runs/`` and ``archive/``.
        source: "store", "archive" or "both" (where both have a run, the store's record counts).
        targets: accuracies (fractions) in the place of the grid's own, which a note then says.

    Raises:
        NothingFound: no run of the grid is finished there.
        StoreError: a damaged file.
    """
    plan = plan_of_grid(grid)
    if targets:
        plan = plan.with_targets(targets, "Targets were given by hand, in the place of the experiment's own.")
    return load_plan(plan, results_dir, source)


def load_any(
    patterns: Sequence[str],
    results_dir: str | Path = "results",
    source: Source = "store",
    reference: str | None = None,
    targets: Sequence[float] = (),
    name: str = "runs",
) -> Runs:
    """Any set of runs, by id, by shell pattern on ids, or by the path of a run's folder.

    Without `targets` the three highest of a fixed list that every run of the reference reached are taken, which
    a note says: such targets were not fixed before the runs.

    Raises:
        NothingFound: a pattern that fits no run, or no finished run at all.
        ValueError: no arm to compare with (see :func:`gbn.analysis.derive.derive_plan`).
    """
    wanted = [Path(pattern).name for pattern in patterns]
    every = list(_every(results_dir, source))
    records = []
    for pattern in wanted:
        found = [record for record in every if fnmatchcase(record.run_id, pattern)]
        if not found:
            raise NothingFound(f"no run fits {pattern!r} in the {_place(results_dir, source)}")
        records += found
    selection = {"runs": sorted(wanted), "reference": reference, "targets": list(targets), "name": name}
    plan = derive_plan(records, name=name, reference=reference, targets=targets, selection=selection)
    runs = load_plan(plan, results_dir, source)
    if targets:
        return runs
    note = "Targets were chosen from these runs (the highest that every run of the reference reached)."
    return replace(
        runs, plan=replace(plan, targets=_reached(runs), notes=(*plan.notes, note)), notes=[*runs.notes, note]
    )


def _reached(runs: Runs) -> dict[str, tuple[float, ...]]:
    """For each setting up to three round accuracies that all runs of the reference reached."""
    chosen = {}
    for setting in runs.plan.settings:
        seeds = runs.usable(setting, runs.plan.reference).seed
        peaks = [
            runs.curve(setting, runs.plan.reference, int(s)).get("val_accuracy", pd.Series([0.0])).max()
            for s in seeds
        ]
        lowest = min(peaks, default=0.0)
        chosen[setting] = tuple(target for target in ROUND_TARGETS if target <= lowest)[-3:]
    return chosen


def _every(results_dir: str | Path, source: Source) -> Iterable[Record]:
    if source != "archive":
        yield from RunStore(results_dir)
    if source != "store":
        yield from Archive(results_dir)


def load_plan(plan: Plan, results_dir: str | Path = "results", source: Source = "store") -> Runs:
    """The runs of a plan; see :func:`load_grid_runs`."""
    if source not in SOURCES:
        raise ValueError(f"source={source!r}: allowed are {', '.join(SOURCES)}")
    statuses, candidates = _find(plan, results_dir, source)
    notes = list(plan.notes)
    chosen = _choose(plan, candidates, notes)
    if not chosen:
        raise NothingFound(_nothing(plan, results_dir, source, statuses))
    rows = [_row(entry, chosen.get(entry), statuses.get(entry.run_id, "missing")) for entry in plan.entries]
    points = [
        {"setting": entry.setting, "arm": entry.arm, "seed": entry.seed, **point}
        for entry, record in chosen.items()
        for point in record.curve
    ]
    runs = pd.DataFrame(rows, columns=RUN_COLUMNS)
    notes += absences(runs) + mixtures(plan, runs)
    return Runs(plan, runs, pd.DataFrame(points), source, notes, Path(results_dir))


def _find(
    plan: Plan, results_dir: str | Path, source: Source
) -> tuple[dict[str, str], dict[str, list[Record]]]:
    """Status and done records of every run id of the plan, the store's record first."""
    wanted = dict.fromkeys(entry.run_id for entry in plan.entries)
    statuses: dict[str, str] = {}
    candidates: dict[str, list[Record]] = defaultdict(list)
    if source != "archive":
        store = RunStore(results_dir)
        for run_id in wanted:
            statuses[run_id] = store.status(run_id)
            if statuses[run_id] in DONE:
                candidates[run_id].append(store.load(run_id))
    if source != "store":
        for record in Archive(results_dir):
            if record.run_id in wanted:
                candidates[record.run_id].append(record)
                statuses[record.run_id] = record.status
    return statuses, candidates


def _choose(plan: Plan, candidates: Mapping[str, list[Record]], notes: list[str]) -> dict[Entry, Record]:
    """One record an entry: each setting and seed from the one machine that holds most of its arms."""
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


def _row(entry: Entry, record: Record | None, status: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(RUN_COLUMNS)
    row |= {"setting": entry.setting, "arm": entry.arm, "seed": entry.seed, "run_id": entry.run_id}
    if record is None or record.summary is None:
        return row | {"status": "left out" if status in DONE else status}
    summary = record.summary
    final = summary.get("final") or {}
    return row | {
        "status": record.status,
        "source": record.source,
        "machine": record.machine,
        "threads": record.environment.get("threads"),
        "clock": summary.get("clock", "shared"),
        "updates": summary.get("updates"),
        "seconds": summary.get("seconds"),
        "parameters": summary.get("parameters"),
        "last": _number(final.get("test_accuracy")),
        "best_val": _number((summary.get("best_by_validation") or {}).get("test_accuracy")),
        "best_test": _number((summary.get("best_on_test") or {}).get("test_accuracy")),
    }


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _place(results_dir: str | Path, source: Source) -> str:
    names = {"store": "run store", "archive": "archive", "both": "run store or archive"}
    return f"{names[source]} of {results_dir}/"


def _nothing(plan: Plan, results_dir: str | Path, source: Source, statuses: Mapping[str, str]) -> str:
    text = f"nothing found: not one finished run of {plan.name} in the {_place(results_dir, source)}"
    begun = Counter(status for status in statuses.values() if status != "missing")
    if begun:
        text += f" ({', '.join(f'{count} {status}' for status, count in sorted(begun.items()))})"
    if source != "both":
        other: Source = "archive" if source == "store" else "store"
        count = sum(map(len, _find(plan, results_dir, other)[1].values()))
        if count:
            return f"{text}; the {other} holds {count}: add --source {other}"
    experiment = plan.selection.get("experiment")
    return f"{text}; train them: python scripts/reproduce.py {experiment}" if experiment else text
