"""The provenance of the numbers: devices, versions, commits, dates; and the runs that failed or are missing."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gbn.analysis.runs.load import Runs
from gbn.store.archive import Archive
from gbn.store.record import Record
from gbn.store.records import RunStore
from gbn.store.trained_on import digests, short

#: The longest error text that is embedded; it is cut at the front, since its end says what happened.
LONGEST_ERROR = 20_000


@dataclass(frozen=True)
class Failure:
    """A failed run with its traceback."""

    setting: str
    arm: str
    seed: int
    run_id: str
    error: str

    @property
    def last_line(self) -> str:
        """The last line of the traceback."""
        lines = [line for line in self.error.splitlines() if line.strip()]
        return lines[-1].strip() if lines else "no error text"


def records_of(runs: Runs, results_dir: str | Path) -> dict[str, Record]:
    """Return, by id, the record of every run of the plan that left anything in the source that was searched: of runs
    that the tables use, the one that they use.
    """
    found = {row.record.run_id: row.record for row in runs.points.rows.values()}
    others = {*runs.runs.run_id} - {*found}
    if runs.source != "archive":
        store = RunStore(results_dir)
        found |= {run_id: store.load(run_id) for run_id in sorted(others) if run_id in store}
    if runs.source != "store" and others:
        for record in Archive(results_dir):
            if record.run_id in others:
                found.setdefault(record.run_id, record)
    return found


def facts(runs: Runs, records: Mapping[str, Record]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return the properties of the runs that the tables use: each with its values and how many runs have them.

    The most frequent value is first; dates are in order.
    """
    used = runs.runs[runs.runs.status.isin(["finished", "diverged"])]
    counted: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for run_id, clock, source in zip(used.run_id, used.clock, used.source, strict=True):
        counted["source"][str(source)] += 1
        counted["clock"][str(clock)] += 1
        if run_id in records:
            for name, value in _properties(records[run_id]).items():
                counted[name][value] += 1
    order = ("device", "kernels", "threads", "clock", "commit", "date", "data digest", "source")
    names = [*(n for n in order if n in counted), *sorted(counted.keys() - set(order))]
    found = [(name, sorted(counted[name].items())) for name in names]
    for name, values in found:
        if name != "date":
            values.sort(key=lambda one: -one[1])
    return found


def _properties(record: Record) -> dict[str, str]:
    environment, segments = record.environment, [s for s in record.provenance if isinstance(s, dict)]
    found = {
        "device": environment.get("device_kind"),
        "kernels": environment.get("kernels"),
        "threads": environment.get("threads"),
        "commit": _commit(environment),
        "date": str(environment.get("date") or "")[:10],
    }
    first: dict[str, Any] = segments[0] if segments else {}
    found["data digest"] = " then ".join(map(short, digests(segments)))
    found |= {name: first.get(name) for name in ("cuda", "cudnn")}
    versions = first.get("versions") or {
        "torch": environment.get("torch"),
        "python": environment.get("python"),
    }
    found |= {f"{package} version": version for package, version in versions.items()}
    if len(segments) > 1:
        found["resumed"] = f"in {len(segments)} parts"
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _commit(environment: Mapping[str, Any]) -> str | None:
    commit = environment.get("commit")
    if not commit:
        return None
    return str(commit)[:10] + (" with uncommitted changes" if environment.get("dirty") else "")


def newest(records: Mapping[str, Record]) -> str:
    """Return the ISO date of the newest run; "unknown" if no run has one."""
    dates = [
        str(record.environment.get("date")) for record in records.values() if record.environment.get("date")
    ]
    return max(dates, default="unknown")


def failures(runs: Runs, records: Mapping[str, Record]) -> list[Failure]:
    """Return every failed run of the plan with its error (only its end if it is very long)."""
    rows = runs.runs[runs.runs.status == "failed"]
    return [
        Failure(
            row.setting, row.arm, int(row.seed), row.run_id,
            ((record.error if (record := records.get(row.run_id)) else "") or "")[-LONGEST_ERROR:].strip(),
        )
        for row in rows.itertuples()
    ]  # fmt: skip


def absent(runs: Runs) -> list[tuple[str, str, str, str]]:
    """Return (setting, arm, status, seeds) of the planned runs that are neither finished nor failed."""
    rows = runs.runs[~runs.runs.status.isin(["finished", "failed"])]
    return [
        (str(setting), str(arm), str(status).replace("_", " "), ", ".join(str(s) for s in sorted(group.seed)))
        for (setting, arm, status), group in rows.groupby(["setting", "arm", "status"], sort=False)
    ]
