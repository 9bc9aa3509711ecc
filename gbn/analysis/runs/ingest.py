"""Read many runs into one columnar table: one row per run, with its curve in list columns ``curve/<key>``.

Tables need a run's summary (which contains its identity), its provenance and its curve. The YAML configuration is
never read.
"""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gbn.analysis.runs.points import columns_of, concatenate, read_curves
from gbn.store import trained_on
from gbn.store.files import REMEDY, StoreError, damaged, parse_provenance, point_of
from gbn.store.finished import (
    METRICS,
    PROVENANCE,
    SUMMARY,
    Digests,
    checked,
    curve_problem,
    provenance_problem,
    read,
    read_summary,
)
from gbn.store.record import Record
from gbn.store.records import RunStore

CURVE = "curve/"

#: The columns beside the curve. ``norm`` and ``rest`` are the identity without the seed, as JSON; ``data`` holds the
#: digests of the training data; ``data_allowed`` is whether it was allowed to change (``dataset.allow_changed``).
FIELDS: dict[str, Any] = {
    **dict.fromkeys(("run_id", "stamp", "status", "machine", "clock"), pa.string()),
    **dict.fromkeys(("threads", "updates", "parameters"), pa.int64()),
    **dict.fromkeys(("seconds", "last", "best_val", "best_test"), pa.float64()),
    **dict.fromkeys(("norm", "rest", "data"), pa.string()),
    "data_allowed": pa.bool_(),
    **dict.fromkeys(("seed", "points"), pa.int64()),
}

_ABSENT = "-"


def stamp(path: str | Path) -> str:
    """Return a string that identifies the current state of a file; ``-`` if there is no file.

    It combines the modification and status-change times, size and inode, so that editing in place, replacing the file
    and copying over it with the old date all change it.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    return f"{found.st_mtime_ns}.{found.st_ctime_ns}.{found.st_size}.{found.st_ino}"


def stamps(store: RunStore, run_ids: Iterable[str]) -> dict[str, str]:
    """Return the stamps of the files that a table needs, by run id, for finished runs only (those with a summary)."""
    found = {}
    for run_id in run_ids:
        folder = f"{store.runs_dir}{os.sep}{run_id}{os.sep}"
        summary = stamp(folder + SUMMARY)
        if summary != _ABSENT:
            found[run_id] = f"{summary} {stamp(folder + METRICS)} {stamp(folder + PROVENANCE)}"
    return found


def list_runs(store: RunStore) -> list[str]:
    """Return the sorted ids of all runs, like :meth:`RunStore.run_ids` but with a single scan of the folder."""
    try:
        with os.scandir(store.runs_dir) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except FileNotFoundError:
        return []


def read_runs(store: RunStore, stamped: Mapping[str, str]) -> pa.Table:
    """Read finished runs, given with their stamps, into a table.

    Stamps are taken before reading: a run that changes while it is read no longer matches its stamp next time and is
    read again. A run that disappears is left out.

    Raises:
        StoreError: a file is damaged, or is not the one that the run ended with; the message names it.
    """
    rows = []
    ended: dict[Path, tuple[dict[str, Any], Digests | None]] = {}
    for run_id, mark in stamped.items():
        folder = store.path(run_id)
        try:
            record, digests = _without_curve(folder)
            rows.append(_fields(record, mark))
        except StoreError:
            if not (folder / SUMMARY).exists():
                continue
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise damaged(folder / SUMMARY, repr(error)) from None
        ended[folder / METRICS] = (record.summary or {}), digests

    def check(path: Path, content: bytes | None) -> bytes | None:
        summary, digests = ended[path]
        checked(path, digests, content)
        problem = curve_problem(summary, _last(content or b""))
        if problem:
            raise StoreError(f"{path} and {SUMMARY} contradict each other: {problem}; {REMEDY}")
        return content

    return _table(rows, *read_curves(ended, check))


def _last(content: bytes) -> dict[str, Any] | None:
    """Return the last point of a metrics file; None if there is none or it is damaged."""
    for line in reversed(content.rstrip(b"\n").rsplit(b"\n", 2)[-2:]):
        with contextlib.suppress(ValueError):
            return point_of(line)[0]
    return None


def table_of(records: Sequence[Record], mark: str) -> pa.Table:
    """Return the table of records already in memory (the archive's); `mark` is their common stamp."""
    rows = [_fields(record, mark) for record in records]
    return _table(rows, columns_of(record.curve for record in records), [len(r.curve) for r in records])


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate such tables."""
    fields = pa.concat_tables([table.select(list(FIELDS)) for table in tables])
    curves = [
        (
            {
                name.removeprefix(CURVE): pa.concat_arrays([chunk.flatten() for chunk in table[name].chunks])
                for name in table.column_names
                if name not in FIELDS
            },
            pc.sum(table["points"]).as_py() or 0,
        )
        for table in tables
    ]
    return _with_curves(fields, concatenate(curves))


def _without_curve(folder: Path) -> tuple[Record, Digests | None]:
    summary, digests = read_summary(folder)
    content = read(folder / PROVENANCE, digests)
    segments = [] if content is None else parse_provenance(folder / PROVENANCE, content)
    problem = provenance_problem(summary, segments)
    if problem:
        raise StoreError(f"{folder / PROVENANCE} and {SUMMARY} contradict each other: {problem}; {REMEDY}")
    return Record(folder.name, summary["status"], {}, summary, [], segments), digests


def _fields(record: Record, mark: str) -> dict[str, Any]:
    """Return a value for each of :data:`FIELDS` except ``points``."""
    summary = record.summary or {}
    row = {
        "run_id": record.run_id,
        "stamp": mark,
        "status": record.status,
        "machine": record.machine,
        "clock": summary.get("clock", "shared"),
        "threads": _optional(int, record.environment.get("threads")),
        "updates": _optional(int, summary.get("updates")),
        "parameters": _optional(int, summary.get("parameters")),
        "seconds": _optional(float, summary.get("seconds")),
        "last": _accuracy(summary.get("final")),
        "best_val": _accuracy(summary.get("best_by_validation")),
        "best_test": _accuracy(summary.get("best_on_test")),
        "data": " then ".join(trained_on.digests(record.provenance)) or None,
        "data_allowed": bool((summary.get("config") or {}).get("dataset", {}).get("allow_changed")),
    }
    if "identity" in summary:
        parts = dict(summary["identity"])
        row |= {"norm": json.dumps(parts.pop("norm")), "seed": parts.pop("seed"), "rest": json.dumps(parts)}
    return row


def _accuracy(point: Mapping[str, Any] | None) -> float:
    value = (point or {}).get("test_accuracy")
    return math.nan if value is None else float(value)


def _optional(kind: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else kind(value)


def _table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.Array], counts: Sequence[int]
) -> pa.Table:
    fields = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in FIELDS.items()}
    fields["points"] = pa.array(counts, pa.int64())
    return _with_curves(pa.table(fields), columns)


def _with_curves(fields: pa.Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    ends = pa.array(np.cumsum([0, *fields["points"].to_pylist()]), pa.int32())
    for key, values in columns.items():
        fields = fields.append_column(CURVE + key, pa.ListArray.from_arrays(ends, values))
    return fields
