"""Finished runs as rows: the record of each, from the store or the archive, with its curve as columns.

Every number of a table comes from here. :meth:`gbn.store.records.RunStore.load` and
:class:`gbn.store.archive.Archive` check what they read, so that damaged files never become rows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from gbn.store import trained_on
from gbn.store.archive import Archive
from gbn.store.files import StoreError
from gbn.store.record import Curve, Record
from gbn.store.records import SUMMARY, RunStore


@dataclass(frozen=True)
class Row:
    """A finished run.

    Attributes:
        record: its record, without the points of the curve.
        points: the number of these points.
        columns: their values by key, in order of update: float64 of shape (points,). Booleans are 1 or 0, whatever is
            not a number is NaN, and a key without a single number is left out.
    """

    record: Record
    points: int
    columns: Mapping[str, np.ndarray]

    @property
    def identity(self) -> dict[str, Any] | None:
        """The part of its configuration that can change a number; None if it was not recorded."""
        return (self.record.summary or {}).get("identity")

    @cached_property
    def data(self) -> list[str]:
        """The digests of its training data, in order of training; empty if none was recorded."""
        return trained_on.digests(self.record.provenance)

    @property
    def data_allowed(self) -> bool:
        """Whether its data was allowed to change (``dataset.allow_changed``)."""
        return bool((self.record.config.get("dataset") or {}).get("allow_changed"))

    def values(self, name: str) -> np.ndarray:
        """Return a key of the curve, NaN at every point if it was never measured."""
        found = self.columns.get(name)
        return np.full(self.points, np.nan) if found is None else found

    def fields(self) -> dict[str, Any]:
        """Return everything that a table says about a single run; a missing accuracy is NaN."""
        summary = self.record.summary or {}
        return {
            "status": self.record.status,
            "source": self.record.source,
            "machine": self.record.machine,
            "threads": self.record.environment.get("threads"),
            "clock": summary.get("clock", "shared"),
            **{name: summary.get(name) for name in ("updates", "seconds", "parameters")},
            "last": _accuracy(summary.get("final")),
            "best_val": _accuracy(summary.get("best_by_validation")),
            "best_test": _accuracy(summary.get("best_on_test")),
        }


def _accuracy(point: Mapping[str, Any] | None) -> float:
    value = (point or {}).get("test_accuracy")
    return float("nan") if value is None else float(value)


def row_of(record: Record) -> Row:
    """Return a finished run as a row."""
    found = _of_source(record.curve.source) if isinstance(record.curve, Curve) else None
    columns, points = found or (columns_of(record.curve), len(record.curve))
    updates = columns.get("update", np.empty(0))
    if (updates[1:] < updates[:-1]).any():
        order = np.argsort(updates, kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
    return Row(replace(record, curve=()), points, columns)


def columns_of(points: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Return the points of a curve as columns, described at :class:`Row`."""
    found = {}
    for name in dict.fromkeys(chain.from_iterable(points)):
        values = [point.get(name) for point in points]
        if not set(map(type, values)) <= {float, int, bool}:
            values = [value if isinstance(value, float | int) else None for value in values]
        column = np.array(values, np.float64)
        if not np.isnan(column).all():
            found[name] = column
    return found


def _of_source(source: Any) -> tuple[dict[str, np.ndarray], int] | None:
    """Return what :func:`columns_of` does, and the number of points, from the source of a :class:`Curve`.

    This is twice as fast as by way of the points. None where a key holds values of several types, or numbers beyond
    64 bits.
    """
    if isinstance(source, bytes):
        try:
            table = pj.read_json(pa.BufferReader(source), pj.ReadOptions(use_threads=False))
        except pa.ArrowInvalid:
            return None
        source = dict(zip(table.column_names, table.columns, strict=True))
    found = {}
    for name, values in source.items():
        kind = values.type
        numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        if numbers and values.null_count < len(values):
            found[name] = np.asarray(values.cast(pa.float64(), safe=False))
    return found, max(map(len, source.values()), default=0)


class Reader:
    """The finished runs of a results directory; each is read once.

    Args:
        results_dir: holds ``runs/`` and ``archive/``.
    """

    def __init__(self, results_dir: str | Path) -> None:
        self.store = RunStore(results_dir)
        self.archive = Archive(results_dir)
        self._stored: dict[str, Row] = {}

    def stored(self, run_ids: Iterable[str]) -> dict[str, Row]:
        """Return those of these runs that are finished in the store, by run id.

        Raises:
            StoreError: a file of one of these runs is damaged.
        """
        found = {}
        for run_id in run_ids:
            summary = self.store.path(run_id) / SUMMARY
            if run_id not in self._stored and summary.exists():
                try:
                    self._stored[run_id] = row_of(self.store.load(run_id))
                except StoreError:
                    if summary.exists():  # else the run was removed meanwhile
                        raise
            if run_id in self._stored:
                found[run_id] = self._stored[run_id]
        return found

    def archived(self, run_ids: Collection[str]) -> list[Row]:
        """Return the archive's records of these runs, in its order. A run may have several, from several machines.

        Raises:
            StoreError: see :class:`gbn.store.archive.Archive`.
        """
        return [row_of(record) for record in self.archive if record.run_id in run_ids]
