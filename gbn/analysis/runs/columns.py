"""Runs in memory as columns: blocks of many runs, the row of each run, and the curves that a plan uses."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from gbn.analysis.runs.ingest import CURVE, FIELDS
from gbn.methods import METHODS

Key = tuple[str, str, int]

#: Methods without batch statistics: evaluation has nothing to compute exactly and writes no key with this suffix.
UNTRACKED = tuple(row.name for row in METHODS.values() if row.statistics in ("image", "none"))
EXACT = "_exact"
_ROW = [name for name in FIELDS if name not in ("stamp", "points")]


class Row(NamedTuple):
    """A finished run: the contents of its summary, and where its curve is.

    Attributes:
        norm, rest, seed: its identity: the norm section and everything else except the seed (both as JSON), and the
            seed.
        data: digests of its training data, "one then another" if the data changed; None if not recorded.
        data_allowed: whether the data was allowed to change.
        block, start, end: its curve is the points from `start` to `end` of the block.
    """

    run_id: str
    status: str
    machine: str
    clock: str
    threads: int | None
    updates: int | None
    parameters: int | None
    seconds: float | None
    last: float
    best_val: float
    best_test: float
    norm: str | None
    rest: str | None
    data: str | None
    data_allowed: bool
    seed: int | None
    block: "Block"
    start: int
    end: int
    source: Literal["store", "archive"]


class Block:
    """Many runs as columns (:mod:`gbn.analysis.runs.ingest`): a table in memory, or a Parquet file read on demand.

    An open file may be deleted or replaced by other processes; this object still reads the original content.
    """

    def __init__(self, source: pa.Table | pq.ParquetFile) -> None:
        self._source = source
        self._values: dict[str, np.ndarray] = {}
        self.schema: pa.Schema = source.schema if isinstance(source, pa.Table) else source.schema_arrow
        self._fields = self.table(list(FIELDS))
        self.stamps: list[tuple[str, str]] = list(
            zip(self._fields["run_id"].to_pylist(), self._fields["stamp"].to_pylist(), strict=True)
        )
        self._ends = np.cumsum(self._fields["points"].to_numpy())

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def keys(self) -> list[str]:
        """The keys of the curves."""
        return [name.removeprefix(CURVE) for name in self.schema.names if name.startswith(CURVE)]

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return some columns, or all of them."""
        if isinstance(self._source, pa.Table):
            return self._source if columns is None else self._source.select(columns)
        return self._source.read(columns=columns)

    def rows(self, indices: Sequence[int], source: Literal["store", "archive"]) -> Iterator[Row]:
        """Yield the rows at these indices."""
        table = self._fields
        if len(indices) < len(self):
            table = table.take(pa.array(indices, pa.int64()))
        ends = self._ends[list(indices)].tolist() if len(indices) else []
        starts = [int(self._ends[i - 1]) if i else 0 for i in indices]
        for values, start, end in zip(
            zip(*(table[name].to_pylist() for name in _ROW), strict=True), starts, ends, strict=True
        ):
            yield Row._make((*values, self, start, end, source))

    def values(self, key: str) -> np.ndarray:
        """Return one key of all curves, concatenated; missing values are NaN, booleans are 1 or 0."""
        if key not in self._values:
            self.fetch([key])
        return self._values[key]

    @cached_property
    def ascending(self) -> bool:
        """True if the points of every run are in order of update."""
        updates = self.values("update")
        rises = updates[1:] >= updates[:-1]
        inside = self._ends[:-1][(self._ends[:-1] > 0) & (self._ends[:-1] < len(updates))]
        rises[inside - 1] = True  # an update may decrease from one run to the next
        return bool(rises.all())

    def fetch(self, keys: Sequence[str]) -> None:
        """Read several keys at once, ahead of calls to :meth:`values`."""
        present = set(self.schema.names)
        table = self.table(
            [CURVE + key for key in dict.fromkeys(keys) if CURVE + key in present and key not in self._values]
        )
        for name in table.column_names:
            kind = table[name].type.value_type
            kind = pa.float64() if pa.types.is_boolean(kind) else kind
            chunks = [chunk.flatten().cast(kind) for chunk in table[name].chunks]
            array = pa.concat_arrays(chunks) if chunks else pa.nulls(0, kind)
            self._values[name.removeprefix(CURVE)] = array.to_numpy(zero_copy_only=False)
        for key in keys:
            if CURVE + key not in present:
                self._values[key] = np.full(self._ends[-1] if len(self) else 0, np.nan)


@cache
def _method(norm: str) -> str:
    """Return the method named in a norm section (as JSON)."""
    return str(json.loads(norm).get("method"))


class Curves:
    """The curves of selected runs, each key read on first use."""

    def __init__(self, rows: Mapping[Key, Row]) -> None:
        self._rows = rows
        self._blocks = list({id(row.block): row.block for row in rows.values()}.values())
        self._fetched: set[str] = set()
        self.keys = list(dict.fromkeys(key for block in self._blocks for key in block.keys))

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def columns(self, key: Key, names: Sequence[str]) -> tuple[np.ndarray, ...]:
        """Return some keys of one run's curve in order of update, float64 of shape (points,); NaN if not measured.

        A run that does not exist has no points.
        """
        row = self._rows.get(key)
        if row is None:
            return tuple(np.empty(0) for _ in names)
        self._fetch(("update", *names))
        order = self._order(row)
        found = []
        for name in names:
            values = self._slice(row, name)
            values = values if values.dtype == np.float64 else values.astype(np.float64)
            found.append(values if order is None else values[order])
        return tuple(found)

    def complete(self, name: str) -> bool:
        """Return whether every point of every run has this key."""
        self._fetch(("update", name))
        return name in self.keys and not any(
            np.isnan(self._slice(row, name)).any() for row in self._rows.values()
        )

    def frame(self, keys: Sequence[Key] | None = None) -> pd.DataFrame:
        """Return one row per point with setting, arm, seed and the curve's keys, sorted by update within each run."""
        chosen = [(key, self._rows[key]) for key in (self._rows if keys is None else keys)]
        counts = [row.end - row.start for _, row in chosen]
        columns: dict[str, Any] = {
            name: np.repeat(np.array([key[i] for key, _ in chosen], kind), counts)
            for i, (name, kind) in enumerate((("setting", object), ("arm", object), ("seed", np.int64)))
        }
        orders = [self._order(row) for _, row in chosen]
        for name in self.keys:
            parts = [self._slice(row, name) for _, row in chosen]
            ordered = [p if order is None else p[order] for p, order in zip(parts, orders, strict=True)]
            columns[name] = np.concatenate(ordered) if parts else np.empty(0)
        return pd.DataFrame(columns)

    def _fetch(self, names: tuple[str, ...]) -> None:
        if not self._fetched.issuperset(names):
            for block in self._blocks:
                block.fetch(names)
            self._fetched.update(names)

    def stands_in(self, key: Key, name: str) -> bool:
        """Return whether plain values replace those with exact statistics, since the run has no statistics to make
        exact.
        """
        row = self._rows.get(key)
        return row is not None and name.endswith(EXACT) and self._untracked(row)

    def _untracked(self, row: Row) -> bool:
        return (
            row.norm is not None
            and _method(row.norm) in UNTRACKED
            and not any(
                np.isfinite(self._values(row, name).astype(float)).any()
                for name in self.keys
                if name.endswith(EXACT)
            )
        )

    def _slice(self, row: Row, name: str) -> np.ndarray:
        if name.endswith(EXACT) and row.norm is not None and self._untracked(row):
            return self._values(row, name.removesuffix(EXACT))
        return self._values(row, name)

    @staticmethod
    def _values(row: Row, name: str) -> np.ndarray:
        return row.block.values(name)[row.start : row.end]

    def _order(self, row: Row) -> np.ndarray | None:
        """Return the permutation that sorts the points of a run by update; None if they are sorted."""
        if row.block.ascending:
            return None
        updates = self._slice(row, "update")
        return None if (updates[1:] >= updates[:-1]).all() else np.argsort(updates, kind="stable")
